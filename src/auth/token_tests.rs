//! Tokens as friends and enemies write them, against the reasons that the contract promises.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;

use super::issuer::Key;
use super::{Principal, Secret, TokenError, Verifier, VerifierOptions, issue};

const SECRET: &str = "a secret of more than 32 bytes, shared";

fn secret() -> Secret {
    Secret::new(SECRET).expect("it is long enough")
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of any two texts, correctly signed with our secret.
fn signed(header: &str, payload: &str) -> String {
    Key::secret(SECRET.as_bytes()).signed(header, payload)
}

fn claims(payload: &str) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

/// `ann@example.org` until an hour from now, with more claims.
fn ann(more: &str) -> String {
    claims(&format!(r#"{{"email":"ann@example.org","exp":{}{more}}}"#, get_current_timestamp() + 3600))
}

fn header(header: &str) -> String {
    signed(header, &json!({"email": "ann@example.org", "exp": get_current_timestamp() + 3600}).to_string())
}

fn verify_with(options: VerifierOptions, token: &str) -> Result<Principal, TokenError> {
    Verifier::new(&secret(), options).verify(&[&format!("Bearer {token}")])
}

fn reason(options: &VerifierOptions, token: &str) -> &'static str {
    verify_with(options.clone(), token).map_or_else(TokenError::reason, |_| "accepted")
}

/// Every token of the table is answered with `expected`.
fn all_are(expected: &str, options: &VerifierOptions, tokens: &[String]) {
    for token in tokens {
        assert_eq!(reason(options, token), expected, "{}", &token[..token.len().min(300)]);
    }
}

#[test]
fn a_token_of_our_own_names_its_principal() {
    for options in [
        VerifierOptions::default(),
        VerifierOptions { identity_claim: "sub".into(), ..VerifierOptions::default() },
        VerifierOptions { issuer: Some("us".into()), audience: Some("here".into()), ..VerifierOptions::default() },
    ] {
        let token = issue(&secret(), &options, "ann@example.org", Duration::from_mins(1)).expect("a proper identity");
        assert_eq!(verify_with(options, &token), Ok(Principal::new("ann@example.org").expect("a proper identity")));
    }
    assert!(issue(&secret(), &VerifierOptions::default(), "ann\n", Duration::from_mins(1)).is_err());
}

#[test]
fn the_scheme_is_case_insensitive_and_the_header_single() {
    let verifier = Verifier::new(&secret(), VerifierOptions::default());
    let token = ann("");
    for scheme in ["Bearer ", "bearer ", "BEARER ", "bEaReR   ", " Bearer "] {
        assert!(verifier.verify(&[&format!("{scheme}{token}")]).is_ok(), "{scheme:?}");
    }
    assert_eq!(verifier.verify(&[]), Err(TokenError::Missing));
    let bearer = format!("Bearer {token}");
    assert_eq!(verifier.verify(&[&bearer, &bearer]).map_err(TokenError::reason), Err("malformed"));
    for wrong in
        ["", " ", "Bearer", "Bearer ", "Basic YTpi", &token, &format!("Bearer,{token}"), &format!("Token {token}")]
    {
        assert_eq!(verifier.verify(&[wrong]).map_err(TokenError::reason), Err("malformed"), "{wrong:?}");
    }
}

#[test]
fn what_is_not_one_readable_token_is_malformed() {
    let (good, in_an_hour) = (ann(""), get_current_timestamp() + 3600);
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    all_are(
        "malformed",
        &VerifierOptions::default(),
        &[
            ".".into(),
            "..".into(),
            "...".into(),
            "a.b.c".into(),
            "äöü.€.ß".into(),
            head.into(),
            format!("{head}.{payload}"),
            format!("{good}."),
            format!("{good}.{signature}"),
            format!(".{good}"),
            format!("{payload}.{head}.{signature}"),
            format!("{head} .{payload}.{signature}"),
            format!("{good}="),
            format!("{head}.{payload}.*"),
            format!("{good}, Bearer {good}"),
            "A".repeat(8 * 1024 + 1),
            format!("{head}.{}.{signature}", "A".repeat(1_000_000)),
            // Correctly signed, but not what a token contains.
            claims(""),
            claims("null"),
            claims("5"),
            claims(r#""ann@example.org""#),
            claims(r#"["email","ann@example.org"]"#),
            claims("{"),
            claims("{\"email\":\"\u{0}\"}"),
            claims(&format!("{{\"exp\":{in_an_hour},\"a\":{}{}}}", "[".repeat(200), "]".repeat(200))),
            claims(&format!(r#"{{"email":"ann@example.org","email":"bob@example.org","exp":{in_an_hour}}}"#)),
            claims(&format!(r#"{{"email":"ann@example.org","exp":1,"exp":{in_an_hour}}}"#)),
            ann(r#","aud":"a","\u0061ud":"b""#),
        ],
    );
}

#[test]
fn a_header_is_one_that_this_server_understands_whole() {
    all_are(
        "malformed",
        &VerifierOptions::default(),
        &[
            header("{}"),
            header("[]"),
            header(r#"{"typ":"JWT"}"#),
            header(r#"{"alg":null}"#),
            header(r#"{"alg":256}"#),
            header(r#"{"alg":["HS256"]}"#),
            header(r#"{"alg":"none","alg":"HS256"}"#),
            header(r#"{"alg":"HS256","crit":["exp"]}"#),
            header(r#"{"alg":"HS256","crit":[]}"#),
            header(r#"{"alg":"HS256","crit":null}"#),
            header(r#"{"alg":"HS256","crit":"b64","b64":false}"#),
            header(r#"{"alg":"HS256","kid":null}"#),
            header(r#"{"alg":"HS256","kid":["a"]}"#),
            header(r#"{"alg":"HS256","kid":"a","kid":"b"}"#),
        ],
    );
}

#[test]
fn only_hs256_is_an_algorithm() {
    let unsigned = |alg: &str| {
        let signed = header(&format!(r#"{{"alg":"{alg}"}}"#));
        signed[..=signed.rfind('.').expect("three parts")].to_owned()
    };
    all_are(
        "algorithm",
        &VerifierOptions::default(),
        &[
            unsigned("none"),
            unsigned("None"),
            unsigned("NONE"),
            header(r#"{"alg":"none"}"#),
            header(r#"{"alg":"nOnE"}"#),
            header(r#"{"alg":""}"#),
            header(r#"{"alg":"hs256"}"#),
            header(r#"{"alg":"HS256 "}"#),
            header(r#"{"alg":"HS384"}"#),
            header(r#"{"alg":"HS512"}"#),
            header(r#"{"alg":"RS256"}"#),
            header(r#"{"alg":"PS256"}"#),
            header(r#"{"alg":"ES256"}"#),
            header(r#"{"alg":"EdDSA"}"#),
        ],
    );
}

#[test]
fn a_key_or_address_inside_the_token_changes_nothing() {
    let strangers = r#""jku":"http://127.0.0.1:1/keys","x5u":"http://127.0.0.1:1/cert","kid":"../../dev/null""#;
    let jwk = r#""jwk":{"kty":"oct","k":"c3RyYW5nZXI"}"#;
    assert_eq!(
        reason(&VerifierOptions::default(), &header(&format!(r#"{{"alg":"HS256",{strangers},{jwk}}}"#))),
        "accepted"
    );
    // Signed with the key that the token itself brings along.
    let payload = json!({"email": "ann@example.org", "exp": get_current_timestamp() + 3600}).to_string();
    let forged = Key::secret(b"stranger").signed(&format!(r#"{{"alg":"HS256",{strangers},{jwk}}}"#), &payload);
    assert_eq!(reason(&VerifierOptions::default(), &forged), "signature");
}

#[test]
fn an_altered_token_has_a_wrong_signature() {
    let (ann, bob) = (ann(""), claims(&json!({"email": "bob@example.org", "exp": 4_000_000_000_u64}).to_string()));
    let part = |token: &str, i: usize| token.split('.').nth(i).expect("three parts").to_owned();
    let stranger = Secret::new("another secret of more than 32 bytes").expect("it is long enough");
    let foreign = issue(&stranger, &VerifierOptions::default(), "ann@example.org", Duration::from_mins(1))
        .expect("a proper identity");
    all_are(
        "signature",
        &VerifierOptions::default(),
        &[
            foreign,
            format!("{}.{}.{}", part(&ann, 0), part(&bob, 1), part(&ann, 2)),
            format!("{}.{}.{}", part(&ann, 0), part(&ann, 1), part(&bob, 2)),
            format!("{}.{}.", part(&ann, 0), part(&ann, 1)),
            format!("{}.{}.{}", part(&ann, 0), part(&ann, 1), base64url(&[0; 32])),
            format!("{}.{}.{}", part(&ann, 0), part(&ann, 1), base64url(&[0; 31])),
            format!("{}..{}", part(&ann, 0), part(&ann, 2)),
            format!("{}.{}.{}", base64url(br#"{"typ":"JWT","alg":"HS256"}"#), part(&ann, 1), part(&ann, 2)),
            // What the payload says is not looked at before the signature is.
            format!("{}.{}.{}", part(&ann, 0), base64url(br#"{"exp":1}"#), part(&ann, 2)),
        ],
    );
}

#[test]
fn time_counts_with_a_minute_of_leeway() {
    let now = get_current_timestamp();
    let expires = |exp: &str| claims(&format!(r#"{{"email":"ann@example.org","exp":{exp}}}"#));
    let options = VerifierOptions::default();
    all_are(
        "accepted",
        &options,
        &[
            expires(&(now - 30).to_string()),
            expires(&format!("{}.5", now + 10)),
            expires(&u64::MAX.to_string()),
            ann(&format!(r#","nbf":{}"#, now + 30)),
            ann(r#","nbf":0,"iat":0"#),
        ],
    );
    all_are(
        "expired",
        &options,
        &[
            expires("0"),
            expires("0.4"),
            expires("1e3"),
            expires(&(now - 120).to_string()),
            claims(&format!(r#"{{"exp":{},"nbf":{}}}"#, now - 120, now + 120)),
        ],
    );
    all_are(
        "not_yet_valid",
        &options,
        &[ann(&format!(r#","nbf":{}"#, now + 120)), ann(&format!(r#","nbf":{}"#, u64::MAX)), ann(r#","nbf":1e15"#)],
    );
    all_are(
        "malformed",
        &options,
        &[
            claims(r#"{"email":"ann@example.org"}"#),
            expires("null"),
            expires("-1"),
            expires("true"),
            expires("\"4000000000\""),
            expires("[4000000000]"),
            expires("{\"a\":4000000000}"),
            expires("18446744073709551616"),
            expires("1e30"),
            expires("1e999"),
            expires("NaN"),
            ann(r#","nbf":null"#),
            ann(r#","nbf":"0""#),
            ann(r#","nbf":-1"#),
            ann(r#","nbf":[]"#),
        ],
    );
}

#[test]
fn issuer_and_audience_are_checked_when_they_are_configured() {
    let issuer = VerifierOptions { issuer: Some("https://us".into()), ..VerifierOptions::default() };
    all_are("accepted", &issuer, &[ann(r#","iss":"https://us""#), ann(r#","iss":"https://us","aud":"elsewhere""#)]);
    all_are(
        "issuer",
        &issuer,
        &[
            ann(""),
            ann(r#","iss":null"#),
            ann(r#","iss":5"#),
            ann(r#","iss":"""#),
            ann(r#","iss":"https://us/""#),
            ann(r#","iss":"https://US""#),
            ann(r#","iss":{"https://us":1}"#),
        ],
    );
    let audience = VerifierOptions { audience: Some("here".into()), ..VerifierOptions::default() };
    all_are("accepted", &audience, &[ann(r#","aud":"here""#), ann(r#","aud":["there","here"],"iss":"anyone""#)]);
    all_are(
        "audience",
        &audience,
        &[
            ann(""),
            ann(r#","aud":null"#),
            ann(r#","aud":[]"#),
            ann(r#","aud":5"#),
            ann(r#","aud":"there""#),
            ann(r#","aud":"here,there""#),
            ann(r#","aud":["there","Here"]"#),
            ann(r#","aud":{"here":"here"}"#),
        ],
    );
    all_are(
        "accepted",
        &VerifierOptions::default(),
        &[ann(r#","aud":"there","iss":"anyone""#), ann(r#","aud":5,"iss":5"#)],
    );
}

#[test]
fn a_token_names_a_user_that_can_be_one() {
    let in_an_hour = get_current_timestamp() + 3600;
    let named = |identity: &str| claims(&format!(r#"{{"email":{identity},"exp":{in_an_hour}}}"#));
    let options = VerifierOptions::default();
    let unicode =
        verify_with(options.clone(), &named(r#""J\u00f6rg@b\u00fccher.example""#)).expect("a name in any script");
    assert_eq!(unicode.identity(), "Jörg@bücher.example");
    all_are(
        "identity",
        &options,
        &[
            claims(&format!(r#"{{"sub":"ann","exp":{in_an_hour}}}"#)),
            claims(&format!(r#"{{"Email":"ann@example.org","exp":{in_an_hour}}}"#)),
            named("null"),
            named("5"),
            named("true"),
            named(r#"["ann@example.org"]"#),
            named(r#""""#),
            named(r#""  ""#),
            named(r#""ann\u0000@example.org""#),
            named(r#""ann@example.org\r\nX-Admin: 1""#),
            named(&format!(r#""{}""#, "a".repeat(255))),
        ],
    );
}

#[test]
fn an_address_that_is_known_to_be_unverified_names_nobody() {
    let options = VerifierOptions::default();
    all_are("accepted", &options, &[ann(r#","email_verified":true"#), ann(r#","email_verified":"true""#)]);
    all_are(
        "identity",
        &options,
        &[
            ann(r#","email_verified":false"#),
            ann(r#","email_verified":"false""#),
            ann(r#","email_verified":0"#),
            ann(r#","email_verified":null"#),
        ],
    );
    let by_subject = VerifierOptions { identity_claim: "sub".into(), ..options };
    all_are("accepted", &by_subject, &[ann(r#","sub":"ann","email_verified":false"#)]);
}

#[test]
fn every_refusal_is_one_plain_sentence() {
    for error in [
        TokenError::Missing,
        TokenError::Malformed("it is too long"),
        TokenError::Expired,
        TokenError::NotYetValid,
        TokenError::Signature,
        TokenError::Algorithm,
        TokenError::UnknownKey,
        TokenError::AmbiguousKey,
        TokenError::KeysAway,
        TokenError::Audience,
        TokenError::Issuer,
        TokenError::Identity,
    ] {
        let text = error.to_string();
        assert!(text.starts_with("Th") && text.ends_with('.') && !text.contains(". "), "{text}");
    }
}
