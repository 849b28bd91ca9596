//! Tokens that are signed with published keys, by friends and enemies; and what is remembered of them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};

use super::issuer::Key;
use super::seen::{LEEWAY_SECONDS, Seen, SeenTokens, Times};
use super::{KeySet, KeySetError, Keyring, Principal, Secret, TokenError, Verifier, VerifierOptions};

const SECRET: &[u8] = b"a secret of more than 32 bytes, shared";

fn document(jwks: &[Value]) -> Vec<u8> {
    json!({"keys": jwks}).to_string().into_bytes()
}

fn set(keys: &[&Key]) -> KeySet {
    KeySet::parse(&document(&keys.iter().map(|key| key.jwk()).collect::<Vec<_>>())).expect("usable keys")
}

fn keyring(keys: &[&Key]) -> Arc<Keyring> {
    let (keyring, _) = Keyring::new();
    keyring.replace(set(keys));
    keyring
}

fn options() -> VerifierOptions {
    VerifierOptions { audience: Some("here".into()), ..VerifierOptions::default() }
}

/// Of these keys alone.
fn verifier(keys: &[&Key]) -> Verifier {
    Verifier::with_keys(None, keyring(keys), options())
}

/// The same with a shared secret beside them.
fn verifier_with_secret(keys: &[&Key]) -> Verifier {
    Verifier::with_keys(Some(&Secret::new(SECRET).expect("it is long enough")), keyring(keys), options())
}

