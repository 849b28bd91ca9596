//! Rows `auth`, `ownership` and `too often`. What is wrong with a token itself is a table of its own: `tests/api/access.rs`.

use super::Setting;
use crate::hostile::case::Case;
use crate::hostile::{BOB, health};

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

pub(super) fn cases(setting: &Setting) -> Vec<Case> {
    let Setting { ann, bob, run } = setting;
    let mut cases = Vec::new();
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "] {
        let case = Case::new(get("/runs", &format!("Authorization: {scheme} {ann}\r\n")), &[200]);
        cases.push(case.named(&format!("scheme {scheme:?}")));
    }
    for (name, lines, reason) in [
        ("no header", String::new(), "missing"),
        ("nothing", "Authorization: \r\n".to_owned(), "malformed"),
        ("a scheme alone", "Authorization: Bearer\r\n".to_owned(), "malformed"),
        ("a scheme and a blank", "Authorization: Bearer \r\n".to_owned(), "malformed"),
        ("no scheme", format!("Authorization: {ann}\r\n"), "malformed"),
        ("another scheme", format!("Authorization: Basic {ann}\r\n"), "malformed"),
        ("two schemes", format!("Authorization: Bearer Bearer {ann}\r\n"), "malformed"),
        ("two tokens", format!("Authorization: Bearer {ann} {ann}\r\n"), "malformed"),
        ("a list", format!("Authorization: Bearer {ann}, Bearer {ann}\r\n"), "malformed"),
        ("two headers", format!("Authorization: Bearer {ann}\r\nauthorization: Bearer {ann}\r\n"), "malformed"),
        (
            "two headers of two users",
            format!("Authorization: Bearer {ann}\r\nAuthorization: Bearer {bob}\r\n"),
            "malformed",
        ),
        ("one header is empty", format!("Authorization: Bearer {ann}\r\nAuthorization:\r\n"), "malformed"),
        ("two parts", "Authorization: Bearer a.b\r\n".to_owned(), "malformed"),
        ("a cookie", format!("Cookie: token={ann}\r\n"), "missing"),
        ("another header", format!("X-Authorization: Bearer {ann}\r\n"), "missing"),
        ("a proxy's header", format!("Proxy-Authorization: Bearer {ann}\r\n"), "missing"),
        ("a signature too long", format!("Authorization: Bearer {ann}AAAA\r\n"), "signature"),
        ("nonsense", "Authorization: Bearer \u{fffd}\u{1f980}\r\n".to_owned(), "malformed"),
    ] {
        let case = Case::new(get("/runs", &lines), &[401]).named(&format!("token: {name}"));
        // It is refused for what it is, wherever a decoder notices that.
        cases.push(if reason == "signature" { case } else { case.reason(reason) });
    }
    let in_address = Case::new(get(&format!("/runs?access_token={ann}&token={ann}"), ""), &[401]);
    cases.push(in_address.named("a token in the address").reason("missing"));
    // A token is asked for before anything else is looked at.
    for bytes in [
        "POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{".to_owned(),
        get("/runs?limit=nonsense", ""),
        get("/chat/t/messages", ""),
        get(&format!("/runs/{run}"), ""),
        "DELETE /chat/t HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        get("/data-table?table=penguins", ""),
    ] {
        cases.push(Case::new(bytes, &[401]).reason("missing"));
    }

    let as_bob = |method: &str, path: &str, body: &str| {
        let lines = format!("Host: x\r\nAuthorization: Bearer {bob}\r\nContent-Type: application/json\r\n");
        format!("{method} {path} HTTP/1.1\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let nobodys = "00000000-0000-7000-8000-000000000000";
    for id in [run, nobodys, "x", "..%2f..%2fetc%2fpasswd"] {
        for (method, path) in [("GET", ""), ("GET", "/wait?timeout=0"), ("GET", "/events"), ("POST", "/cancel")] {
            let case = Case::new(as_bob(method, &format!("/runs/{id}{path}"), ""), &[404]);
            cases.push(case.named(&format!("{BOB}: {method} {id}{path}")).detail("There is no such run."));
        }
    }
    for id in [run, nobodys] {
        for (path, said) in [("/sentiment", "\"sentiment\":true"), ("/feedback", "\"feedback\":1")] {
            let case = Case::new(as_bob("POST", path, &format!("{{\"run_id\":\"{id}\",{said}}}")), &[404]);
            cases.push(case.named(&format!("{BOB}: {path} of {id}")));
        }
    }
    for thread in ["ann's", "nobody's"] {
        let case = Case::new(as_bob("DELETE", &format!("/chat/{thread}"), ""), &[404]);
        cases.push(case.named(&format!("{BOB}: delete {thread}")));
    }
    let empty = Case::new(as_bob("GET", "/chat/ann's/messages", ""), &[200]);
    cases.push(empty.named("another's conversation").body(|answer| answer.text().trim() == "[]"));
    cases
}

/// Of a server that lets everybody make six requests in an hour.
pub(super) fn too_often(setting: &Setting) -> Vec<Case> {
    let open = || get("/openapi.json", "");
    let of = |token: &str| get("/runs?limit=1", &format!("Authorization: Bearer {token}\r\n"));
    let options = "OPTIONS /runs HTTP/1.1\r\nHost: x\r\n\r\n";
    let wrong = "PUT /runs HTTP/1.1\r\nHost: x\r\n\r\n";
    // What is refused is counted as well: a guessed token, a path that does not exist, a method that it does not understand.
    let guessed = get("/runs", "Authorization: Bearer guessed.guessed.guessed\r\n");
    let mut cases = vec![
        Case::new(guessed.clone(), &[401]),
        Case::new(get("/nowhere", ""), &[404]),
        Case::new(get("/%zz", ""), &[400]),
        Case::new(wrong, &[405]),
        Case::new(options, &[204]),
        Case::new(open(), &[200]),
    ];
    let limited = |bytes: &str, name: &str| {
        let case = Case::new(bytes, &[429]).named(name).detail("Too many requests");
        case.body(|answer| answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() > 60))
    };
    cases.extend([
        limited(&open(), "an open endpoint"),
        limited(&guessed, "one more guess"),
        limited(&get("/nowhere", ""), "one more path"),
        limited(&get("/%zz", ""), "one more path that cannot be read"),
        limited(wrong, "one more method"),
        limited(options, "one more OPTIONS"),
    ]);
    cases.push(Case::new(open(), &[429]).named("the last, and half-closed").half_closed());
    for path in ["/health", "/health/ready", "/debug/pool-status", "/metrics"] {
        cases.push(Case::new(format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n"), &[204]));
        cases.push(Case::new(format!("PUT {path} HTTP/1.1\r\nHost: x\r\n\r\n"), &[405]));
    }
    let asked = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n";
    let preflight = format!("OPTIONS /analyze HTTP/1.1\r\nHost: x\r\n{asked}\r\n");
    cases.push(Case::new(preflight.repeat(20), &[204; 20]).named("preflights"));
    for path in ["/health", "/health/live", "/health/memory", "/health/rate-limits", "/debug/pool-status"] {
        cases.push(Case::new(get(path, ""), &[200]));
    }
    // Users are counted by themselves, each.
    cases.extend((0..6).map(|n| Case::new(of(&setting.ann), &[200]).named(&format!("ann's request {n}"))));
    cases.push(limited(&of(&setting.ann), "ann's last"));
    cases.push(Case::new(of(&setting.bob), &[200]).named("bob's first"));
    cases.push(Case::new(health().repeat(50), &[200; 50]).named("health, fifty times"));
    cases
}
