//! What the targets call: the properties of Holdfast's own tests, and hyper's opinion on what a request is.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use holdfast::fuzzing::{self, Opinion, Reading};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

pub use holdfast::fuzzing::{csv, forwarded, json, key_set, sql, stream, tokens};

/// One request is the same to Holdfast, to the lenient readers of its tests, and to hyper.
pub fn readings(data: &[u8]) {
    fuzzing::readings(data);
    fuzzing::compare(data, &mut |bytes| vec![hyper_reads(bytes)]);
}

/// More turns than hyper takes for as many bytes as a fuzzer gives it.
const TURNS_MAX: usize = 100_000;

/// What hyper's server makes of a connection on which these bytes come, and then the end.
fn hyper_reads(bytes: &[u8]) -> Opinion {
    let opinion = Rc::new(RefCell::new(Opinion::default()));
    let service = service_fn(|request| answer(request, Rc::clone(&opinion)));
    let connection = http1::Builder::new().half_close(true).serve_connection(Wire(bytes.to_vec(), 0), service);
    // The connection and the body wait for each other, never for more bytes: each turn brings one of them on.
    let mut connection = pin!(connection);
    let mut turns = 0..TURNS_MAX;
    let outcome = turns.find_map(|_| match connection.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    });
    let outcome = outcome.expect("hyper ends with the bytes");
    let mut opinion = opinion.take();
    // The end of the connection within a head is the end of a request that it has begun to read.
    match outcome {
        Err(error) if error.is_incomplete_message() && opinion.requests.last().is_none_or(Option::is_some) => {
            opinion.requests.push(None);
        }
        Err(_) => opinion.refuses = true,
        Ok(()) => {}
    }
    opinion
}

async fn answer(request: Request<Incoming>, opinion: Rc<RefCell<Opinion>>) -> Result<Response<Nothing>, Infallible> {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    let response = Response::builder().status(404).body(Nothing).expect("it is well formed");
    while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        match frame {
            Ok(frame) => body.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(error) if is_short(&error) => {
                opinion.borrow_mut().requests.push(None);
                return Ok(response);
            }
            Err(_) => {
                opinion.borrow_mut().refuses = true;
                return Ok(response);
            }
        }
    }
    let values = head.headers.iter();
    let headers =
        values.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    opinion.borrow_mut().requests.push(Some(Reading::new(head.method.as_str(), target, headers, body)));
    Ok(response)
}

/// Whether the body ended before it should.
fn is_short(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    error.is_incomplete_message() || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

/// A client that has sent everything, and takes every answer.
struct Wire(Vec<u8>, usize);

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let end = wire.0.len().min(wire.1 + into.remaining());
        into.put_slice(&wire.0[wire.1..end]);
        wire.1 = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The body of an answer that has none.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{hyper_reads, readings};

    /// What takes the place of a byte: what ends or begins something, and what is overlooked by some.
    const BYTES: &[u8] = b"\0\t\n\r ,:;0Aa\x0b\xa0";

    #[test]
    fn what_is_accepted_as_one_request_is_the_same_one_to_hyper_wherever_a_byte_is_changed() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/readings");
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus can be read") {
            let input = std::fs::read(entry.expect("the corpus can be read").path()).expect("an input can be read");
            inputs += 1;
            readings(&input);
            for at in 0..input.len().min(250) {
                let (before, after) = (&input[..at], &input[at + 1..]);
                readings(&[before, after].concat());
                readings(&[before, &input[at..=at], &input[at..]].concat());
                for byte in BYTES {
                    readings(&[before, &[*byte], after].concat());
                }
            }
        }
        assert!(inputs >= 40, "{inputs}");
    }

    #[test]
    fn hyper_is_really_asked() {
        let two =
            hyper_reads(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nbGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let bodies: Vec<_> =
            two.requests.iter().map(|request| request.as_ref().map(|request| &*request.body)).collect();
        assert_eq!((bodies, two.refuses), (vec![Some(&b"b"[..]), Some(&b""[..])], false));
        let short = hyper_reads(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nb");
        assert_eq!((short.requests, short.refuses), (vec![None], false));
        assert!(hyper_reads(b"nonsense\r\n\r\n").refuses);
    }
}
