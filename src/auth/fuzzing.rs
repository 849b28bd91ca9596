//! What holds of every `Authorization` header, whoever makes it up.

use std::sync::LazyLock;

use jsonwebtoken::get_current_timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Principal, Secret, TokenError, Verifier, VerifierOptions};

/// The secret of the corpus.
pub const SECRET: &str = "a secret of more than 32 bytes, shared";

const ISSUER: &str = "https://issuer";
const AUDIENCE: &str = "here";

/// How far an issuer's clock may be from ours, and a second that passes meanwhile.
const LEEWAY_SECONDS: f64 = 61.0;

/// Whoever is let in has a token that somebody signed who may, in time, for this server, and with a name.
///
/// The lines are `Authorization` headers, each ended by a line feed. Where the first line has a tab, it is no header but
/// the two texts of a token, which is signed here: so that what is behind the signature is reached as well.
pub fn tokens(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some((header, payload)) = lines.first().and_then(|line| line.split_once('\t')) {
        lines[0] = format!("Bearer {}", signed(header, payload));
    }
    let headers: Vec<&str> = lines.iter().map(String::as_str).collect();
    for (verifier, is_strict) in &*VERIFIERS {
        check(&headers, &verifier.verify(&headers), &|message, signature| hmac(message) == signature, *is_strict);
    }
}

static VERIFIERS: LazyLock<[(Verifier, bool); 2]> = LazyLock::new(|| {
    let secret = Secret::new(SECRET).expect("it is long enough");
    let strict = VerifierOptions {
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        ..VerifierOptions::default()
    };
    [(Verifier::new(&secret, VerifierOptions::default()), false), (Verifier::new(&secret, strict), true)]
});

/// Holds an outcome against what the headers say; `is_signed` is a second opinion on the signature.
fn check(
    headers: &[&str],
    outcome: &Result<Principal, TokenError>,
    is_signed: &dyn Fn(&[u8], &[u8]) -> bool,
    is_strict: bool,
) {
    let principal = match outcome {
        Ok(principal) => principal,
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.ends_with('.') && !error.reason().is_empty());
            assert_eq!(headers.is_empty(), *error == TokenError::Missing);
            let secrets = headers.iter().flat_map(|header| header.split([' ', '.'])).filter(|part| part.len() > 20);
            assert!(!secrets.into_iter().any(|part| sentence.contains(part)), "{sentence}");
            return;
        }
    };
    let [header] = headers else { panic!("{} headers were taken for one", headers.len()) };
    let token = header.trim_matches([' ', '\t']).split_at(6).1.trim_start_matches(' ');
    let parts: Vec<&str> = token.split('.').collect();
    let [head, payload, signature] = parts[..] else { panic!("{token} has three parts") };
    let decoded = |part: &str| base64url(part).unwrap_or_else(|| panic!("{part} is base64url"));
    assert!(is_signed(format!("{head}.{payload}").as_bytes(), &decoded(signature)), "nobody signed {token}");
    let object = |part: &str| -> Map<String, Value> { serde_json::from_slice(&decoded(part)).expect("an object") };
    let (head, claims) = (object(head), object(payload));
    assert!(head["alg"] == "HS256" && !head.contains_key("crit"), "{head:?}");
    let now = get_current_timestamp() as f64;
    assert!(claims["exp"].as_f64().is_some_and(|exp| exp > now - LEEWAY_SECONDS), "{claims:?}");
    assert!(
        claims.get("nbf").is_none_or(|nbf| nbf.as_f64().is_some_and(|nbf| nbf < now + LEEWAY_SECONDS)),
        "{claims:?}"
    );
    assert_eq!(claims["email"].as_str(), Some(principal.identity()));
    let name = principal.identity();
    assert!(!name.trim().is_empty() && name.len() <= Principal::IDENTITY_BYTES_MAX && !name.contains(char::is_control));
    assert!(claims.get("email_verified").is_none_or(|verified| *verified == true || *verified == "true"), "{claims:?}");
    if is_strict {
        let names = |claim: &str, name: &str| match &claims[claim] {
            Value::Array(all) => all.iter().any(|one| one == name),
            one => one == name,
        };
        assert!(names("iss", ISSUER) && names("aud", AUDIENCE), "{claims:?}");
    }
}

/// A token of any two texts.
pub fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", written(header.as_bytes()), written(payload.as_bytes()));
    let signature = written(&hmac(message.as_bytes()));
    format!("{message}.{signature}")
}

/// HMAC-SHA256 with [`SECRET`], straight down from RFC 2104.
fn hmac(message: &[u8]) -> [u8; 32] {
    let key = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(SECRET.bytes()).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(key(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(key(0x5c)).chain_update(inner).finalize().into()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn written(bytes: &[u8]) -> String {
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = move |index: usize| char::from(DIGITS[(bits >> (18 - 6 * index)) as usize & 63]);
        (0..=chunk.len()).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(digits).collect()
}

/// The bytes that this is in base64url without padding; `None` where another text stands for the same.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte);
        let bits = chunk.iter().try_fold(0, |bits, byte| Some(bits << 6 | digit(byte)?))? << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&(bits as u32).to_be_bytes()[1..chunk.len()]);
    }
    (written(&bytes) == text).then_some(bytes)
}