/// What lets `ann@example.org` in, with these changes; null takes away.
fn ann(changes: &Value) -> Value {
    let mut claims = json!({"email": "ann@example.org", "aud": "here", "exp": get_current_timestamp() + 3600});
    for (name, value) in changes.as_object().expect("an object of changes") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

fn good() -> String {
    ann(&json!({})).to_string()
}

fn verify(verifier: &Verifier, token: &str) -> Result<Principal, TokenError> {
    verifier.verify(&[&format!("Bearer {token}")])
}

#[track_caller]
fn answers(expected: &str, verifier: &Verifier, token: &str) {
    // Twice, because the second time it may have been seen before.
    for _ in 0..2 {
        assert_eq!(verify(verifier, token).map_or_else(TokenError::reason, |_| "accepted"), expected);
    }
}

/// A key of each kind.
fn kinds(kid: Option<&str>) -> [Key; 3] {
    [Key::rsa(kid), Key::p256(kid), Key::ed25519(kid)]
}

#[test]
fn each_kind_of_key_verifies_what_it_has_signed_and_nothing_else() {
    let (keys, strangers) = (kinds(Some("a")), [Key::p256(Some("a")), Key::ed25519(Some("a"))]);
    for key in &keys {
        let verifier = verifier(&[key]);
        let now = get_current_timestamp();
        for (expected, changes) in [
            ("accepted", json!({})),
            ("accepted", json!({"aud": ["there", "here"], "email_verified": true})),
            ("accepted", json!({"exp": now - LEEWAY_SECONDS + 5, "nbf": now + LEEWAY_SECONDS - 5})),
            ("expired", json!({"exp": now - LEEWAY_SECONDS - 5})),
            ("not_yet_valid", json!({"nbf": now + LEEWAY_SECONDS + 5})),
            ("malformed", json!({"exp": null})),
            ("malformed", json!({"exp": "tomorrow"})),
            ("audience", json!({"aud": null})),
            ("audience", json!({"aud": "there"})),
            ("identity", json!({"email": null})),
            ("identity", json!({"email_verified": false})),
        ] {
            answers(expected, &verifier, &key.token(&ann(&changes)));
        }
        let token = key.token(&ann(&json!({})));
        assert_eq!(verify(&verifier, &token).map(|ann| ann.identity().to_owned()).as_deref(), Ok("ann@example.org"));
        let parts: Vec<&str> = token.split('.').collect();
        let bob = key.token(&ann(&json!({"email": "bob@example.org"})));
        let bobs: Vec<&str> = bob.split('.').collect();
        answers("signature", &verifier, &[parts[0], bobs[1], parts[2]].join("."));
        answers("signature", &verifier, &[parts[0], parts[1], bobs[2]].join("."));
        answers("signature", &verifier, &[parts[0], parts[1], ""].join("."));
        for stranger in strangers.iter().filter(|stranger| stranger.algorithm() == key.algorithm()) {
            answers("signature", &verifier, &stranger.token(&ann(&json!({}))));
        }
        // Nor is the algorithm the token's choice.
        for other in keys.iter().filter(|other| other.algorithm() != key.algorithm()) {
            answers("algorithm", &verifier, &other.token(&ann(&json!({}))));
            let claimed = format!(r#"{{"alg":"{}","kid":"a"}}"#, key.algorithm());
            answers("signature", &verifier, &other.signed(&claimed, &good()));
        }
        for alg in
            ["none", "None", "HS256", "HS384", "RS384", "RS512", "PS256", "ES384", "ES512", "Ed25519", "RSA-OAEP"]
        {
            answers("algorithm", &verifier, &key.signed(&format!(r#"{{"alg":"{alg}","kid":"a"}}"#), &good()));
        }
    }
}

#[test]
fn examples_of_the_standards_are_verified() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    // RFC 7515 appendices A.2 and A.3, RFC 8037 appendix A.4. The first two expired in 2011 and the third has no claims: both is
    // found out only after the signature was found to be right.
    for (expected, jwk, signed, signature) in [
        (
            "expired",
            Key::rsa(None).jwk(),
            format!("eyJhbGciOiJSUzI1NiJ9.{payload}"),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU\
             Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d\
             O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig\
             cN_IoypGlUPQGe77Rw",
        ),
        (
            "expired",
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                   "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            format!("eyJhbGciOiJFUzI1NiJ9.{payload}"),
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            "malformed",
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let (keyring, _) = Keyring::new();
        keyring.replace(KeySet::parse(&document(&[jwk])).expect("the keys of the RFCs are usable"));
        let verifier = Verifier::with_keys(None, keyring, VerifierOptions::default());
        answers(expected, &verifier, &format!("{signed}.{signature}"));
        let altered = if signature.starts_with('c') { "d" } else { "c" };
        answers("signature", &verifier, &format!("{signed}.{altered}{}", &signature[1..]));
    }
}

#[test]
fn a_public_key_is_never_the_secret_of_an_hmac() {
    for key in kinds(Some("a")) {
        let public = key.public_bytes();
        // PKCS #1 with what tells that it is an RSA key around it (RFC 5280 §4.1): what most files of keys hold.
        let mut wrapped =
            b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0\x03\x82\x01\x0f\0".to_vec();
        wrapped.extend_from_slice(public);
        let pem = |label: &str, der: &[u8]| {
            let text = STANDARD.encode(der);
            let lines: Vec<&str> =
                text.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
        };
        let jwk = key.jwk();
        let numbers = ["n", "x", "y"].into_iter().filter_map(|name| jwk[name].as_str());
        let mut secrets = vec![
            public.to_vec(),
            wrapped.clone(),
            pem("PUBLIC KEY", &wrapped),
            pem("RSA PUBLIC KEY", public),
            pem("PUBLIC KEY", public),
            jwk.to_string().into_bytes(),
            document(std::slice::from_ref(&jwk)),
            Vec::new(),
        ];
        secrets.extend(numbers.clone().map(|number| number.as_bytes().to_vec()));
        secrets.extend(numbers.map(|number| super::key_set::decoded(Some(number)).expect("base64url")));
        secrets.extend(secrets.clone().into_iter().map(|secret| secret.trim_ascii().to_vec()));
        for secret in secrets {
            let forger = Key::secret(&secret);
            for header in [r#"{"alg":"HS256","kid":"a"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"b"}"#] {
                answers("algorithm", &verifier(&[&key]), &forger.signed(header, &good()));
            }
            let both = verifier_with_secret(&[&key]);
            answers("algorithm", &both, &forger.signed(r#"{"alg":"HS256","kid":"a"}"#, &good()));
            answers("signature", &both, &forger.signed(r#"{"alg":"HS256"}"#, &good()));
            let claimed = format!(r#"{{"alg":"{}","kid":"a"}}"#, key.algorithm());
            answers("signature", &both, &forger.signed(&claimed, &good()));
        }
    }
}

#[test]
fn a_name_chooses_the_key_and_without_one_a_single_key_must_fit() {
    let [rsa, p256, ed25519] = [Key::rsa(Some("r")), Key::p256(Some("e")), Key::ed25519(Some("d"))];
    let second = Key::p256(Some("second"));
    let nameless = |key: &Key| key.signed(&format!(r#"{{"alg":"{}"}}"#, key.algorithm()), &good());
    let named =
        |key: &Key, kid: &str| key.signed(&format!(r#"{{"alg":"{}","kid":"{kid}"}}"#, key.algorithm()), &good());

    let one_each = verifier(&[&rsa, &p256, &ed25519]);
    for key in [&rsa, &p256, &ed25519] {
        answers("accepted", &one_each, &key.token(&ann(&json!({}))));
        answers("accepted", &one_each, &nameless(key));
        answers("key", &one_each, &named(key, "unknown"));
        answers("key", &one_each, &named(key, ""));
    }
    answers("algorithm", &one_each, &named(&p256, "r"));
    answers("algorithm", &one_each, &named(&rsa, "d"));
    answers("signature", &one_each, &named(&second, "e"));
    answers("signature", &one_each, &nameless(&second));

    let two = verifier(&[&p256, &second]);
    answers("key", &two, &nameless(&p256));
    answers("key", &two, &nameless(&second));
    answers("accepted", &two, &named(&second, "second"));
    answers("signature", &two, &named(&second, "e"));
    answers("algorithm", &two, &nameless(&rsa));
}

#[test]
fn the_secret_is_the_key_of_hs256_whatever_its_name() {
    let (key, shared) = (Key::p256(Some("e")), Key::secret(SECRET));
    let both = verifier_with_secret(&[&key]);
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"ours"}"#] {
        answers("accepted", &both, &shared.signed(header, &good()));
        answers("algorithm", &verifier(&[&key]), &shared.signed(header, &good()));
    }
    answers("accepted", &both, &key.token(&ann(&json!({}))));
    answers("algorithm", &both, &shared.signed(r#"{"alg":"HS256","kid":"e"}"#, &good()));
    answers("key", &both, &key.signed(r#"{"alg":"ES256","kid":"ours"}"#, &good()));
    answers("audience", &both, &shared.token(&ann(&json!({"aud": null}))));
}

#[test]
fn nothing_that_a_token_brings_along_is_followed() {
    let (key, stranger) = (Key::p256(Some("a")), Key::p256(Some("stranger")));
    let verifier = verifier(&[&key]);
    let strangers = [
        json!({"jwk": stranger.jwk()}),
        json!({"jku": "https://127.0.0.1:1/keys"}),
        json!({"x5u": "https://127.0.0.1:1/certificate", "x5t": "AAAA"}),
        json!({"x5c": [STANDARD.encode(stranger.public_bytes())]}),
    ];
    for more in strangers {
        for kid in [Some("a"), Some("stranger"), None] {
            let mut header = more.clone();
            header["alg"] = "ES256".into();
            if let Some(kid) = kid {
                header["kid"] = kid.into();
            }
            let expected = if kid == Some("stranger") { "key" } else { "signature" };
            answers(expected, &verifier, &stranger.signed(&header.to_string(), &good()));
            let expected = if kid == Some("stranger") { "key" } else { "accepted" };
            answers(expected, &verifier, &key.signed(&header.to_string(), &good()));
            header["crit"] = json!(["jku"]);
            answers("malformed", &verifier, &key.signed(&header.to_string(), &good()));
        }
    }
}

#[test]
fn a_key_that_cannot_verify_tokens_is_left_out_and_told() {
    let (usable, rsa) = (Key::p256(Some("usable")), Key::rsa(Some("r")).jwk());
    let changed = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let long = |bytes: usize| super::token_tests::base64url(&vec![0xff; bytes]);
    let p256 = Key::p256(Some("e")).jwk();
    for (why, jwk) in [
        ("symmetric", json!({"kty": "oct", "k": "c2VjcmV0", "kid": "o", "alg": "HS256"})),
        ("for another purpose", changed(&p256, "use", "enc".into())),
        ("for another purpose", changed(&p256, "key_ops", json!(["sign"]))),
        ("for another purpose", changed(&p256, "key_ops", json!([]))),
        ("for another algorithm", changed(&rsa, "alg", "RS512".into())),
        ("for another algorithm", changed(&rsa, "alg", "PS256".into())),
        ("for another algorithm", changed(&rsa, "alg", "HS256".into())),
        ("for another algorithm", changed(&p256, "alg", "RS256".into())),
        ("for another algorithm", changed(&p256, "alg", "anything".into())),
        ("of another curve", changed(&p256, "crv", "P-384".into())),
        ("of another curve", changed(&p256, "crv", Value::Null)),
        ("of another curve", json!({"kty": "OKP", "crv": "X25519", "x": p256["x"]})),
        ("of an unknown type", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"})),
        ("private", changed(&p256, "d", p256["x"].clone())),
        ("too weak", changed(&rsa, "n", long(128).into())),
        ("too weak", changed(&rsa, "n", long(255).into())),
        ("too long", changed(&rsa, "n", long(1025).into())),
        ("impossible", changed(&rsa, "e", "AQ".into())),
        ("impossible", changed(&rsa, "e", "Ag".into())),
        ("impossible", changed(&rsa, "e", "AAAA".into())),
        ("impossible", changed(&rsa, "e", "A_____8".into())),
        ("impossible", changed(&p256, "x", "AQAB".into())),
        ("unreadable", changed(&p256, "x", Value::Null)),
        ("unreadable", changed(&p256, "y", "not base64!".into())),
        ("unreadable", changed(&rsa, "n", 5.into())),
        ("unreadable", json!({"kid": "no type"})),
        ("unreadable", json!("a text")),
        ("unreadable", json!(["OKP", "list", "EdDSA", "sig", null, "Ed25519", null, null, p256["x"], null, null])),
        ("unreadable", Value::Null),
        ("repeated", changed(&p256, "kid", "usable".into())),
    ] {
        let set = KeySet::parse(&document(&[usable.jwk(), jwk.clone()])).expect("one is usable");
        assert_eq!((set.count(), set.left_out().to_string()), (1, format!("1 {why}")), "{jwk}");
        if why != "repeated" {
            let alone =
                KeySet::parse(&document(&[jwk])).and_then(KeySet::usable).expect_err("none is usable").to_string();
            assert_eq!(alone, format!("it has no key that could verify a token (left out: 1 {why})"));
        }
    }
    // Of a name that is given twice the first usable key counts, wherever the other one stands.
    let other = Key::p256(Some("usable"));
    answers("accepted", &verifier(&[&usable, &other]), &usable.token(&ann(&json!({}))));
    answers("signature", &verifier(&[&usable, &other]), &other.token(&ann(&json!({}))));
    // What issuers also write.
    for jwk in [
        changed(&rsa, "n", format!("AAAA{}", rsa["n"].as_str().expect("a number")).into()),
        changed(&rsa, "key_ops", json!(["verify", "encrypt"])),
        json!({"kty": "RSA", "n": rsa["n"], "e": rsa["e"], "x5c": ["MIIB"], "x5t#S256": "AAAA", "issuer": {"a": [1]}}),
    ] {
        let set = KeySet::parse(&document(&[jwk])).expect("a usable key");
        assert!(set.count() == 1 && set.left_out().is_empty());
    }
}

#[test]
fn a_document_is_bounded_and_has_a_usable_key() {
    let key = Key::ed25519(Some("a")).jwk();
    for unreadable in ["", "{", "[]", "null", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, "<html>", r#"{"keys":[]} x"#]
    {
        assert_eq!(KeySet::parse(unreadable.as_bytes()).err(), Some(KeySetError::Unreadable), "{unreadable}");
    }
    let in_a_list = json!([[key]]).to_string();
    assert_eq!(KeySet::parse(in_a_list.as_bytes()).err(), Some(KeySetError::Unreadable));
    let deep = format!(r#"{{"keys":[{}{}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(KeySet::parse(deep.as_bytes()).err(), Some(KeySetError::Unreadable));
    let none = KeySet::parse(br#"{"keys":[]}"#).and_then(KeySet::usable).expect_err("there is no key");
    assert_eq!(none.to_string(), "it has no key that could verify a token");
    let many = |count| (0..count).map(|n| json!({"kid": n.to_string(), "kty": "OKP", "crv": "Ed25519", "x": key["x"]}));
    assert_eq!(KeySet::parse(&document(&many(100).collect::<Vec<_>>())).map(|set| set.count()).ok(), Some(100));
    assert_eq!(KeySet::parse(&document(&many(101).collect::<Vec<_>>())).err(), Some(KeySetError::TooMany));
    let padded = |bytes: usize| {
        let mut document = document(std::slice::from_ref(&key));
        document.resize(bytes, b' ');
        KeySet::parse(&document).map(|set| set.count())
    };
    assert_eq!(padded(KeySet::BYTES_MAX), Ok(1));
    assert_eq!(padded(KeySet::BYTES_MAX + 1), Err(KeySetError::TooLarge));
}

#[test]
fn without_keys_a_good_token_is_not_called_bad_and_keys_are_asked_for() {
    let key = Key::p256(Some("a"));
    let (keyring, woken) = Keyring::new();
    let verifier = Verifier::with_keys(None, Arc::clone(&keyring), options());
    assert!(verifier.awaits_keys());
    let token = key.token(&ann(&json!({})));
    assert_eq!(verify(&verifier, &token), Err(TokenError::KeysAway));
    assert!(woken.try_recv().is_ok());
    // What no key could mend is told all the same.
    answers("malformed", &verifier, "a.b.c");
    answers("algorithm", &verifier, &key.signed(r#"{"alg":"none"}"#, &good()));
    answers("algorithm", &verifier, &Key::secret(SECRET).token(&ann(&json!({}))));
    keyring.forget_missed();
    keyring.replace(set(&[&key]));
    assert!(!verifier.awaits_keys());
    answers("accepted", &verifier, &token);
    answers("algorithm", &verifier, &Key::rsa(Some("a")).token(&ann(&json!({}))));
    assert!(woken.try_recv().is_err(), "nothing is missing");
    answers("key", &verifier, &Key::p256(Some("new")).token(&ann(&json!({}))));
    assert!(woken.try_recv().is_ok() && woken.try_recv().is_err(), "asked for once");
    // With a secret there is somebody to let in before there are keys.
    let secret = Secret::new(SECRET).expect("it is long enough");
    let verifier = Verifier::with_keys(Some(&secret), Keyring::new().0, options());
    assert!(!verifier.awaits_keys());
    answers("accepted", &verifier, &Key::secret(SECRET).token(&ann(&json!({}))));
}

#[test]
fn a_set_without_keys_lets_nobody_in_and_keys_are_asked_for() {
    let (named, unnamed) = (Key::p256(Some("a")), Key::ed25519(None));
    let (keyring, woken) = Keyring::new();
    keyring.replace(set(&[&named, &unnamed]));
    let verifier = Verifier::with_keys(None, Arc::clone(&keyring), options());
    let tokens = [&named, &unnamed].map(|key| key.token(&ann(&json!({}))));
    for token in &tokens {
        answers("accepted", &verifier, token);
    }
    keyring.replace(KeySet::parse(&document(&[])).expect("a document"));
    for token in &tokens {
        assert!(verifier.awaits_keys());
        answers("key", &verifier, token);
        assert!(woken.try_recv().is_ok());
        keyring.forget_missed();
    }
    answers("algorithm", &verifier, &Key::secret(SECRET).token(&ann(&json!({}))));
    assert!(woken.try_recv().is_err(), "nothing that could be published is missing");
}

#[test]
fn a_key_that_was_chosen_without_a_name_and_does_not_fit_is_asked_for() {
    let (old, new, other) = (Key::p256(None), Key::p256(None), Key::ed25519(None));
    let (keyring, woken) = Keyring::new();
    keyring.replace(set(&[&old]));
    let secret = Secret::new(SECRET).expect("it is long enough");
    let verifier = Verifier::with_keys(Some(&secret), Arc::clone(&keyring), options());
    for (expected, is_asked, key) in [
        ("accepted", false, &old),
        ("signature", true, &new),
        ("algorithm", true, &other),
        ("signature", false, &Key::secret(b"another")),
    ] {
        answers(expected, &verifier, &key.token(&ann(&json!({}))));
        assert_eq!(woken.try_recv().is_ok(), is_asked, "{expected}");
        keyring.forget_missed();
    }
    answers("expired", &verifier, &old.token(&ann(&json!({"exp": 1}))));
    assert!(woken.try_recv().is_err(), "the key fits");
    // One that is named would have another name.
    let named = Key::p256(Some("a"));
    keyring.replace(set(&[&named]));
    answers("signature", &verifier, &Key::p256(Some("a")).token(&ann(&json!({}))));
    assert!(woken.try_recv().is_err(), "the key is there");
}

#[test]
fn a_token_that_was_seen_is_accepted_no_longer_than_its_key_is_there() {
    let (old, new) = (Key::p256(Some("old")), Key::p256(Some("new")));
    let keyring = keyring(&[&old]);
    let secret = Secret::new(SECRET).expect("it is long enough");
    let verifier = Verifier::with_keys(Some(&secret), Arc::clone(&keyring), options());
    let [olds, news] = [&old, &new].map(|key| key.token(&ann(&json!({}))));
    let shared = Key::secret(SECRET).token(&ann(&json!({})));
    answers("accepted", &verifier, &olds);
    answers("accepted", &verifier, &shared);
    assert!(!keyring.replace(set(&[&old])), "the same keys");
    answers("accepted", &verifier, &olds);
    assert!(keyring.replace(set(&[&old, &new])));
    for token in [&olds, &news, &shared] {
        answers("accepted", &verifier, token);
    }
    assert!(keyring.replace(set(&[&new])));
    answers("key", &verifier, &olds);
    answers("accepted", &verifier, &news);
    // Another key of the same name.
    assert!(keyring.replace(set(&[&Key::p256(Some("new"))])));
    answers("signature", &verifier, &news);
    answers("accepted", &verifier, &shared);
}

#[test]
fn a_token_that_was_seen_is_asked_for_its_times_every_time() {
    let now = get_current_timestamp();
    let seen = SeenTokens::new();
    let principal = Principal::new("ann@example.org").expect("a proper identity");
    for (expires, begins, expected) in [
        (now - LEEWAY_SECONDS + 5, 0, Ok(principal.clone())),
        (now - LEEWAY_SECONDS - 1, 0, Err(TokenError::Expired)),
        (now + 5, now + LEEWAY_SECONDS - 5, Ok(principal.clone())),
        (now + 5, now + LEEWAY_SECONDS + 5, Err(TokenError::NotYetValid)),
        (u64::MAX, 0, Ok(principal.clone())),
        (0, u64::MAX, Err(TokenError::Expired)),
    ] {
        let digest = SeenTokens::digest("a token");
        seen.insert(digest, Seen { principal: principal.clone(), times: Times { expires, begins }, generation: 1 });
        assert_eq!(seen.get(&digest, 1), Some(expected), "{expires} {begins}");
        assert_eq!(seen.get(&digest, 2), None, "of other keys");
    }
    for (claims, expires, begins) in [
        (json!({"exp": 5}), 5, 0),
        (json!({"exp": 5.5, "nbf": 1.4}), 6, 1),
        (json!({"exp": u64::MAX, "nbf": 3}), u64::MAX, 3),
    ] {
        assert_eq!(Times::of(claims.as_object().expect("an object")), Times { expires, begins });
    }
    let edge = Times { expires: 1000, begins: 1000 };
    for (now, expected) in [
        (939, Err(TokenError::NotYetValid)),
        (940, Ok(())),
        (1000, Ok(())),
        (1060, Ok(())),
        (1061, Err(TokenError::Expired)),
    ] {
        assert_eq!(edge.check(now), expected, "{now}");
    }
}

#[test]
fn only_so_many_tokens_are_remembered_and_only_good_ones() {
    let key = Key::secret(SECRET);
    let verifier = Verifier::new(&Secret::new(SECRET).expect("it is long enough"), options());
    for n in 0..100 {
        answers("identity", &verifier, &key.token(&ann(&json!({"email": null, "n": n}))));
        answers("signature", &verifier, &Key::secret(b"another").token(&ann(&json!({"n": n}))));
    }
    assert_eq!(verifier.seen_tokens(), 0);
    let token = |n: u32| key.token(&ann(&json!({"n": n})));
    for n in 0..12_000 {
        assert!(verify(&verifier, &token(n)).is_ok());
    }
    assert!((5_000..=10_000).contains(&verifier.seen_tokens()), "{}", verifier.seen_tokens());
}
