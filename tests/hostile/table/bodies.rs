//! Rows `bodies`, `errors`, `validation` and `JSON`.

use super::Setting;
use crate::hostile::case::Case;

pub(super) fn cases(setting: &Setting) -> Vec<Case> {
    let mut cases = Vec::new();
    let post = |body: &[u8]| setting.post("/analyze", body);

    for body in [
        &b""[..],
        b"{",
        b"}",
        b"nonsense",
        b"prompt=SELECT+1&thread_id=t",
        b"{'prompt':'x'}",
        br#"{"prompt":"x","thread_id":"t",}"#,
        br#"{"prompt":"x","thread_id":"t"} x"#,
        br#"{"prompt":"x","thread_id":"t"}{}"#,
        br#"{"prompt":NaN,"thread_id":"t"}"#,
        br#"{"prompt":Infinity,"thread_id":"t"}"#,
        br#"{"prompt":-Infinity,"thread_id":"t"}"#,
        br#"{"prompt":1e999,"thread_id":"t"}"#,
        br#"{"prompt":01,"thread_id":"t"}"#,
        br#"{"prompt":"\x41","thread_id":"t"}"#,
        br#"{"prompt":"x" /* a comment */,"thread_id":"t"}"#,
        // Lone surrogates, in values and in keys.
        br#"{"prompt":"\ud800","thread_id":"t"}"#,
        br#"{"prompt":"\udc00\ud800","thread_id":"t"}"#,
        br#"{"\ud800":"x","thread_id":"t"}"#,
        br#"{"prompt":"x","thread_id":"t","z":["\udfff"]}"#,
        // What is not UTF-8: a stray byte, an overlong NUL, a surrogate, a byte order mark.
        b"{\"prompt\":\"\xff\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"\xc0\x80\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"\xed\xa0\x80\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"\xf4\x90\x80\x80\",\"thread_id\":\"t\"}",
        b"{\"pro\xffmpt\":\"x\",\"thread_id\":\"t\"}",
        b"\xef\xbb\xbf{\"prompt\":\"x\",\"thread_id\":\"t\"}",
        b"\xff\xfe{\x00}\x00",
        // Control characters that are not escaped.
        b"{\"prompt\":\"a\nb\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"a\x00b\",\"thread_id\":\"t\"}",
    ] {
        cases.push(Case::new(post(body), &[400]).named(&shown("malformed", body)).detail("not JSON: line"));
    }
    let nested = |open: &str, levels: usize, close: &str| {
        format!(r#"{{"thread_id":"t","prompt":{}1{}}}"#, open.repeat(levels - 1), close.repeat(levels - 1))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let allowed = Case::new(post(nested(open, 64, close).as_bytes()), &[422]);
        cases.push(allowed.named("64 levels").faults(&["body.prompt string_type"]));
        for levels in [65, 66, 1000, 100_000] {
            let refused = Case::new(post(nested(open, levels, close).as_bytes()), &[400]);
            cases.push(refused.named(&format!("{levels} levels of {open}")).detail("deeper than 64"));
        }
        let endless = Case::new(post(open.repeat(150_000).as_bytes()), &[400]);
        cases.push(endless.named(&format!("endless {open}")));
    }

    let json = br#"{"prompt":"SELECT 1","thread_id":"t"}"#;
    for content_type in [
        "Content-Type: \r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type: application/merge-patch+json\r\n",
        "Content-Type: application/json, text/plain\r\n",
        "Content-Type: application /json\r\n",
        "",
    ] {
        let bytes = setting.post_with("/analyze", content_type, json);
        cases.push(Case::new(bytes, &[415]).named(&format!("as {content_type:?}")).detail("application/json"));
    }

    let long = format!(r#"{{"prompt":"{}","thread_id":"{}"}}"#, "é".repeat(10_001), "é".repeat(101));
    let faulty: [(&str, &'static [&'static str]); 17] = [
        ("[]", &["body object_type"]),
        ("null", &["body object_type"]),
        ("7", &["body object_type"]),
        ("\"prompt\"", &["body object_type"]),
        ("{}", &["body.prompt missing", "body.thread_id missing"]),
        (r#"{"prompt":"x"}"#, &["body.thread_id missing"]),
        (r#"{"prompt":null,"thread_id":7}"#, &["body.prompt string_type", "body.thread_id string_type"]),
        (r#"{"prompt":{},"thread_id":[true]}"#, &["body.prompt string_type", "body.thread_id string_type"]),
        (r#"{"prompt":"","thread_id":" \t\n"}"#, &["body.prompt string_too_short", "body.thread_id string_too_short"]),
        (
            r#"{"prompt":"\u00a0","thread_id":"\u3000\u2003"}"#,
            &["body.prompt string_too_short", "body.thread_id string_too_short"],
        ),
        (&long, &["body.prompt string_too_long", "body.thread_id string_too_long"]),
        (
            r#"{"prompt":"x","thread_id":"t","Prompt":1,"user":"bob","__proto__":{}}"#,
            &["body.Prompt extra_forbidden", "body.user extra_forbidden", "body.__proto__ extra_forbidden"],
        ),
        (r#"{"prompt":"x","prompt":"y","thread_id":"t"}"#, &["body.prompt duplicate_key"]),
        (r#"{"prompt":"x","pr\u006fmpt":"y","thread_id":"t"}"#, &["body.prompt duplicate_key"]),
        (r#"{"prompt":"x\u0000","thread_id":"\u0000"}"#, &["body.prompt nul", "body.thread_id nul"]),
        (r#"{"prompt":"x","thread_id":"t","engine":"nope"}"#, &["body.engine value_error"]),
        (
            r#"{"prompt":"\u0000","thread_id":7,"engine":"","e":{"a":1,"a":2}}"#,
            &[
                "body.prompt nul",
                "body.thread_id string_type",
                "body.engine string_too_short",
                "body.e.a duplicate_key",
                "body.e extra_forbidden",
            ],
        ),
    ];
    for (body, faults) in faulty {
        let case = Case::new(post(body.as_bytes()), &[422]).named(&shown("faulty", body.as_bytes()));
        cases.push(case.faults(faults).body(|answer| answer.json()["detail"] == "Validation error"));
    }
    let headers = "Content-Type: application/json\r\nPrefer: wait=soon\r\nIdempotency-Key: two words\r\n";
    let all = r#"{"prompt":"\u0000","thread_id":7,"engine":"nope","extra":1,"extra":2}"#;
    let all = Case::new(setting.post_with("/analyze", headers, all), &[422]).named("faults of headers and of the body");
    cases.push(all.faults(&[
        "body.prompt nul",
        "body.thread_id string_type",
        "body.engine value_error",
        "body.extra duplicate_key",
        "body.extra extra_forbidden",
        "header.Prefer value_error",
        "header.Idempotency-Key value_error",
    ]));
    for (path, body, faults) in [
        (
            "/feedback",
            r#"{"run_id":"x","feedback":2}"#,
            &["body.run_id uuid_parsing", "body.feedback out_of_range"][..],
        ),
        (
            "/sentiment",
            r#"{"run_id":"x","sentiment":"yes"}"#,
            &["body.run_id uuid_parsing", "body.sentiment bool_type"],
        ),
    ] {
        cases.push(Case::new(setting.post(path, body), &[422]).named(path).faults(faults));
    }
    cases
}

/// A MiB of nothing but faults, of which a few are told, briefly.
pub(super) fn full_of_faults(setting: &Setting) -> Vec<Case> {
    let (name, deep) = ("k".repeat(500_000), format!(r#"{{"{}":"#, "k".repeat(100)));
    let levels = 60;
    let nuls = |count: usize| vec![r#""\u0000""#; count].join(",");
    let unknown: Vec<String> = (0..80_000).map(|n| format!(r#""{n}":0"#)).collect();
    [
        ("NULs below a long name", format!(r#"{{"{name}":[{}]}}"#, nuls(50_000))),
        ("NULs below many names", format!("{}[{}]{}", deep.repeat(levels), nuls(90_000), "}".repeat(levels))),
        ("one key again and again", format!("{{{}}}", vec![r#""a":0"#; 170_000].join(","))),
        ("many fields that are none", format!("{{{}}}", unknown.join(","))),
    ]
    .map(|(name, body)| {
        let case = Case::new(setting.post("/analyze", body), &[422]).named(name);
        case.body(|answer| answer.body.len() < 200 * 1024 && answer.json()["errors"].as_array().unwrap().len() == 20)
    })
    .into()
}

fn shown(what: &str, body: &[u8]) -> String {
    format!("{what}: {}", String::from_utf8_lossy(&body[..body.len().min(100)]))
}
