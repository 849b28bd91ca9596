//! Requests out of a byte stream, wherever it is cut.

use std::net::SocketAddr;

use super::chunked::Chunked;
use super::head::{self, Body, Framing};
use super::limits::Limits;
use super::refusal::Refusal;
use super::request::{Head, Request};
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

/// A refusal with the head it refuses, when that could be read.
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

    /// Gives up the head of the request whose body is missing.
    pub(super) fn take_head(&mut self) -> Option<Box<Head>> {
        match std::mem::replace(&mut self.state, State::new()) {
            State::Head { .. } => None,
            State::Body { head, .. } => Some(head),
        }
    }

    /// Takes the next bytes of the stream. After an error the stream cannot be read any further.
    pub(super) fn advance(&mut self, input: &[u8], peer: SocketAddr, limits: &Limits) -> Result<Parsed, Refused> {
        let mut taken = 0;
        if let State::Head { scan, held } = &mut self.state {
            let end = scan.advance(input).map_err(|refusal| (refusal, None))?;
            let part = &input[..end.unwrap_or(input.len())];
            if held.len() + part.len() > limits.head_bytes_max + scan.blank_bytes() {
                held.extend_from_slice(part);
                let refusal = match head::first_line_refusal(&held[scan.blank_bytes()..], limits) {
                    Refusal::TargetTooLong => Refusal::TargetTooLong,
                    _ => Refusal::HeadTooLarge,
                };
                return Err((refusal, None));
            }
            held.extend_from_slice(part);
            if end.is_none() {
                return Ok(Parsed::Partial);
            }
            let mut bytes = std::mem::take(held);
            bytes.drain(..scan.blank_bytes());
            let (head, Body { framing, expects_continue }) =
                head::parse(bytes, limits).map_err(|(refusal, head)| (refusal, head.map(Box::new)))?;
            taken = part.len();
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

impl State {
    fn new() -> State {
        State::Head { scan: Scan::head(), held: Vec::new() }
    }
}
