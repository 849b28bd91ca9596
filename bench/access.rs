//! What it costs to let a request in: verifying tokens that were seen before and tokens that were not. Run it by `bench/access`.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, whose output is its purpose")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use figure::{median, tell, verdict};
use holdfast::auth::{KeySet, Keyring, Secret, Verifier, VerifierOptions};
use issuer::Key;
use serde_json::json;

#[path = "peers/src/figure.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "each who includes it uses a part")]
mod figure;
#[path = "../src/auth/issuer.rs"]
#[allow(dead_code, reason = "each who includes it uses a part")]
mod issuer;

const ROUNDS: usize = 21;
const SECRET: &[u8] = b"what the tokens of this measurement are signed with";
/// New tokens of a round; each is new only once.
const TOKENS: usize = 200;
const SEEN_TARGET_US: f64 = 15.0;
/// Of RS256, which nearly all issuers use.
const NEW_TARGET_US: f64 = 120.0;

/// Verifying the `Authorization` header of a request, as large as identity providers write it.
fn main() -> ExitCode {
    let keys = [Key::secret(SECRET), Key::rsa(Some("rsa")), Key::p256(Some("p256")), Key::ed25519(Some("ed25519"))];
    let jwks: Vec<_> = keys[1..].iter().map(Key::jwk).collect();
    let set = KeySet::parse(json!({"keys": jwks}).to_string().as_bytes()).expect("usable keys");
    let (keyring, _) = Keyring::new();
    keyring.replace(set);
    let options = VerifierOptions {
        issuer: Some("https://accounts.google.com".into()),
        audience: Some("a-client.apps.googleusercontent.com".into()),
        ..VerifierOptions::default()
    };
    let secret = Secret::new(SECRET).expect("it is long enough");
    let verifier = Verifier::with_keys(Some(&secret), keyring, options);
    let verify = |bearer: &str| assert!(verifier.verify(&[black_box(bearer)]).is_ok(), "the token is good");
    let mut count = 0;
    let mut bearer = |key: &Key| {
        count += 1;
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + Duration::from_secs(3600);
        let claims = json!({
            "iss": "https://accounts.google.com",
            "azp": "a-client.apps.googleusercontent.com",
            "aud": "a-client.apps.googleusercontent.com",
            "sub": "110169484474386276334",
            "email": "ann@example.org",
            "email_verified": true,
            "name": "Ann",
            "jti": count.to_string(),
            "exp": expires.as_secs(),
        });
        format!("Bearer {}", key.token(&claims))
    };
    let known: Vec<String> = keys.iter().map(&mut bearer).collect();
    let mut seen = vec![Vec::new(); keys.len()];
    let mut new = vec![Vec::new(); keys.len()];
    for _ in 0..ROUNDS {
        for (at, key) in keys.iter().enumerate() {
            let fresh: Vec<String> = (0..TOKENS).map(|_| bearer(key)).collect();
            let begun = Instant::now();
            for bearer in &fresh {
                verify(bearer);
            }
            new[at].push(begun.elapsed().as_secs_f64() * 1e6 / TOKENS as f64);
            verify(&known[at]);
            let begun = Instant::now();
            (0..10 * TOKENS).for_each(|_| verify(&known[at]));
            seen[at].push(begun.elapsed().as_secs_f64() * 1e6 / (10 * TOKENS) as f64);
        }
    }
    let mut met = true;
    for ((key, seen), new) in keys.iter().zip(seen).zip(new) {
        let algorithm = key.algorithm();
        met &= verdict(&format!("a token that was seen before, {algorithm}"), median(seen), "us", SEEN_TARGET_US);
        let (what, new) = (format!("a new token, {algorithm}"), median(new));
        if algorithm == "RS256" {
            met &= verdict(&what, new, "us", NEW_TARGET_US);
        } else {
            tell(&what, new, "us");
        }
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
