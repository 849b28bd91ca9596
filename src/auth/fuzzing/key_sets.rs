//! What holds of every document in which an issuer publishes its keys.

use jsonwebtoken::{Algorithm, get_current_timestamp};
use serde_json::{Map, Value, json};

use super::{base64url, written};
use crate::auth::crypto::ALGORITHMS;
use crate::auth::{KeySet, KeySetError, Keyring, TokenError, Verifier, VerifierOptions};

/// The public keys of the algorithms that there are.
const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// A set has the keys of its document that can verify a token, as another reader sees them: few, none symmetric, private, weak or
/// for another purpose, and none that lets in what nobody signed.
pub fn key_set(document: &[u8]) {
    let read = serde_json::from_slice::<Value>(document).ok();
    let outcome = KeySet::parse(document);
    if let Some(document) = &read {
        // Written anew no name is given twice: then there is nothing that only one of both would read.
        let written = document.to_string();
        let anew = KeySet::parse(written.as_bytes());
        check(document, written.len(), &anew);
        match (&outcome, &anew) {
            (Ok(set), Ok(anew)) => assert!(set.has_the_keys_of(anew) && set.left_out() == anew.left_out()),
            (Err(KeySetError::Unreadable | KeySetError::TooLarge), _) => {}
            (one, other) => assert_eq!(one.as_ref().err(), other.as_ref().err()),
        }
    }
    match outcome {
        Ok(set) => {
            assert!(document.len() <= KeySet::BYTES_MAX && set.count() <= KeySet::KEYS_MAX);
            assert!(set.of(Algorithm::HS256).next().is_none());
            assert_eq!(ALGORITHMS.map(|algorithm| set.of(algorithm).count()).iter().sum::<usize>(), set.count());
            lets_nobody_in(set);
        }
        Err(error) => {
            let is_ours =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && text.len() < 300;
            assert!(is_ours(&error.to_string()), "{error}");
        }
    }
}

/// Holds an outcome against the document.
fn check(document: &Value, bytes: usize, outcome: &Result<KeySet, KeySetError>) {
    let keys = match document.get("keys") {
        _ if bytes > KeySet::BYTES_MAX => return assert_eq!(outcome.as_ref().err(), Some(&KeySetError::TooLarge)),
        Some(Value::Array(keys)) if keys.len() > KeySet::KEYS_MAX => {
            return assert_eq!(outcome.as_ref().err(), Some(&KeySetError::TooMany));
        }
        Some(Value::Array(keys)) => keys,
        _ => return assert_eq!(outcome.as_ref().err(), Some(&KeySetError::Unreadable)),
    };
    let mut usable: Vec<Usable<'_>> = Vec::new();
    for key in keys.iter().filter_map(|key| read(key.as_object()?)) {
        if key.kid.is_none() || usable.iter().all(|earlier| earlier.kid != key.kid) {
            usable.push(key);
        }
    }
    let (set, left_out) = match outcome {
        Ok(set) => (Some(set), set.left_out()),
        Err(KeySetError::NoneUsable(left_out)) => (None, left_out),
        Err(error) => panic!("{error}: {document}"),
    };
    assert_eq!(left_out.len() + usable.len(), keys.len(), "{left_out} of {document}");
    assert_eq!(set.map_or(0, KeySet::count), usable.len(), "{document}");
    for algorithm in PUBLIC {
        let held = set.into_iter().flat_map(|set| set.of(algorithm));
        let held: Vec<_> = held.map(|key| (key.kid.as_deref(), key.numbers())).collect();
        let expected = usable.iter().filter(|key| key.algorithm == algorithm);
        let expected: Vec<_> = expected.map(|key| (key.kid, (&*key.numbers.0, &*key.numbers.1))).collect();
        assert_eq!(held, expected, "{document}");
    }
    for key in &usable {
        assert!(
            key.kid.is_none_or(|kid| set
                .and_then(|set| set.named(kid))
                .is_some_and(|key| PUBLIC.contains(&key.algorithm)))
        );
    }
}

struct Usable<'a> {
    kid: Option<&'a str>,
    algorithm: Algorithm,
    numbers: (Vec<u8>, Vec<u8>),
}

/// A key that can verify a token, by RFC 7517 and RFC 7518; whatever makes it another kind of key makes it none.
fn read(jwk: &Map<String, Value>) -> Option<Usable<'_>> {
    let given = |name: &str| jwk.get(name).filter(|value| !value.is_null());
    let text = |name: &str| given(name).and_then(Value::as_str);
    let is_sound = |name: &&str| given(name).is_none_or(Value::is_string);
    let texts = ["kid", "alg", "use", "crv", "n", "e", "x", "y"].iter().all(is_sound);
    let operations = match given("key_ops") {
        None => true,
        Some(list) => {
            let list = list.as_array()?;
            list.iter().all(Value::is_string) && list.iter().any(|operation| operation == "verify")
        }
    };
    if !texts || !operations || given("d").is_some() || text("use").unwrap_or("sig") != "sig" {
        return None;
    }
    let number = |name: &str| {
        let bytes = base64url(text(name)?)?;
        Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
    };
    let coordinate = |name: &str| base64url(text(name)?).filter(|bytes| bytes.len() == 32);
    let (algorithm, name, numbers) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (number("n")?, number("e")?);
            let bits = 8 * n.len() - n.first()?.leading_zeros() as usize;
            let exponent =
                e.iter().try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()))?;
            let is_exponent = exponent % 2 == 1 && (3..1 << 33).contains(&exponent);
            ((2048..=8192).contains(&bits) && n.last()? % 2 == 1 && is_exponent).then_some(())?;
            (Algorithm::RS256, "RS256", (n, e))
        }
        ("EC", Some("P-256")) => {
            let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
            (Algorithm::ES256, "ES256", (point, Vec::new()))
        }
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", (coordinate("x")?, Vec::new())),
        _ => return None,
    };
    (text("alg").unwrap_or(name) == name).then_some(Usable { kid: text("kid"), algorithm, numbers })
}

/// Asks each key about what nobody signed.
fn lets_nobody_in(set: KeySet) {
    let claims = json!({"email": "ann@example.org", "exp": get_current_timestamp() + 3600}).to_string();
    let named = PUBLIC.map(|algorithm| set.of(algorithm).map(|key| key.kid.clone()).collect::<Vec<_>>());
    let (keyring, _) = Keyring::new();
    assert!(keyring.replace(set));
    let verifier = Verifier::with_keys(None, keyring, VerifierOptions::default());
    for (algorithm, kids) in PUBLIC.into_iter().zip(named) {
        for kid in kids {
            let header = kid.map_or(json!({"alg": algorithm}), |kid| json!({"alg": algorithm, "kid": kid}));
            for signature in [vec![5; 64], vec![5; 256]] {
                let parts = [header.to_string().as_bytes(), claims.as_bytes(), &signature].map(written);
                let outcome = verifier.verify(&[&format!("Bearer {}", parts.join("."))]);
                let expected =
                    [TokenError::Signature, TokenError::AmbiguousKey, TokenError::Malformed("it is longer than 8 KiB")];
                assert!(outcome.is_err_and(|error| expected.contains(&error)));
            }
        }
    }
}
