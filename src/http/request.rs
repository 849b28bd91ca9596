//! A whole request, as a handler sees it.

use std::net::SocketAddr;
use std::ops::Range;

use tiny_http::Method;

use super::refusal::Caller;
use super::response::Form;

/// A request whose head and body have arrived entirely.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who is at the other end of the connection: the client, or the proxy before it.
    pub peer: Peer,
    /// Decoded when it came in chunks; empty when there was none.
    pub body: Vec<u8>,
    pub(super) head: Head,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Net(SocketAddr),
    /// A process on this machine, by a Unix socket, which gives it no address.
    Local,
}

/// HTTP/1.0 or HTTP/1.1; others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The connection ends after the answer unless the client asks otherwise.
    Http10,
    /// The connection stays unless either side says otherwise.
    Http11,
}

/// The head's text, and where in it things are: two allocations for any number of headers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    pub(super) text: Box<str>,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    pub(super) headers: Box<[(Span, Span)]>,
    pub(super) keep_alive: bool,
}

/// A part of the head's text; 16 bits would do for the head that arrives, not for one that needed replacement characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// The headers that say who sends a request.
const REQUEST_ID: &str = "X-Request-Id";
const ORIGIN: &str = "Origin";

impl Span {
    /// Where `part`, a slice of `text`, begins and ends in it.
    pub(super) fn of(part: &[u8], text: &str) -> Span {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        debug_assert!(start + part.len() <= text.len(), "the part lies within the text");
        Span { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Request {
    /// `GET` and the others; methods are case-sensitive.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The version that the client speaks.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The path as it was sent, still percent-encoded; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        match &self.head.text[self.head.path.range()] {
            "" => "/",
            path => path,
        }
    }

    /// What followed the `?`, still percent-encoded.
    pub fn query(&self) -> Option<&str> {
        self.head.query.map(|query| &self.head.text[query.range()])
    }

    /// The first value of a header, whatever the case of its name, without surrounding blanks.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// All values of a header, in their order.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers().filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers in their order. Bytes of a value that are not UTF-8 read as U+FFFD.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.headers()
    }
}

impl Head {
    /// How the request wants to be answered.
    pub(super) fn form(&self) -> Form {
        Form { version: self.version, head_only: self.method == Method::Head, keep_alive: self.keep_alive }
    }

    /// Who sends it, as far as that is short enough to keep.
    pub(super) fn caller(&self) -> Caller {
        let value = |name, most| self.header(name).filter(|value| value.len() <= most).map(str::to_owned);
        Caller {
            request_id: value(REQUEST_ID, Caller::REQUEST_ID_BYTES_MAX),
            origin: value(ORIGIN, Caller::ORIGIN_BYTES_MAX),
        }
    }

    /// What is left of a head that is no request, or not whole: of its finished lines those that say who sends it, and whether
    /// the answer may have a body.
    pub(super) fn remains(text: Box<str>) -> Head {
        let mut lines = text.split("\r\n");
        let method =
            if lines.next().is_some_and(|line| line.starts_with("HEAD ")) { Method::Head } else { Method::Get };
        let finished = text.rfind("\r\n").map_or("", |end| &text[..end]);
        let headers = finished.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let telling =
            headers.filter(|(name, _)| [REQUEST_ID, ORIGIN].iter().any(|told| told.eq_ignore_ascii_case(name)));
        let span = |part: &str| Span::of(part.as_bytes(), &text);
        let headers = telling.map(|(name, value)| (span(name), span(value.trim_matches([' ', '\t'])))).collect();
        let path = span(&text[..0]);
        Head { method, version: Version::Http11, path, query: None, headers, keep_alive: false, text }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&self.text[name.range()], &self.text[value.range()]))
    }
}
