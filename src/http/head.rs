//! From the bytes of a whole head to what it asks for.

use std::mem::MaybeUninit;

use tiny_http::Method;

use super::limits::{HEADERS_MAX, Limits};
use super::refusal::Refusal;
use super::request::{Head, Span, Version};

/// How the body that follows a head is delimited.
#[derive(Debug, PartialEq)]
pub(super) enum Framing {
    /// This many bytes follow; 0 when the head says nothing.
    Length(usize),
    Chunked,
}

/// What the head tells the connection about the body.
#[derive(Debug, PartialEq)]
pub(super) struct Body {
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends it.
    pub(super) expects_continue: bool,
}

const NO_REQUEST_LINE: Refusal = Refusal::Malformed("The request line is not METHOD TARGET HTTP/1.1.");
const BAD_NAME: Refusal = Refusal::Malformed("A header's name holds a character that is not allowed there.");
const BAD_VALUE: Refusal = Refusal::Malformed("A header's value holds a control character.");
const BAD_TARGET: Refusal = Refusal::Malformed("The request's address is malformed.");
const NO_HOST: Refusal = Refusal::Malformed("The request needs exactly one Host header.");
const BAD_HOST: Refusal = Refusal::Malformed("The Host header is malformed.");
const BAD_LENGTH: Refusal = Refusal::Malformed("The Content-Length is not one number.");
const TWO_LENGTHS: Refusal = Refusal::Malformed("The request has both a Content-Length and a Transfer-Encoding.");
const CODING_IN_1_0: Refusal = Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding.");
const CHUNKED_TWICE: Refusal = Refusal::Malformed("The body is chunked more than once.");

/// Reads a head that `Scan` has found whole. A refusal comes with the head if that much of it could be read.
pub(super) fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<(Head, Body), (Refusal, Option<Head>)> {
    let text: Box<str> = match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into(),
    };
    let head = match read(&text, limits) {
        Ok(head) => Head { text, ..head },
        Err(refusal) => return Err((refusal, Some(Head::remains(text)))),
    };
    match body(&head, limits) {
        Ok(body) => Ok((head, body)),
        Err(refusal) => Err((refusal, Some(head))),
    }
}

/// The head but for its text, which the caller has.
fn read(text: &str, limits: &Limits) -> Result<Head, Refusal> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    request
        .parse_with_uninit_headers(text.as_bytes(), &mut lines[..limits.headers_max])
        .map_err(|error| refusal(error, text, limits))?;
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(NO_REQUEST_LINE);
    };
    if target.len() > limits.target_bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    let method = method.parse().map_err(|()| NO_REQUEST_LINE)?;
    let (path, query) = split_target(target, &method)?;
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let (path, query) = (Span::of(path.as_bytes(), text), query.map(|query| Span::of(query.as_bytes(), text)));
    let headers = request
        .headers
        .iter()
        .map(|header| (Span::of(header.name.as_bytes(), text), Span::of(header.value, text)))
        .collect();
    let keep_alive = keep_alive(version, request.headers);
    Ok(Head { text: Box::default(), method, version, path, query, headers, keep_alive })
}

fn refusal(error: httparse::Error, text: &str, limits: &Limits) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::HeaderName => BAD_NAME,
        httparse::Error::HeaderValue => BAD_VALUE,
        _ => request_line_refusal(text.as_bytes(), limits),
    }
}

/// What is wrong with a head that is longer than it may be; of it, as much as it may be.
pub(super) fn too_large(head: &[u8], limits: &Limits) -> Refusal {
    match request_line_refusal(head, limits) {
        Refusal::TargetTooLong => Refusal::TargetTooLong,
        _ => Refusal::HeadTooLarge,
    }
}

