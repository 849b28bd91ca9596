//! A run's events as they arrive.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::Value;

use super::{Heard, PATIENCE, Response};

/// One event of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A stream of events that is being read.
pub(crate) struct Events {
    /// The answer's head.
    pub(crate) head: Response,
    lines: BufReader<Chunked<BufReader<Heard>>>,
}

impl Events {
    pub(super) fn new(head: Response, connection: BufReader<Heard>) -> Self {
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"), "{head:?}");
        Self { head, lines: BufReader::new(Chunked::new(connection)) }
    }

    /// Waits for the next event.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Event {
        self.try_next().expect("the stream goes on").expect("there is one more event")
    }

    /// The next event; `None` after an end in order, an error when the stream is cut off.
    pub(crate) fn try_next(&mut self) -> Result<Option<Event>> {
        let (mut id, mut kind, mut data) = (None, String::new(), Value::Null);
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                assert!(id.is_none(), "the stream ended within an event");
                return Ok(None);
            }
            match line.trim_end().split_once(": ") {
                Some(("", _comment)) => assert!(Instant::now() < deadline, "the stream says nothing but that it lives"),
                Some(("id", text)) => id = Some(text.parse().expect("a number")),
                Some(("event", text)) => text.clone_into(&mut kind),
                Some(("data", text)) => data = serde_json::from_str(text).expect("JSON"),
                Some(_) => panic!("a field that no event has: {line:?}"),
                None => {
                    assert_eq!(line, "\n", "only an empty line ends an event");
                    if let Some(id) = id {
                        return Ok(Some(Event { id, kind, data }));
                    }
                }
            }
        }
    }

    /// Waits for the events up to the one of this kind.
    #[track_caller]
    pub(crate) fn up_to(&mut self, kind: &str) -> Vec<Event> {
        let mut seen = vec![self.next()];
        while seen.last().is_some_and(|event| event.kind != kind) {
            seen.push(self.next());
        }
        seen
    }

    /// Waits for all the events to the end, which has to be one in order.
    #[track_caller]
    pub(crate) fn rest(mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.try_next().expect("the stream goes on")).collect()
    }

    /// The connection, for whoever wants to read no more of it.
    pub(crate) fn connection(&self) -> &TcpStream {
        self.lines.get_ref().from.get_ref()
    }
}

/// Takes a chunked body out of its chunks; a body that is cut off is an error.
pub(super) struct Chunked<R> {
    from: R,
    left_in_chunk: usize,
    is_over: bool,
}

impl<R: BufRead> Chunked<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, left_in_chunk: 0, is_over: false }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        if self.left_in_chunk == 0 {
            self.left_in_chunk = usize::from_str_radix(&self.line()?, 16).expect("a chunk's length");
            if self.left_in_chunk == 0 {
                self.is_over = true;
                assert_eq!(self.line()?, "", "nothing follows the last chunk");
                return Ok(0);
            }
        }
        let wanted = self.left_in_chunk.min(buffer.len());
        let read = self.from.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left_in_chunk -= read;
        if self.left_in_chunk == 0 {
            assert_eq!(self.line()?, "", "a chunk ends with its line");
        }
        Ok(read)
    }
}
