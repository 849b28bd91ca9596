//! Who is let in, and what they see of others.

use std::collections::BTreeMap;

use holdfast::auth::{Secret, VerifierOptions, issue};
use ring::hmac;
use serde_json::{Value, json};

use super::{answered, problem, tokens_refused};
use crate::util::issuer::Key;
use crate::util::{Client, Launch, Response, Server, sql};

const SECRET: &str = "a secret that only this test's server knows";

fn signed_with(secret: &str, algorithm: hmac::Algorithm, claims: &Value) -> String {
    Key::hmac(algorithm, secret.as_bytes()).token(claims)
}

fn in_seconds(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() + seconds
}

/// The claims of a token that is let in, with these changes.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({"email": "ann@example.org", "exp": in_seconds(600), "iss": "us", "aud": "here"});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn start() -> Server {
    let launch = Launch::holdfast().env("LOG_FORMAT", "json").env("JWT_SECRET", SECRET);
    launch.env("JWT_ISSUER", "us").env("JWT_AUDIENCE", "here").start()
}

fn present(client: &mut Client, authorization: &str) -> Response {
    client.request("GET", "/runs", &[("Authorization", authorization)], &[])
}

#[test]
fn each_reason_for_refusing_a_token_is_told() {
    let mut server = start();
    let mut client = server.anonymous();
    let hs256 = |changes: Value| format!("Bearer {}", signed_with(SECRET, hmac::HMAC_SHA256, &claims(&changes)));
    let good = hs256(json!({}));
    assert_eq!(present(&mut client, &good).status, 200);
    let unsigned = {
        let [_, payload, _] = good.split('.').collect::<Vec<_>>()[..] else { unreachable!("three parts") };
        // {"alg":"none"}
        format!("Bearer eyJhbGciOiJub25lIn0.{payload}.")
    };
    let altered = {
        let other = hs256(json!({"email": "bob@example.org"}));
        let payload = other.split('.').nth(1).unwrap().to_owned();
        let mut parts: Vec<&str> = good.split('.').collect();
        parts[1] = &payload;
        parts.join(".")
    };
    let cases = [
        ("malformed", String::new()),
        ("malformed", "Bearer".to_owned()),
        ("malformed", "Bearer nonsense".to_owned()),
        ("malformed", "Basic YW5uOnNlY3JldA==".to_owned()),
        ("malformed", good.replace("Bearer ", "")),
        ("malformed", format!("{good}, {good}")),
        ("malformed", format!("Bearer {}", "A".repeat(8 * 1024 + 1))),
        ("malformed", hs256(json!({"exp": null}))),
        ("malformed", hs256(json!({"exp": "soon"}))),
        ("expired", hs256(json!({"exp": in_seconds(-120)}))),
        ("expired", hs256(json!({"exp": 0}))),
        ("not_yet_valid", hs256(json!({"nbf": in_seconds(120)}))),
        ("signature", altered),
        (
            "signature",
            format!(
                "Bearer {}",
                signed_with("another secret, just as long as the real one", hmac::HMAC_SHA256, &claims(&json!({})))
            ),
        ),
        ("algorithm", unsigned),
        ("algorithm", format!("Bearer {}", signed_with(SECRET, hmac::HMAC_SHA384, &claims(&json!({}))))),
        ("algorithm", format!("Bearer {}", signed_with(SECRET, hmac::HMAC_SHA512, &claims(&json!({}))))),
        ("audience", hs256(json!({"aud": "elsewhere"}))),
        ("audience", hs256(json!({"aud": null}))),
        ("issuer", hs256(json!({"iss": "them"}))),
        ("issuer", hs256(json!({"iss": null}))),
        ("identity", hs256(json!({"email": null}))),
        ("identity", hs256(json!({"email": ""}))),
        ("identity", hs256(json!({"email": ["ann@example.org"]}))),
        ("identity", hs256(json!({"email_verified": false}))),
    ];
    let mut told = BTreeMap::from([("missing".to_owned(), 1), ("malformed".to_owned(), 1)]);
    for (reason, authorization) in cases {
        *told.entry(reason.to_owned()).or_default() += 1;
        let answer = present(&mut client, &authorization);
        refused_for(reason, &answer);
        let shown = answer.text();
        let secrets = authorization.split(['.', ' ', ',']).filter(|part| part.len() > 20);
        assert!(secrets.into_iter().all(|part| !shown.contains(part)), "{shown} repeats {authorization}");
    }
    refused_for("missing", &client.get("/runs"));
    let both = [("Authorization", good.as_str()), ("authorization", good.as_str())];
    refused_for("malformed", &client.request("GET", "/runs", &both, &[]));
    // "key" has its place where there are several: keys.rs.
    assert_eq!(told.len(), 9, "{told:?}");
    tokens_refused(&mut server, &told);
}

#[track_caller]
fn refused_for(reason: &str, answer: &Response) {
    let refused = problem(answer, 401);
    assert_eq!(refused["reason"], reason, "{refused}");
    assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
}

#[test]
fn the_scheme_is_case_insensitive() {
    let server = start();
    let token = signed_with(SECRET, hmac::HMAC_SHA256, &claims(&json!({})));
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "] {
        assert_eq!(present(&mut server.anonymous(), &format!("{scheme} {token}")).status, 200, "{scheme}");
    }
}

#[test]
fn a_token_is_asked_for_before_anything_else_is_looked_at() {
    let server = start();
    let mut client = server.anonymous();
    let headers = [("Content-Type", "application/json")];
    refused_for("missing", &client.request("POST", "/analyze", &headers, b"{"));
    refused_for("missing", &client.get("/runs?limit=nonsense"));
    refused_for("missing", &client.delete("/chat/nobody"));
    refused_for("missing", &client.get("/catalog"));
    refused_for("missing", &client.get("/chat/all-messages"));
    refused_for("missing", &client.get("/debug/run-id/x"));
    refused_for("missing", &client.request("POST", "/feedback", &headers, b"{"));
    refused_for("missing", &client.request("POST", "/sentiment", &headers, b"{"));
}

