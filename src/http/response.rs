//! An answer, and its bytes.

use std::borrow::Cow;
use std::io;

use tiny_http::{HTTPVersion, Header, StatusCode};

use super::request::Version;

/// What a handler answers; `tiny_http` writes it.
#[derive(Debug, Clone)]
pub struct Response {
    status: StatusCode,
    headers: Vec<Header>,
    /// Further headers, as they are written.
    lines: String,
    body: Cow<'static, [u8]>,
}

/// What the request and the connection say about how an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) version: Version,
    /// `HEAD`: everything but the body.
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
}

impl Form {
    /// For an answer to what could not be read.
    pub(super) const UNKNOWN: Form = Form { version: Version::Http11, head_only: false, keep_alive: false };
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        let headers = Vec::with_capacity(8);
        Response { status: StatusCode(status), headers, lines: String::new(), body: Cow::Borrowed(&[]) }
    }

    /// An answer with a body.
    pub fn new(status: u16, content_type: &str, body: impl Into<Cow<'static, [u8]>>) -> Response {
        let mut response = Response::empty(status).with_header("Content-Type", content_type);
        response.body = body.into();
        response
    }

    /// Adds a header; `Connection`, `Content-Length`, `Date`, `Server` and `Transfer-Encoding` are written without being asked.
    ///
    /// A character outside visible ASCII, which could end the line and begin another, is written as `?`.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Response {
        debug_assert!(
            !OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)),
            "{name} would be written twice or contradict what is sent"
        );
        let clean = |byte: u8| if matches!(byte, b' '..=b'~' | b'\t') { byte } else { b'?' };
        let value: Vec<u8> = value.bytes().map(clean).collect();
        let header =
            Header::from_bytes(name, value).expect("the name is a literal and the value has just been made ASCII");
        self.headers.push(header);
        self
    }

    /// Adds headers that are the same for many answers, written out as they are sent, each with its line end: they cost a copy,
    /// where [`Response::with_header`] costs a tenth of a microsecond. Nothing that comes from outside may be among them.
    #[must_use]
    pub fn with_lines(mut self, lines: &str) -> Response {
        debug_assert!(
            lines.is_empty() || (lines.ends_with("\r\n") && !lines.contains("\r\n\r\n") && lines.is_ascii()),
            "these are no headers: {lines:?}"
        );
        self.lines.reserve(LINES_BYTES_USUAL);
        self.lines.push_str(lines);
        self
    }

    /// The status it was made with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The first value of a header that was added by [`Response::with_header`].
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    /// The body as it is, encoded or not.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Replaces the body, for what is encoded or shortened on its way out.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Cow<'static, [u8]>>) -> Response {
        self.body = body.into();
        self
    }

    /// The bytes that go over the wire.
    pub(super) fn render(self, form: Form) -> Vec<u8> {
        let is_bodiless = matches!(self.status.0, 100..=199 | 204 | 304);
        self.write(form, if is_bodiless { Framing::Bodiless } else { Framing::Whole })
    }

    /// The bytes before a body that comes in pieces; what this response has for a body itself is not sent.
    pub(super) fn render_stream_head(self, form: Form) -> Vec<u8> {
        self.write(form, Framing::Stream)
    }

    fn write(self, form: Form, framing: Framing) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES_USUAL + self.lines.len() + self.body.len());
        let version = match form.version {
            Version::Http10 => HTTPVersion(1, 0),
            Version::Http11 => HTTPVersion(1, 1),
        };
        let server = Header::from_bytes("Server", "holdfast").expect("both are ASCII literals");
        // The body is appended here and not by raw_print, whose chunks and copies it does not need.
        tiny_http::Response::new(self.status, self.headers, io::empty(), Some(self.body.len()), None)
            .with_header(server)
            .with_chunked_threshold(usize::MAX)
            .raw_print(&mut out, version, &[], true, None)
            .expect("writing to memory cannot fail");
        if framing != Framing::Whole {
            // Of no body RFC 9110 §8.6 forbids the Content-Length that raw_print has written last, and a stream has none.
            let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
            debug_assert!(out.ends_with(length.as_bytes()), "raw_print writes the length last");
            out.truncate(out.len() - length.len());
            if (framing, form.version) == (Framing::Stream, Version::Http11) {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
            out.extend_from_slice(b"\r\n");
        }
        // raw_print ignores a Connection header, so it is put before the empty line.
        let connection = match (form.version, form.keep_alive) {
            (_, false) => "Connection: close\r\n",
            (Version::Http10, true) => "Connection: keep-alive\r\n",
            (Version::Http11, true) => "",
        };
        out.truncate(out.len() - 2);
        out.extend_from_slice(self.lines.as_bytes());
        out.extend_from_slice(connection.as_bytes());
        out.extend_from_slice(b"\r\n");
        if framing == Framing::Whole && !form.head_only {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// How the end of an answer's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// By its length.
    Whole,
    /// There is none.
    Bodiless,
    /// By its last chunk; in HTTP/1.0 by the connection's end.
    Stream,
}

/// Headers that `render` writes.
const OURS: [&str; 5] = ["Connection", "Content-Length", "Date", "Server", "Transfer-Encoding"];

/// Room for the lines of most answers, so that they are gathered in one allocation.
const LINES_BYTES_USUAL: usize = 512;

/// Room for the status line and the headers of most answers, so that they are written into one allocation.
const HEAD_BYTES_USUAL: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP_1_1: Form = Form { version: Version::Http11, head_only: false, keep_alive: true };

    fn text(response: Response, form: Form) -> String {
        String::from_utf8(response.render(form)).expect("these answers are texts")
    }

    #[test]
    fn an_answer_of_any_size_has_a_length_and_comes_in_one_piece() {
        for size in [0, 1, 32_767, 32_768, 100_000] {
            let rendered = text(Response::new(200, "text/plain", vec![b'x'; size]), HTTP_1_1);
            let (head, body) = rendered.split_once("\r\n\r\n").expect("an empty line");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {size}")), "{head}");
            assert!(!head.contains("Transfer-Encoding"), "{head}");
            assert_eq!(body.len(), size);
        }
    }

    #[test]
    fn server_and_date_are_written_once_and_are_ours() {
        let rendered = text(Response::empty(404), HTTP_1_1);
        assert_eq!(rendered.matches("Server: holdfast\r\n").count(), 1);
        assert_eq!(rendered.matches("Server: ").count(), 1);
        assert_eq!(rendered.matches("Date: ").count(), 1);
        assert!(rendered.contains(" GMT\r\n"));
    }

    #[test]
    fn the_connection_header_says_what_becomes_of_the_connection() {
        let connection = |version, keep_alive| {
            let rendered = text(Response::empty(200), Form { version, head_only: false, keep_alive });
            assert!(rendered.ends_with("\r\n\r\n"));
            rendered.lines().find_map(|line| line.strip_prefix("Connection: ").map(str::to_owned))
        };
        assert_eq!(connection(Version::Http11, true), None);
        assert_eq!(connection(Version::Http11, false), Some("close".into()));
        assert_eq!(connection(Version::Http10, true), Some("keep-alive".into()));
        assert_eq!(connection(Version::Http10, false), Some("close".into()));
    }

    #[test]
    fn lines_are_headers_whatever_else_there_is() {
        let lines = "Referrer-Policy: no-referrer\r\nRateLimit: \"default\";r=1;t=2\r\n";
        for (status, body, keep_alive) in [(200, "text", true), (204, "", true), (200, "text", false)] {
            let response = Response::new(status, "text/plain", body.as_bytes()).with_lines(lines);
            let rendered = text(response.clone(), Form { keep_alive, ..HTTP_1_1 });
            let (head, rest) = rendered.split_once("\r\n\r\n").expect("an empty line");
            assert!(format!("{head}\r\n").contains(&format!("\r\n{lines}")) && rest == body, "{rendered}");
            let stream = String::from_utf8(response.render_stream_head(HTTP_1_1)).expect("a text");
            assert!(stream.contains(&format!("\r\n{lines}")) && stream.ends_with("\r\n\r\n"), "{stream}");
        }
    }

    #[test]
    fn what_may_have_no_body_has_neither_body_nor_length() {
        for status in [204, 304] {
            let rendered =
                text(Response::new(status, "text/plain", &b"no"[..]), Form { keep_alive: false, ..HTTP_1_1 });
            assert!(rendered.ends_with("\r\nConnection: close\r\n\r\n"), "{rendered}");
            assert!(!rendered.contains("Content-Length"), "{rendered}");
        }
    }

    #[test]
    fn the_head_of_a_stream_says_that_it_comes_in_chunks_where_there_are_chunks() {
        for (version, encoding) in [(Version::Http11, Some("chunked")), (Version::Http10, None)] {
            let form = Form { version, head_only: false, keep_alive: false };
            let rendered = Response::new(200, "text/event-stream", &b"not sent"[..]).render_stream_head(form);
            let head = String::from_utf8(rendered).expect("a text");
            assert!(head.ends_with("\r\nConnection: close\r\n\r\n") && !head.contains("Content-Length"), "{head}");
            assert_eq!(head.lines().find_map(|line| line.strip_prefix("Transfer-Encoding: ")), encoding);
        }
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let response = Response::empty(200).with_header("Location", "/a\r\nSet-Cookie: b\0\u{e4}");
        assert_eq!(response.header("location"), Some("/a??Set-Cookie: b???"));
        assert!(text(response, HTTP_1_1).contains("\r\nLocation: /a??Set-Cookie: b???\r\n"));
    }
}
