//! Row `too much`, its second half: what is no request, and what two readers could take for two different ones.

use super::Setting;
use crate::hostile::case::Case;
use crate::util::sql;

/// Whoever takes the beginning for a whole request would take this for the next.
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

fn post(more: &str, body: &str) -> String {
    format!("POST /analyze HTTP/1.1\r\nHost: x\r\n{more}\r\n{body}")
}

fn get(more: &str) -> String {
    format!("GET /health HTTP/1.1\r\nHost: x\r\n{more}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: x\r\n\r\n")
}

/// What is no request at all.
pub(super) fn malformed() -> Vec<Case> {
    let cases: [(&[u8], u16); 22] = [
        (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 400),
        (b"\n\n", 400),
        (b" \r\n\r\n", 400),
        // HTTP/0.9, which has no version.
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/11\r\nHost: x\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G\xc3\x8bT / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        // A TLS client on a plain port, an SSH client, an SMB client, a proxy's preamble, an answer.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", 400),
        (b"\x00\x00\x00\x54\xffSMB", 400),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n\r\n", 400),
        (b"\r\n\r\n\x00\r\nQUIT\n", 400),
        (b"HTTP/1.1 200 OK\r\n\r\n", 400),
        (b"\x00\x00\x00\x00", 400),
        // HTTP/2 with prior knowledge, HTTP/3 by name, versions that there never were.
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    ];
    let mut cases: Vec<Case> = cases.map(|(bytes, status)| Case::refused(bytes, status)).into();
    // Who ends in the middle of a request is not answered: there is nothing to answer.
    for bytes in ["", "G", "GET /health HTTP/1.1\r\n", "GET /health HTTP/1.1\r\nHost: x\r\n", "\r\n\r\n"] {
        cases.push(Case::new(bytes, &[]).half_closed());
    }
    cases.push(Case::new(post("Content-Length: 5\r\n", "1234"), &[]).half_closed());
    cases.push(Case::new(post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n"), &[]).half_closed());
    cases.push(Case::new(post("Transfer-Encoding: chunked\r\n", "0\r\n"), &[]).half_closed());
    cases
}

/// What could be read in two ways. Whatever it is followed by is not looked at.
pub(super) fn ambiguous() -> Vec<Case> {
    let with_both = |first: &str, second: &str| post(&format!("{first}\r\n{second}\r\n"), "0\r\n\r\n");
    let coded = |coding: &str| post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n");
    let long = |length: &str| post(&format!("Content-Length: {length}\r\n"), "{}");
    let chunks = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let cases: Vec<(String, u16)> = vec![
        // A length and a coding, in every order and spelling.
        (with_both("Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (with_both("Transfer-Encoding: chunked", "Content-Length: 5"), 400),
        (with_both("content-length: 5", "TRANSFER-ENCODING: CHUNKED"), 400),
        (with_both("Content-Length: 0", "Transfer-Encoding: chunked"), 400),
        (with_both("Content-Length: 5", "Transfer-Encoding: identity"), 400),
        (with_both("Content-Length: 5", "Transfer-Encoding: \tchunked"), 400),
        (with_both("Content-Length: nonsense", "Transfer-Encoding: chunked"), 400),
        (with_both("Content-Length: 5", "Transfer-Encoding:"), 400),
        // Lengths that are given twice or are no numbers.
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        (post("Content-Length: 2\r\ncontent-length: 30\r\n", "{}"), 400),
        (post("Content-Length: 0\r\nContent-Length: 2\r\n", "{}"), 400),
        (long("2, 2"), 400),
        (long("2,"), 400),
        (long("+2"), 400),
        (long("-2"), 400),
        (long("-0"), 400),
        (long("0x2"), 400),
        (long("2 2"), 400),
        (long("2.0"), 400),
        (long("2e0"), 400),
        (long("2_0"), 400),
        (long("\u{662}"), 400),
        (long("\"2\""), 400),
        (long(""), 400),
        (long("two"), 400),
        // Codings that are given twice, or are others.
        (coded("chunked, chunked"), 400),
        (coded("chunked,"), 501),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), 400),
        (coded("gzip"), 501),
        (coded("gzip, chunked"), 501),
        (coded("chunked, gzip"), 501),
        (coded("chunked, identity"), 501),
        (coded("identity"), 501),
        (coded("xchunked"), 501),
        (coded("chunkedx"), 501),
        (coded("\"chunked\""), 501),
        (coded("chunked;q=1"), 501),
        (coded("\u{17f}chunked"), 501),
        (coded(""), 501),
        ("POST /analyze HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        // Lines that end, begin or are parted otherwise.
        (post("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("A: b\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400),
        (post("A: b\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        (post("A: b\rTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\0\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400),
        (get("A: b\r\n c\r\n"), 400),
        (get(" A: b\r\n"), 400),
        (get("A : b\r\n"), 400),
        (get("Content-Length : 0\r\n"), 400),
        (get("A b\r\n"), 400),
        (get(": b\r\n"), 400),
        (get("A: b\rc\r\n"), 400),
        (get("A: b\n"), 400),
        (get("A: b\r\r\n"), 400),
        (get("\n"), 400),
        (get("A: b\0c\r\n"), 400),
        (get("A\0: b\r\n"), 400),
        (get("A: b\x01c\r\n"), 400),
        (get("A: b\x7fc\r\n"), 400),
        ("GET /health HTTP/1.1\nHost: x\n\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: x\r\n\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: x\n\r\n".into(), 400),
        // Names that are others to some: an underscore is none, whatever is no token is refused.
        (post("Content-Length\u{a0}: 5\r\n", "12345"), 400),
        (post("Cont\u{e9}nt-Length: 5\r\n", "12345"), 400),
        (post("\"Content-Length\": 5\r\n", "12345"), 400),
        (post("(Content-Length): 5\r\n", "12345"), 400),
        (post("Content-Length;: 5\r\n", "12345"), 400),
        (post("Content-Length[]: 5\r\n", "12345"), 400),
        // Request lines with more or less than they have.
        (line("GET  /health HTTP/1.1"), 400),
        (line("GET /health  HTTP/1.1"), 400),
        (line("GET\t/health\tHTTP/1.1"), 400),
        (line(" GET /health HTTP/1.1"), 400),
        (line("GET /health HTTP/1.1 "), 400),
        (line("GET /a b HTTP/1.1"), 400),
        (line("GET /he\0alth HTTP/1.1"), 400),
        (line("GET /health\rHTTP/1.1"), 400),
        (line("GET /health HTTP/1.1\x0c"), 400),
        (line("GET /health HTTP/1.1, HTTP/1.1"), 400),
        (line("GET /h\u{e9}alth HTTP/1.1"), 400),
        // Targets that are none, or somebody else's.
        (line("GET health HTTP/1.1"), 400),
        (line("GET * HTTP/1.1"), 400),
        (line("GET /health#part HTTP/1.1"), 400),
        (line("GET http://user:secret@x/health HTTP/1.1"), 400),
        (line("GET http:///health HTTP/1.1"), 400),
        (line("GET http:/health HTTP/1.1"), 400),
        (line("GET ftp://x/health HTTP/1.1"), 400),
        (line("GET file:///etc/passwd HTTP/1.1"), 400),
        (line("GET http://x\\@y/health HTTP/1.1"), 400),
        (line("CONNECT x:443 HTTP/1.1"), 400),
        // Hosts.
        ("GET /health HTTP/1.1\r\n\r\n".into(), 400),
        ("GET http://x/health HTTP/1.1\r\n\r\n".into(), 400),
        (get("Host: y\r\n"), 400),
        (get("host: x\r\n"), 400),
        ("GET /health HTTP/1.1\r\nHost: x y\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: a@x\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: <script>\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nX-Host: x\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n".into(), 400),
        // Chunks whose size or end is a matter of opinion.
        (chunks("-1\r\n"), 400),
        (chunks("+2\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("0x2\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2h\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks(" 2\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("\r\n"), 400),
        (chunks(";a=b\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2\n{}\n0\n\n"), 400),
        (chunks("2\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2\r{}\r\n0\r\n\r\n"), 400),
        (chunks("2\r\n{}}\r\n0\r\n\r\n"), 400),
        (chunks("2\r\n{}0\r\n\r\n"), 400),
        (chunks("2\r\n{}\n0\r\n\r\n"), 400),
        (chunks("2;a\n=b\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2;a\r=b\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2;a\0=b\r\n{}\r\n0\r\n\r\n"), 400),
        (chunks("2\r\n{}\r\n0\r\nA: b\n\r\n"), 400),
        (chunks("2\r\n{}\r\n0\r\n A: b\r\n\r\n"), 400),
        (chunks("2\r\n{}\r\n0\r\n\n"), 400),
        (chunks("2\r\n{}\r\n0\r\nA: \0\r\n\r\n"), 400),
        // Expectations.
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: tea\r\n\r\n{}".into(), 417),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue, tea\r\n\r\n{}".into(), 417),
    ];
    let smuggling = |(bytes, status): (String, u16)| Case::refused(bytes + SMUGGLED, status);
    let mut cases: Vec<Case> = cases.into_iter().map(smuggling).collect();
    // The same whatever the pieces are in which it comes, and behind another request.
    for bytes in [
        with_both("Content-Length: 5", "Transfer-Encoding: chunked"),
        get("A: b\nc: d\r\n"),
        chunks("2\r\n{}}\r\n0\r\n\r\n"),
        line("GET  /health HTTP/1.1"),
    ] {
        cases.push(Case::refused(bytes.clone(), 400).byte_by_byte());
        cases.push(Case::new(SMUGGLED.to_owned() + &bytes + SMUGGLED, &[200, 400]).closes());
        let (first, second) = bytes.split_at(bytes.len() - 9);
        cases.push(Case::new(first, &[400]).then(second.to_owned() + SMUGGLED).closes());
    }
    cases
}

/// What is unusual and right: one request, and no more than that.
pub(super) fn unusual(setting: &Setting) -> Vec<Case> {
    let within =
        |body: &str| format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunks = |body: &str| format!("POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let mut cases: Vec<Case> = [
        ("GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        // The target counts, whatever the host says (RFC 9112 §3.2.2).
        ("GET HTTP://x:80/health?a=b HTTP/1.1\r\nHost: other\r\n\r\n".into(), 200),
        ("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
        ("GET http://x?/health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
        ("\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHOST:x\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost:\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost: [::1]:8000\r\nA:\r\nB: \t b \t \r\n\r\n".into(), 200),
        ("GET /%68ealth HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
        ("GET /health?%zz HTTP/1.1\r\nHost: x\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost: x\r\nA: b: c\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n".into(), 200),
        ("GET /health HTTP/1.1\r\nHost: x\r\nA: \u{e9}\u{1f980}\r\n\r\n".into(), 200),
        // A body is read where nobody asks for one, and is no request.
        (format!("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()), 200),
        (within(SMUGGLED), 404),
        (chunks(&format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())), 404),
        (chunks("2;a=b;c=\"d\"\r\n{}\r\n000\r\nTrailer: x\r\n\r\n"), 404),
        (chunks("2 \t\r\n{}\r\n0 ;x\r\n\r\n"), 404),
        (chunks("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\n\r\n"), 404),
        (post("content-length: 0000000000000000000000002\r\n", "{}"), 401),
        (post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), 401),
    ]
    .into_iter()
    .map(|(bytes, status)| Case::new(bytes, &[status]))
    .collect();
    cases.extend([
        Case::new("GET /health HTTP/1.0\r\n\r\n", &[200]).closes(),
        Case::new("GET /health HTTP/1.1\r\nHost: x\r\nConnection: a, CLOSE\r\n\r\n".to_owned() + SMUGGLED, &[200])
            .closes(),
        Case::new("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", &[200]).half_closed(),
        Case::new(SMUGGLED.to_owned() + "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED, &[200, 404, 200]),
        Case::new(within(SMUGGLED), &[404]).byte_by_byte(),
        Case::new(chunks("2;a=b\r\n{}\r\n0\r\nTrailer: x\r\n\r\n"), &[404]).byte_by_byte(),
        Case::new(setting.get("/runs/nobody", ""), &[404]).byte_by_byte(),
        Case::new("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n", &[100, 405])
            .then_when_answered("{}")
            .named("a body that waits to be asked for"),
        Case::new("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", &[405])
            .named("a body that does not wait"),
    ]);
    cases
}

/// Questions whose framing is unusual, which are answered.
pub(super) fn questions(setting: &Setting) -> Vec<Case> {
    let body = sql("framing", "SELECT 6 * 7").to_string();
    let (first, second) = body.split_at(7);
    let head = format!(
        "POST /analyze HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json; charset=utf-8\r\n",
        setting.ann
    );
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x};ext=1\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nTrailer: x\r\n\r\n",
        first.len(),
        second.len()
    );
    let waits = format!("{head}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", body.len());
    let is_42 = |answer: &crate::util::Response| answer.json()["rows"] == serde_json::json!([[42]]);
    vec![
        Case::new(chunked.clone(), &[200]).named("a question in chunks").body(is_42),
        Case::new(chunked, &[200]).named("a question in chunks").byte_by_byte().body(is_42),
        Case::new(waits, &[100, 200])
            .then_when_answered(body)
            .named("a question that waits to be asked for")
            .body(is_42),
    ]
}
