//! What holds of every byte stream, whoever makes it up.

mod other;

use super::limits::Limits;
use super::parser::{Parsed, Parser};
use super::refusal::{Refusal, STATUSES};
use super::request::{Peer, Request, Version};

const PEER: Peer = Peer::Local;

/// A request that means the same to everybody, to be put behind one whose end is in question.
pub const SENTINEL: &[u8] = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\n\r\n";

/// A request as a reader of HTTP understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `GET` and the others.
    pub method: String,
    /// Without scheme, host and query, and never empty.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// Names in lower case, each with the values it has in their order; sorted by name.
    pub headers: Vec<(String, String)>,
    /// Without what delimits its parts.
    pub body: Vec<u8>,
}

/// What another reader makes of the bytes of a request and of [`SENTINEL`] after it.
#[derive(Debug, Default)]
pub struct Opinion {
    /// The requests that it finds; `None` is one that began and did not end.
    pub requests: Vec<Option<Reading>>,
    /// Whether it refused to read on after these.
    pub refuses: bool,
}

/// Small enough that whoever makes up streams meets each of them.
fn limits() -> Limits {
    Limits { head_bytes_max: 1024, headers_max: 12, target_bytes_max: 200, body_bytes_max: 300, ..Limits::default() }
}

/// A stream means the same wherever it is cut, costs no more memory than has arrived of it, keeps to every limit, and what
/// it is understood as can be written down and read again.
pub fn stream(stream: &[u8]) {
    let limits = limits();
    let whole = read(&[stream], &limits);
    for (bytes, request) in &whole.0 {
        check(bytes.len(), request, &limits);
        let rewritten = written(request);
        let roomy = Limits { head_bytes_max: 8 * 1024, ..limits.clone() };
        let (again, refusal) = read(&[&rewritten], &roomy);
        assert_eq!(refusal, None, "{:?}", String::from_utf8_lossy(&rewritten));
        assert_eq!(again.len(), 1);
        assert_eq!(Reading::of(&again[0].1), Reading::of(request));
        assert_eq!(again[0].1.head.keep_alive, request.head.keep_alive);
    }
    if let Some(refusal) = whole.1 {
        assert!(STATUSES.contains(&refusal.status().0));
        assert!(refusal.sentence().ends_with('.'));
    }
    for length in [1, 2, 3, 7, 64] {
        let pieces: Vec<&[u8]> = stream.chunks(length).collect();
        assert_eq!(read(&pieces, &limits), whole, "in pieces of {length}");
    }
    // Cuts that depend on the bytes, so that the same stream is always cut at the same places.
    let mut state = stream.iter().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| mixed(state ^ u64::from(*byte)));
    let mut pieces = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        state = mixed(state);
        let (piece, after) = rest.split_at(1 + (state >> 33) as usize % rest.len());
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(read(&pieces, &limits), whole, "in pieces of {:?}", pieces.iter().map(|p| p.len()).collect::<Vec<_>>());
}

/// Each request that is accepted is the same one, with the same end, to every reader that does not refuse it: whatever is
/// in front of this server and forwards it has seen no other. What is refused may be read by others as they like.
pub fn readings(stream: &[u8]) {
    compare(stream, &mut |bytes| other::opinions(bytes));
}

/// The same with opinions from elsewhere.
pub fn compare(stream: &[u8], ask: &mut dyn FnMut(&[u8]) -> Vec<Opinion>) {
    for (bytes, request) in read(&[stream], &limits()).0 {
        let ours = Reading::of(&request);
        let asked = [&stream[bytes], SENTINEL].concat();
        for Opinion { requests, refuses } in ask(&asked) {
            let shown =
                || format!("{:?} is {ours:?} to us and {requests:?} to others", String::from_utf8_lossy(&asked));
            let Some(first) = requests.first() else { continue };
            assert_eq!(first.as_ref(), Some(&ours), "{}", shown());
            match requests.get(1) {
                // It closes the connection here, and so nothing follows.
                None => assert!(!refuses, "{}", shown()),
                Some(second) => {
                    let is_sentinel = |second: &Reading| second.path == "/sentinel" && second.method == "GET";
                    assert!(second.as_ref().is_some_and(is_sentinel) && requests.len() == 2, "{}", shown());
                }
            }
        }
    }
}

