//! Requests out of a byte stream, wherever it is cut.

use super::chunked::Chunked;
use super::head::{self, Body, Framing};
use super::limits::Limits;
use super::refusal::Refusal;
use super::request::{Head, Peer, Request};
use super::scan::Scan;

/// Reads one request after the other; pure, it has no socket and no clock.
///
/// It holds no memory between two requests, and during one what has arrived of it, never what the request announces.
#[derive(Debug)]
pub(super) struct Parser {
    state: State,
}

#[derive(Debug)]
enum State {
    Head { scan: Scan, held: Vec<u8> },
    Body { head: Box<Head>, rest: Rest, body: Vec<u8> },
}

#[derive(Debug)]
enum Rest {
    Bytes(usize),
    Chunks(Chunked),
}

/// What became of the bytes given to the parser.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// All were taken; the request is not whole.
    Partial,
    /// All were taken; the client waits for `100 Continue`.
    Expecting,
    /// A request, after this many bytes.
    Whole(Request, usize),
}

/// Which deadline applies to the bytes that are still missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaiting {
    Request,
    RestOfHead,
    Body,
}

/// A refusal with the head it refuses, or what could be read of it.
pub(super) type Refused = (Refusal, Option<Box<Head>>);

impl Parser {
    pub(super) fn new() -> Parser {
        Parser { state: State::new() }
    }

    pub(super) fn awaiting(&self) -> Awaiting {
        match &self.state {
            State::Head { scan, .. } if scan.at_beginning() => Awaiting::Request,
            State::Head { .. } => Awaiting::RestOfHead,
            State::Body { .. } => Awaiting::Body,
        }
    }

    /// The memory in use for the request that is not whole yet.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.state {
            State::Head { held, .. } => held.capacity(),
            State::Body { head, body, .. } => head.text.len() + body.capacity(),
        }
    }

    /// Gives up the request that is not whole: its head, or what there is of it.
    pub(super) fn take_head(&mut self) -> Option<Box<Head>> {
        match std::mem::replace(&mut self.state, State::new()) {
            State::Head { held, .. } if held.is_empty() => None,
            State::Head { scan, held } => Some(Box::new(remains(&scan, &held))),
            State::Body { head, .. } => Some(head),
        }
    }

    /// Takes the next bytes of the stream. After an error the stream cannot be read any further.
    pub(super) fn advance(&mut self, input: &[u8], peer: Peer, limits: &Limits) -> Result<Parsed, Refused> {
        let mut taken = 0;
        if let State::Head { scan, held } = &mut self.state {
            // Only as far as a head may reach, so that what is found does not depend on where the stream is cut.
            let part = &input[..input.len().min(limits.head_bytes_max - held.len())];
            let end = match scan.advance(part) {
                Ok(end) => end,
                Err((refusal, before)) => {
                    held.extend_from_slice(&part[..before]);
                    return Err((refusal, Some(Box::new(remains(scan, held)))));
                }
            };
            held.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            let Some(end) = end else {
                return if part.len() == input.len() {
                    Ok(Parsed::Partial)
                } else {
                    Err((head::too_large(&held[scan.blank_bytes()..], limits), Some(Box::new(remains(scan, held)))))
                };
            };
            let mut bytes = std::mem::take(held);
            bytes.drain(..scan.blank_bytes());
            let (head, Body { framing, expects_continue }) =
                head::parse(bytes, limits).map_err(|(refusal, head)| (refusal, head.map(Box::new)))?;
            taken = end;
            let rest = match framing {
                Framing::Length(0) => {
                    self.state = State::new();
                    return Ok(Parsed::Whole(Request { peer, body: Vec::new(), head }, taken));
                }
                Framing::Length(length) => Rest::Bytes(length),
                Framing::Chunked => Rest::Chunks(Chunked::new(limits.body_bytes_max, limits.head_bytes_max)),
            };
            self.state = State::Body { head: Box::new(head), rest, body: Vec::new() };
            if expects_continue && taken == input.len() {
                return Ok(Parsed::Expecting);
            }
        }
        let State::Body { rest, body, .. } = &mut self.state else { return Ok(Parsed::Partial) };
        let input = &input[taken..];
        let end = match rest {
            Rest::Bytes(left) => {
                let part = (*left).min(input.len());
                body.extend_from_slice(&input[..part]);
                *left -= part;
                (*left == 0).then_some(part)
            }
            Rest::Chunks(chunked) => match chunked.advance(input, body) {
                Ok(end) => end,
                Err(refusal) => return Err((refusal, self.take_head())),
            },
        };
        match (end, std::mem::replace(&mut self.state, State::new())) {
            (Some(end), State::Body { head, body, .. }) => {
                Ok(Parsed::Whole(Request { peer, body, head: *head }, taken + end))
            }
            (_, state) => {
                self.state = state;
                Ok(Parsed::Partial)
            }
        }
    }
}

