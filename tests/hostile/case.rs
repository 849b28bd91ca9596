//! One thing that a client does to a server, and what has to come of it: data, and how it is played.

use std::fmt;
use std::time::Duration;

use super::peer::Peer;
use crate::util::{Response, Server};

/// What a client does on one connection.
pub(super) struct Case {
    name: String,
    acts: Vec<Act>,
    /// The statuses of the answers, in order; none if the server closes without a word.
    statuses: Vec<u16>,
    end: End,
    /// What is true of the last answer.
    checks: Vec<Check>,
}

enum Act {
    Send(Vec<u8>),
    /// Byte by byte.
    Dribble(Vec<u8>),
    /// Time for what was sent to be read apart from what comes next; whatever the server makes of it is the same without.
    Pause,
    /// The next answer is read.
    Await,
    EndSending,
}

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// It serves on, so nothing of what was sent is left to be taken for another request.
    Stays,
    /// The server says that it closes, and closes.
    Closes,
    /// The server closes, as the client has.
    Ends,
}

enum Check {
    /// The header's value, or that there is none.
    Header(&'static str, Option<String>),
    /// A part of the detail.
    Detail(&'static str),
    Reason(&'static str),
    /// Each as `place.field type`, in whatever order.
    Faults(&'static [&'static str]),
    /// Whether the request id is this one; otherwise it is one that the server has made.
    RequestId(Option<String>),
    Body(fn(&Response) -> bool),
}

/// Headers by which a browser knows what it may make of an answer: every answer has them, whoever in the server gives it.
const SECURITY: [&str; 4] =
    ["x-content-type-options", "referrer-policy", "content-security-policy", "cross-origin-resource-policy"];

impl Case {
    /// A client that sends these bytes and gets answers with these statuses. Unless it is told otherwise, the server
    /// serves on.
    pub(super) fn new(bytes: impl Into<Vec<u8>>, statuses: &[u16]) -> Self {
        let bytes = bytes.into();
        let name = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
        Self { name, acts: vec![Act::Send(bytes)], statuses: statuses.into(), end: End::Stays, checks: Vec::new() }
    }

    /// One that is refused, and gets no further: the request that follows is none.
    pub(super) fn refused(bytes: impl Into<Vec<u8>>, status: u16) -> Self {
        let mut case = Self::new(bytes, &[status]);
        case.acts.push(Act::Send(super::health().into()));
        case.end = End::Closes;
        case
    }

    pub(super) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(super) fn closes(mut self) -> Self {
        self.end = End::Closes;
        self
    }

    /// The client says that it has sent everything.
    pub(super) fn half_closed(mut self) -> Self {
        self.acts.push(Act::EndSending);
        self.end = End::Ends;
        self
    }

    /// Sends this as well, a moment later.
    pub(super) fn then(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.acts.extend([Act::Pause, Act::Send(bytes.into())]);
        self
    }

    /// Sends this as well, once the first answer is there.
    pub(super) fn then_when_answered(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.acts.extend([Act::Await, Act::Send(bytes.into())]);
        self
    }

    /// Sends each byte by itself.
    pub(super) fn byte_by_byte(mut self) -> Self {
        let dribbled = |act| if let Act::Send(bytes) = act { Act::Dribble(bytes) } else { act };
        self.acts = self.acts.into_iter().map(dribbled).collect();
        self.name.push_str(" (byte by byte)");
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.checks.push(Check::Header(name, value.map(str::to_owned)));
        self
    }

    pub(super) fn detail(mut self, part: &'static str) -> Self {
        self.checks.push(Check::Detail(part));
        self
    }

    pub(super) fn reason(mut self, reason: &'static str) -> Self {
        self.checks.extend([Check::Reason(reason), Check::Header("www-authenticate", Some("Bearer".into()))]);
        self
    }

    pub(super) fn faults(mut self, faults: &'static [&'static str]) -> Self {
        self.checks.push(Check::Faults(faults));
        self
    }

    pub(super) fn keeps_id(mut self, id: &str) -> Self {
        self.checks.push(Check::RequestId(Some(id.into())));
        self
    }

    pub(super) fn makes_id(mut self) -> Self {
        self.checks.push(Check::RequestId(None));
        self
    }

    pub(super) fn body(mut self, is_right: fn(&Response) -> bool) -> Self {
        self.checks.push(Check::Body(is_right));
        self
    }

    /// Does it to the server and fails if anything else comes of it.
    pub(super) fn play(&self, server: &Server) {
        let mut peer = Peer::connect(server.address());
        let method = if self.name.starts_with("HEAD ") { "HEAD" } else { "GET" };
        let mut expected = self.statuses.iter();
        let mut last = None;
        let mut answer = |peer: &mut Peer| {
            let Some(status) = expected.next() else { return false };
            let answer = peer.answer(method).unwrap_or_else(|| panic!("{self}: no answer"));
            assert_eq!(answer.status, *status, "{self}: {answer:?}");
            if *status >= 200 {
                self.assert_whole(&answer, method);
            }
            last = Some(answer);
            true
        };
        for act in &self.acts {
            match act {
                Act::Send(bytes) => peer.send(bytes),
                Act::Dribble(bytes) => bytes.iter().for_each(|byte| peer.send([*byte])),
                Act::Pause => std::thread::sleep(Duration::from_millis(2)),
                Act::Await => assert!(answer(&mut peer), "{self}: an answer is awaited that is not expected"),
                Act::EndSending => peer.end_sending(),
            }
        }
        while answer(&mut peer) {}
        if let Some(last) = &last {
            self.checks.iter().for_each(|check| self.check(check, last));
            let says = last.header("connection");
            assert_eq!(says == Some("close"), self.end == End::Closes, "{self}: {says:?}");
        }
        if self.end == End::Stays {
            peer.send("GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-next-one\r\n\r\n");
            let next = peer.answer("GET").unwrap_or_else(|| panic!("{self}: the connection has ended"));
            assert_eq!((next.status, next.header("x-request-id")), (200, Some("the-next-one")), "{self}: {next:?}");
        } else {
            assert!(peer.is_over(), "{self}: there is more than was to come");
        }
    }

    /// Every answer has its id and the headers that keep pages safe; every refusal with a body is a problem, whole.
    fn assert_whole(&self, answer: &Response, method: &str) {
        let named = |name: &str| answer.headers.iter().filter(|(known, _)| known == name).count();
        assert_eq!(named("x-request-id"), 1, "{self}: {answer:?}");
        for name in SECURITY {
            assert_eq!(named(name), 1, "{self}: {name} in {answer:?}");
        }
        if answer.status < 400 || method == "HEAD" {
            return;
        }
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{self}");
        let problem = answer.json();
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{self}: {problem}");
        assert!(problem["status"] == answer.status && problem["type"] == "about:blank", "{self}: {problem}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{self}: {problem}");
        let is_sentence = |text: &str| text.len() > 3 && !text.contains(['\n', '\0']);
        assert!(problem["detail"].as_str().is_some_and(is_sentence), "{self}: {problem}");
        assert_eq!(problem["retry_after"].as_u64().map(|n| n.to_string()).as_deref(), answer.header("retry-after"));
        assert_eq!(matches!(answer.status, 429 | 503), answer.header("retry-after").is_some(), "{self}: {problem}");
    }

    fn check(&self, check: &Check, answer: &Response) {
        match check {
            Check::Header(name, value) => {
                assert_eq!(answer.header(name).map(str::to_owned), *value, "{self}: {name} in {answer:?}");
            }
            Check::Detail(part) => {
                assert!(answer.json()["detail"].as_str().unwrap().contains(part), "{self}: {answer:?}");
            }
            Check::Reason(reason) => assert_eq!(answer.json()["reason"], *reason, "{self}"),
            Check::Faults(expected) => {
                let problem = answer.json();
                let mut found: Vec<String> = Vec::new();
                for fault in problem["errors"].as_array().unwrap_or_else(|| panic!("{self}: {problem}")) {
                    let loc: Vec<&str> =
                        fault["loc"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
                    found.push(format!("{} {}", loc.join("."), fault["type"].as_str().unwrap()));
                }
                found.sort();
                let mut expected = expected.to_vec();
                expected.sort_unstable();
                assert_eq!(found, expected, "{self}");
            }
            Check::RequestId(Some(id)) => assert_eq!(answer.header("x-request-id"), Some(&**id), "{self}"),
            Check::RequestId(None) => {
                let id = answer.header("x-request-id").unwrap();
                let version = uuid::Uuid::parse_str(id).map(|id| id.get_version_num());
                assert_eq!(version, Ok(7), "{self}: {id}");
            }
            Check::Body(is_right) => assert!(is_right(answer), "{self}: {answer:?}"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}