/// What is wrong with a request line that could not be read.
fn request_line_refusal(head: &[u8], limits: &Limits) -> Refusal {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (_method, target, version) = (words.next(), words.next(), words.next());
    if target.is_some_and(|target| target.len() > limits.target_bytes_max) {
        return Refusal::TargetTooLong;
    }
    match (version, words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit()
                && minor.is_ascii_digit()
                && (*major, *minor) != (b'1', b'0')
                && (*major, *minor) != (b'1', b'1') =>
        {
            Refusal::Version
        }
        _ => NO_REQUEST_LINE,
    }
}

/// The path and the query of an origin-form, absolute-form or asterisk-form target (RFC 9112 §3.2).
fn split_target<'t>(target: &'t str, method: &Method) -> Result<(&'t str, Option<&'t str>), Refusal> {
    if target == "*" && *method == Method::Options {
        return Ok((target, None));
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !target.bytes().all(is_allowed) {
        return Err(BAD_TARGET);
    }
    let path = if target.starts_with('/') {
        target
    } else {
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
            .ok_or(BAD_TARGET)?;
        let rest = &target[scheme.len()..];
        let authority_bytes = rest.find(['/', '?']).unwrap_or(rest.len());
        if authority_bytes == 0 || !rest[..authority_bytes].bytes().all(is_in_host) {
            return Err(BAD_TARGET);
        }
        &rest[authority_bytes..]
    };
    Ok(match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    })
}

/// What a host, an IP literal and a port are made of (RFC 3986 §3.2); no user information.
fn is_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=[]:".contains(&byte)
}

fn keep_alive(version: Version, headers: &[httparse::Header<'_>]) -> bool {
    let says = |word: &str| {
        headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("connection"))
            .flat_map(|header| header.value.split(|&byte| byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    };
    match version {
        Version::Http11 => !says("close"),
        Version::Http10 => says("keep-alive") && !says("close"),
    }
}

/// One pass over the headers for those that decide where this request ends and the next one begins.
fn body(head: &Head, limits: &Limits) -> Result<Body, Refusal> {
    let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
    let mut length = Ok(0);
    let mut coding = Ok(());
    let mut expects_continue = false;
    let mut expectation = Ok(());
    for (name, value) in head.headers() {
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !value.bytes().all(is_in_host) {
                return Err(BAD_HOST);
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            length = content_length(value, limits.body_bytes_max);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            codings += 1;
            coding = transfer_coding(value);
        } else if name.eq_ignore_ascii_case("expect") && head.version == Version::Http11 {
            expects_continue = true;
            if !value.eq_ignore_ascii_case("100-continue") {
                expectation = Err(Refusal::Expectation);
            }
        }
    }
    if hosts > 1 || (hosts == 0 && head.version == Version::Http11) {
        return Err(NO_HOST);
    }
    if lengths > 0 && codings > 0 {
        return Err(TWO_LENGTHS);
    }
    if lengths > 1 {
        return Err(BAD_LENGTH);
    }
    if codings > 1 {
        return Err(CHUNKED_TWICE);
    }
    if codings > 0 && head.version == Version::Http10 {
        return Err(CODING_IN_1_0);
    }
    coding?;
    let framing = if codings > 0 { Framing::Chunked } else { Framing::Length(length?) };
    expectation?;
    Ok(Body { framing, expects_continue })
}

/// Digits of any number are a length; one that does not fit is too large and not an overflow.
fn content_length(value: &str, body_bytes_max: usize) -> Result<usize, Refusal> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BAD_LENGTH);
    }
    let length =
        value.bytes().try_fold(0_usize, |length, digit| length.checked_mul(10)?.checked_add(usize::from(digit - b'0')));
    length.filter(|&length| length <= body_bytes_max).ok_or(Refusal::BodyTooLarge(body_bytes_max))
}

fn transfer_coding(value: &str) -> Result<(), Refusal> {
    // Blanks are spaces and tabs: to whoever is in front of this server, what is more than that is part of another name.
    let mut codings = value.split(',').map(|coding| coding.trim_matches([' ', '\t']));
    if codings.all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return if value.contains(',') { Err(CHUNKED_TWICE) } else { Ok(()) };
    }
    Err(Refusal::TransferCoding)
}