/// What is known of a request from a head that has not ended.
fn remains(scan: &Scan, held: &[u8]) -> Head {
    let begun = held.get(scan.blank_bytes()..).unwrap_or_default();
    Head::remains(String::from_utf8_lossy(begun).into())
}

impl State {
    fn new() -> State {
        State::Head { scan: Scan::head(), held: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::request::Version;

    const PEER: Peer = Peer::Local;

    fn limits() -> Limits {
        Limits { body_bytes_max: 100, ..Limits::default() }
    }

    /// The requests in a stream that arrives in these pieces, and what is wrong with the next.
    fn parse(pieces: &[&[u8]]) -> (Vec<Request>, Option<Refusal>) {
        let (mut parser, limits, mut requests) = (Parser::new(), limits(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                match parser.advance(rest, PEER, &limits) {
                    Ok(Parsed::Whole(request, end)) => {
                        requests.push(request);
                        rest = &rest[end..];
                    }
                    Ok(Parsed::Partial | Parsed::Expecting) => rest = &[],
                    Err((refusal, _)) => return (requests, Some(refusal)),
                }
            }
        }
        (requests, None)
    }

    fn one(text: &str) -> Request {
        match parse(&[text.as_bytes()]) {
            (mut requests, None) if requests.len() == 1 => requests.remove(0),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    fn status(bytes: impl AsRef<[u8]>) -> u16 {
        match parse(&[bytes.as_ref()]) {
            (_, Some(refusal)) => refusal.status().0,
            (requests, None) if requests.is_empty() => 0,
            _ => 200,
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let request = one("GET /a%20b?c=d?e HTTP/1.1\r\nHost: x:80\r\nA: 1\r\nb:\t2 \r\na: 3\r\nC:\r\n\r\n");
        assert_eq!((request.method().as_str(), request.path(), request.query()), ("GET", "/a%20b", Some("c=d?e")));
        assert_eq!((request.version(), request.peer), (Version::Http11, PEER));
        assert_eq!(
            (request.header("HOST"), request.header("B"), request.header("c")),
            (Some("x:80"), Some("2"), Some(""))
        );
        assert_eq!(request.header_values("A").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(request.headers().count(), 5);
        assert_eq!(request.header("d"), None);
    }

    #[test]
    fn all_forms_of_a_target_that_a_server_meets_are_understood() {
        for (line, path, query) in [
            ("GET http://x/a?b HTTP/1.1", "/a", Some("b")),
            ("GET HTTPS://x:1?b HTTP/1.1", "/", Some("b")),
            ("GET http://[::1]:8000 HTTP/1.1", "/", None),
            ("OPTIONS * HTTP/1.1", "*", None),
            ("GET /? HTTP/1.1", "/", Some("")),
            ("GET //a HTTP/1.1", "//a", None),
        ] {
            let request = one(&format!("{line}\r\nHost: x\r\n\r\n"));
            assert_eq!((request.path(), request.query()), (path, query), "{line}");
        }
        for target in ["*", "x:443", "a", "ftp://x/", "http:///a", "http://u@x/", "/a#b", "/\u{e4}", "http://"] {
            assert_eq!(status(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")), 400, "{target}");
        }
    }

    #[test]
    fn a_request_line_is_exactly_three_words() {
        for (line, expected) in [
            ("GET / HTTP/1.1", 200),
            ("get / HTTP/1.1", 200),
            ("BREW / HTTP/1.1", 200),
            ("GET /", 400),
            ("GET", 400),
            ("", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET /  HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            ("GET\t/ HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
            ("G\"T / HTTP/1.1", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.10", 400),
            ("GET / HTTP/1", 400),
            ("GET / HTTP/1.2", 505),
            ("GET / HTTP/2.0", 505),
            ("PRI * HTTP/2.0", 505),
            ("GET / HTTP/0.9", 505),
        ] {
            assert_eq!(status(format!("{line}\r\nHost: x\r\n\r\n")), expected, "{line:?}");
        }
    }

    #[test]
    fn a_header_line_is_a_name_a_colon_and_a_value() {
        for (line, expected) in [
            ("A: b", 200),
            ("A:b", 200),
            ("A:", 200),
            ("A: \u{e4}\u{f6}", 200),
            ("A: b\tc", 200),
            ("A : b", 400),
            ("A\t: b", 400),
            (" A: b", 400),
            (": b", 400),
            ("A", 400),
            ("A b: c", 400),
            ("\u{c4}: b", 400),
            ("A: b\r\n c", 400),
            ("A: b\r\n\tc", 400),
            ("A: b\nB: c", 400),
            ("A: b\rB: c", 400),
            ("A: b\r\r\nB: c", 400),
            ("A: b\n", 400),
            ("A: b\0c", 400),
            ("A: b\u{7f}", 400),
            ("A\0: b", 400),
            ("A: b\u{b}c", 400),
        ] {
            assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n")), expected, "{line:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_do_not_refuse_a_request() {
        let (requests, refusal) = parse(&[b"GET / HTTP/1.1\r\nHost: x\r\nAgent: caf\xe9\r\nB: c\r\n\r\n"]);
        assert_eq!(refusal, None);
        assert_eq!((requests[0].header("agent"), requests[0].header("b")), (Some("caf\u{fffd}"), Some("c")));
    }

    #[test]
    fn exactly_one_host_is_needed() {
        for (headers, expected) in [
            ("Host: x\r\n", 200),
            ("Host:\r\n", 200),
            ("", 400),
            ("Host: x\r\nhost: x\r\n", 400),
            ("Host: x y\r\n", 400),
            ("Host: x/y\r\n", 400),
            ("Host: u@x\r\n", 400),
        ] {
            assert_eq!(status(format!("GET / HTTP/1.1\r\n{headers}\r\n")), expected, "{headers:?}");
        }
        assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
        assert_eq!(status("GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n"), 400);
    }

    #[test]
    fn where_a_body_ends_is_never_a_matter_of_opinion() {
        for (headers, expected) in [
            ("Content-Length: 0", 200),
            ("Content-Length: 003", 200),
            ("Content-Length: 100", 200),
            ("Content-Length: 101", 413),
            ("Content-Length: 18446744073709551617", 413),
            ("Content-Length: 99999999999999999999999999999999999999999", 413),
            ("Content-Length:", 400),
            ("Content-Length: +3", 400),
            ("Content-Length: -3", 400),
            ("Content-Length: 0x3", 400),
            ("Content-Length: 3 3", 400),
            ("Content-Length: 3, 3", 400),
            ("Content-Length: \u{663}", 400),
            ("Content-Length: 3\r\nContent-Length: 3", 400),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
            ("Transfer-Encoding: gzip\r\nContent-Length: 3", 400),
            ("Transfer-Encoding: CHUNKED", 200),
            ("Transfer-Encoding: gzip", 501),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: identity", 501),
            ("Transfer-Encoding: chunked, gzip", 501),
            ("Transfer-Encoding:", 501),
            ("Transfer-Encoding: chunked, chunked", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: xchunked", 501),
            ("Transfer-Encoding: \u{b}chunked", 400),
            ("Transfer-Encoding: \u{a0}chunked", 501),
            ("Transfer-Encoding: chunked\u{3000}", 501),
            ("Expect: 100-Continue\r\nContent-Length: 3", 200),
            ("Expect: 200-ok\r\nContent-Length: 3", 417),
            ("Expect: 200-ok\r\nContent-Length: 300", 413),
        ] {
            let body =
                if headers.to_lowercase().contains("chunked") { "1\r\na\r\n0\r\n\r\n".into() } else { "a".repeat(100) };
            let length = if headers.ends_with(": 0") {
                0
            } else if headers.ends_with('3') {
                3
            } else {
                body.len()
            };
            let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{}", &body[..length]);
            assert_eq!(status(request), expected, "{headers:?}");
        }
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
    }

    #[test]
    fn chunks_are_read_strictly() {
        for (body, expected) in [
            ("3\r\nabc\r\n0\r\n\r\n", 200),
            ("03 ;a=b\r\nabc\r\n000\r\nA: b\r\n\r\n", 200),
            ("3\t \r\nabc\r\n0\r\n\r\n", 200),
            ("3 0\r\nabc\r\n0\r\n\r\n", 400),
            ("3 x\r\nabc\r\n0\r\n\r\n", 400),
            ("A\r\n0123456789\r\na;x\r\n0123456789\r\n0\r\n\r\n", 200),
            ("64\r\n", 0),
            ("65\r\n", 413),
            (
                "60\r\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
                400,
            ),
            ("ffffffffffffffffffffffff\r\n", 413),
            ("\r\n", 400),
            ("g\r\n", 400),
            ("-1\r\n", 400),
            ("0x1\r\n", 400),
            (" 1\r\n", 400),
            ("1\na\r\n", 400),
            ("1\r\nab\r\n", 400),
            ("1\r\na\n0\r\n\r\n", 400),
            ("1\r\na\rx", 400),
            ("1;a\nb\r\n", 400),
            ("1;a\0\r\n", 400),
            ("1\rx", 400),
            ("0\r\nA: b\n\r\n", 400),
            ("0\r\n A: b\r\n\r\n", 400),
            ("0\r\n\n", 400),
        ] {
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            assert_eq!(status(format!("{head}{body}")), expected, "{body:?}");
        }
        let chunked =
            |rest: &str| status(format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{rest}"));
        assert_eq!(chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(17_000))), 400);
        assert_eq!(chunked(&format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(17_000))), 400);
        assert_eq!(chunked(&format!("1{}\r\na\r\n0\r\n\r\n", " ".repeat(17_000))), 400);
        assert_eq!(chunked(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(17_000))), 431);
    }

    #[test]
    fn empty_lines_before_a_request_are_tolerated_but_not_for_ever() {
        let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(status(format!("\r\n\r\n\r\n\r\n{request}")), 200);
        assert_eq!(status(format!("{}{request}", "\r\n".repeat(5))), 400);
        assert_eq!(status(format!("\n{request}")), 400);
        assert_eq!(status(format!("\rx{request}")), 400);
    }

    #[test]
    fn bytes_that_cannot_become_a_request_are_refused_at_once() {
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00"), 400);
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: x\r\n\0"), 400);
    }

    #[test]
    fn a_head_may_be_as_large_as_its_limit_and_no_larger() {
        let head = |filler: usize| format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(filler));
        let fitting = limits().head_bytes_max - head(0).len();
        assert_eq!(status(head(fitting)), 200);
        assert_eq!(status(head(fitting + 1)), 431);
        assert_eq!(status("a".repeat(16 * 1024)), 0);
        assert_eq!(status("a".repeat(16 * 1024 + 1)), 431);
    }

    #[test]
    fn nothing_is_held_between_two_requests() {
        let mut parser = Parser::new();
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        for byte in request {
            let parsed = parser.advance(std::slice::from_ref(byte), PEER, &limits());
            assert!(parser.held_bytes() < 256 && parsed.is_ok());
        }
        assert_eq!((parser.held_bytes(), parser.awaiting()), (0, Awaiting::Request));
    }

    /// Streams of requests that are mostly right, so that what is wrong with them is found late.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => Just(&b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
            4 => Just(&b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"[..]),
            4 => Just(&b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\n"[..]),
            2 => Just(&b"\r\n"[..]),
            1 => Just(&b"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"[..]),
            1 => Just(&b"GET / HTTP/1.1\r\nHost: x\r\nA: \xff\r\n\r\n"[..]),
            1 => Just(&b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"[..]),
            1 => Just(&b"GET / HTTP/1.1\nHost: x\r\n\r\n"[..]),
        ];
        let mutation = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
        (proptest::collection::vec(part, 1..6), mutation).prop_map(|(parts, mutation)| {
            let mut stream = parts.concat();
            if let Some((at, byte)) = mutation {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            stream
        })
    }

    proptest! {
        #[test]
        fn a_stream_means_the_same_wherever_it_is_cut(
            stream in stream(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let whole = parse(&[&stream]);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse(&bytes), &whole);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
            cuts.sort_unstable();
            cuts.push(stream.len());
            let mut begin = 0;
            let pieces: Vec<&[u8]> = cuts.into_iter().map(|end| &stream[std::mem::replace(&mut begin, end)..end]).collect();
            prop_assert_eq!(&parse(&pieces), &whole);
        }

        #[test]
        fn no_bytes_whatsoever_are_a_fall(stream in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&[&stream]);
        }
    }
}
