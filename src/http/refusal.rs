//! What the connection layer answers by itself, before or instead of a handler.

use tiny_http::StatusCode;

/// Why a request gets no answer from a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the bytes are not a request; the sentence says what is wrong with them.
    Malformed(&'static str),
    /// 408: the head was not whole in time.
    HeadTimeout,
    /// 408: the body was not whole in time.
    BodyTimeout,
    /// 413: the body is longer than this many bytes.
    BodyTooLarge(usize),
    /// 414
    TargetTooLong,
    /// 417: an expectation other than `100-continue`.
    Expectation,
    /// 431: too many bytes or lines before the body, or after it.
    HeadTooLarge,
    /// 500: the handler panicked, or dropped the request without an answer.
    Unanswered,
    /// 501: a transfer coding other than `chunked`.
    TransferCoding,
    /// 503: every connection, or every descriptor, is in use and none of them is idle.
    TooManyConnections,
    /// 503: what is held for all clients together takes too much memory.
    TooMuchBuffered,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

/// What is known of whoever is refused: as much of the request's head as could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The `X-Request-Id`, by which clients and proxies recognise a request in logs.
    pub request_id: Option<String>,
    /// The `Origin`: whose page asks, and has to be allowed to read that it is refused.
    pub origin: Option<String>,
}

impl Caller {
    /// The longest id that counts; a UUID has 36.
    pub const REQUEST_ID_BYTES_MAX: usize = 128;
    /// The longest origin that is kept; a scheme, the name of a host and a port are a fraction of it in practice.
    pub const ORIGIN_BYTES_MAX: usize = 256;
}

/// Every status that a refusal can have, in the order of the counters in `Stats`.
pub(super) const STATUSES: [u16; 10] = [400, 408, 413, 414, 417, 431, 500, 501, 503, 505];

impl Refusal {
    /// The status that says it to a program.
    pub fn status(&self) -> StatusCode {
        StatusCode(match self {
            Refusal::Malformed(_) => 400,
            Refusal::HeadTimeout | Refusal::BodyTimeout => 408,
            Refusal::BodyTooLarge(_) => 413,
            Refusal::TargetTooLong => 414,
            Refusal::Expectation => 417,
            Refusal::HeadTooLarge => 431,
            Refusal::Unanswered => 500,
            Refusal::TransferCoding => 501,
            Refusal::TooManyConnections | Refusal::TooMuchBuffered => 503,
            Refusal::Version => 505,
        })
    }

    /// The same for a person, in one sentence.
    pub fn sentence(&self) -> String {
        match self {
            Refusal::Malformed(what) => (*what).into(),
            Refusal::HeadTimeout => "The request's head did not arrive in time.".into(),
            Refusal::BodyTimeout => "The request's body did not arrive in time.".into(),
            Refusal::BodyTooLarge(max) => format!("The request's body is larger than {max} bytes."),
            Refusal::TargetTooLong => "The request's address is too long.".into(),
            Refusal::Expectation => "The only expectation understood here is 100-continue.".into(),
            Refusal::HeadTooLarge => "The request has too many headers, or they are too long.".into(),
            Refusal::Unanswered => "Something went wrong here; the request may be tried again.".into(),
            Refusal::TransferCoding => "The only transfer coding understood here is chunked.".into(),
            Refusal::TooManyConnections => "Too many connections are open; try again soon.".into(),
            Refusal::TooMuchBuffered => "Too many requests are being sent; try again soon.".into(),
            Refusal::Version => "Only HTTP/1.1 and HTTP/1.0 are spoken here.".into(),
        }
    }

    /// Seconds after which trying again makes sense, for the `Retry-After` of a 503.
    pub fn retry_after(&self) -> Option<u32> {
        (self.status() == 503).then_some(1)
    }
}