/// A request with this body, as it comes to a handler.
pub(crate) fn request_with(body: &[u8]) -> Request {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let limits = Limits { body_bytes_max: body.len(), ..Limits::default() };
    let (mut requests, _) = read(&[&[head.as_bytes(), body].concat()], &limits);
    requests.remove(0).1
}

type Requests = Vec<(std::ops::Range<usize>, Request)>;

/// The requests of one connection with where they are in the stream, and why the next is refused.
fn read(pieces: &[&[u8]], limits: &Limits) -> (Requests, Option<Refusal>) {
    let (mut parser, mut requests) = (Parser::new(), Requests::new());
    let (mut begin, mut at) = (0, 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match parser.advance(rest, PEER, limits) {
                Ok(Parsed::Whole(request, end)) => {
                    assert!((1..=rest.len()).contains(&end));
                    assert_eq!(parser.held_bytes(), 0);
                    rest = &rest[end..];
                    at += end;
                    let ends_here = !request.head.keep_alive;
                    requests.push((begin..at, request));
                    begin = at;
                    if ends_here {
                        return (requests, None);
                    }
                }
                Ok(Parsed::Partial | Parsed::Expecting) => {
                    at += rest.len();
                    rest = &[];
                    // Replacement characters are three bytes for one, and a vector doubles.
                    assert!(parser.held_bytes() <= 3 * (at - begin) + 64, "{} of {}", parser.held_bytes(), at - begin);
                }
                Err((refusal, _)) => return (requests, Some(refusal)),
            }
        }
    }
    (requests, None)
}

/// Holds a request that came in so many bytes against the limits.
fn check(bytes: usize, request: &Request, limits: &Limits) {
    let reading = Reading::of(request);
    assert!(request.body.len() <= limits.body_bytes_max && request.headers().count() <= limits.headers_max);
    assert!(reading.path.len() + reading.query.as_ref().map_or(0, String::len) <= limits.target_bytes_max);
    assert!(reading.path.starts_with('/') || reading.path == "*");
    // A chunk of one byte comes in six.
    assert!(bytes <= 2 * limits.head_bytes_max + 6 * limits.body_bytes_max + 5, "{bytes}");
    let count = |name: &str| request.header_values(name).count();
    assert!(count("host") <= 1 && count("content-length") + count("transfer-encoding") <= 1);
    for (name, value) in request.headers() {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name:?}");
        assert!(!value.contains(|c: char| c.is_ascii_control() && c != '\t'), "{value:?}");
    }
}

/// Bytes that mean the same request.
fn written(request: &Request) -> Vec<u8> {
    let version = if request.version() == Version::Http10 { "1.0" } else { "1.1" };
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!("{} {}{query} HTTP/{version}\r\n", request.method(), request.path()).into_bytes();
    for (name, value) in request.headers() {
        text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    if request.header("transfer-encoding").is_none() {
        return [text, request.body.clone()].concat();
    }
    if !request.body.is_empty() {
        text.extend_from_slice(format!("{:x}\r\n", request.body.len()).as_bytes());
        text.extend_from_slice(&[&request.body, &b"\r\n"[..]].concat());
    }
    [text, b"0\r\n\r\n".to_vec()].concat()
}

impl Reading {
    /// A reading made of a target as it was sent and of headers as they were.
    pub fn new(method: &str, target: &str, headers: impl Iterator<Item = (String, String)>, body: Vec<u8>) -> Self {
        let origin = match target.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                rest.find(['/', '?']).map_or("", |at| &rest[at..])
            }
            _ => target,
        };
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (origin, None),
        };
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        Self { method: method.to_owned(), path, query, headers, body }
    }

    fn of(request: &Request) -> Self {
        let headers = request.headers().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let reading = Self::new(request.method().as_str(), "/", headers, request.body.clone());
        Self { path: request.path().to_owned(), query: request.query().map(str::to_owned), ..reading }
    }
}

fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^ (state >> 29)
}