#[test]
fn the_token_of_the_first_start_is_let_in_and_a_configured_secret_prints_none() {
    let server = Launch::holdfast().without("JWT_SECRET").start();
    let token = server.banner().split_once("/#token=").unwrap().1.to_owned();
    assert_eq!(present(&mut server.anonymous(), &format!("Bearer {token}")).status, 200);
    let foreign = issue(
        &Secret::new(SECRET).unwrap(),
        &VerifierOptions::default(),
        "you@localhost",
        std::time::Duration::from_secs(60),
    )
    .unwrap();
    refused_for("signature", &present(&mut server.anonymous(), &format!("Bearer {foreign}")));
    assert!(!start().banner().contains("token"));
}

#[test]
fn nobody_sees_or_touches_what_belongs_to_another() {
    let server = Launch::holdfast().start();
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    // The same thread id, the same key: two conversations, two runs.
    let key = [("Idempotency-Key", "the-same-key")];
    let question = |n: u32| sql("shared", &format!("SELECT {n} AS answer"));
    let anns = ann.post_with("/analyze", &key, &question(1)).json();
    let bobs = bob.post_with("/analyze", &key, &question(2)).json();
    assert_eq!((&anns["rows"], &bobs["rows"]), (&json!([[1]]), &json!([[2]])));
    let (anns, bobs) = (anns["run_id"].as_str().unwrap(), bobs["run_id"].as_str().unwrap());
    assert_ne!(anns, bobs);
    answered(&mut ann, "ann's own", "SELECT 3");

    for (client, own) in [(&mut ann, anns), (&mut bob, bobs)] {
        let run_ids = client.get("/chat/shared/run-ids").json();
        assert_eq!(run_ids["run_ids"].as_array().unwrap().len(), 1);
        assert_eq!(run_ids["run_ids"][0]["run_id"], own);
        let messages = client.get("/chat/shared/messages").json();
        assert!(messages.as_array().unwrap().iter().all(|message| message["meta"]["run_id"] == own), "{messages}");
    }
    assert_eq!(bob.get("/runs").json()["runs"].as_array().unwrap().len(), 1);
    assert_eq!(bob.get("/chat-threads").json().as_array().unwrap().len(), 1);

    // Another's is answered exactly as what does not exist.
    let unknown = uuid::Uuid::now_v7().to_string();
    for path in ["/runs/ID", "/runs/ID/wait", "/runs/ID/wait?timeout=0"] {
        let (others, nobodys) = (bob.get(&path.replace("ID", anns)), bob.get(&path.replace("ID", &unknown)));
        same_but_for_the_request(&others, &nobodys);
    }
    let cancel = |client: &mut Client, id: &str| client.request("POST", &format!("/runs/{id}/cancel"), &[], &[]);
    let (others, nobodys) = (cancel(&mut bob, anns), cancel(&mut bob, &unknown));
    same_but_for_the_request(&others, &nobodys);
    let (others, nobodys) = (bob.delete("/chat/ann's%20own"), bob.delete("/chat/nobody's"));
    same_but_for_the_request(&others, &nobodys);
    assert_eq!(ann.post("/sentiment", &json!({"run_id": anns, "sentiment": true})).status, 200);
    for (path, said) in [("/sentiment", json!({"sentiment": false})), ("/feedback", json!({"feedback": 0}))] {
        let [others, nobodys] = [anns, &unknown].map(|id| {
            let mut body = said.clone();
            body["run_id"] = id.into();
            bob.post(path, &body)
        });
        same_but_for_the_request(&others, &nobodys);
    }
    assert_eq!(ann.get("/chat/shared/sentiments").json(), json!({anns: true}), "bob has changed nothing");
    assert_eq!(bob.get("/chat/shared/sentiments").json(), json!({}));
    let [others, nobodys] = [anns, &unknown].map(|id| {
        let mut report = bob.get(&format!("/debug/run-id/{id}")).json();
        report.as_object_mut().unwrap().remove("run_id");
        report
    });
    assert_eq!(others, nobodys);
    let all = bob.get("/chat/all-messages");
    assert!(!all.text().contains(anns) && all.text().contains(bobs), "{}", all.text());

    // A third sees empty lists, not that there is something.
    let mut cem = server.client("cem@example.org");
    assert_eq!(cem.get("/runs").json()["runs"], json!([]));
    for (path, empty) in [
        ("/chat-threads", json!([])),
        ("/chat/shared/messages", json!([])),
        ("/chat/shared/run-ids", json!({"run_ids": []})),
        ("/chat/shared/sentiments", json!({})),
        ("/chat/all-messages", json!({"messages": {}, "runIds": {}, "sentiments": {}, "truncated": false})),
    ] {
        assert_eq!(cem.get(path).json(), empty, "{path}");
    }

    assert_eq!(bob.delete("/chat/shared").status, 200);
    problem(&bob.get(&format!("/runs/{bobs}")), 404);
    assert_eq!(ann.run(anns)["status"], "succeeded", "what bob deleted was his own");
}

#[track_caller]
fn same_but_for_the_request(one: &Response, other: &Response) {
    let without_id = |answer: &Response| {
        let mut problem = problem(answer, 404);
        problem.as_object_mut().unwrap().remove("request_id");
        problem
    };
    assert_eq!(without_id(one), without_id(other));
    let names = |answer: &Response| answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(one), names(other));
}
