//! Tokens of the server's own making: `holdfast token` and the first address that it prints.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Map, Value};

use super::{IdentityError, Principal, Secret, VerifierOptions};

/// Signs a token for `identity` that a [`Verifier`](super::Verifier) with the same secret and options accepts until
/// `expires_in` is over.
pub fn issue(
    secret: &Secret,
    options: &VerifierOptions,
    identity: &str,
    expires_in: Duration,
) -> Result<String, IdentityError> {
    super::crypto::install();
    let principal = Principal::new(identity)?;
    let now = get_current_timestamp();
    let mut claims = Map::new();
    claims.insert(options.identity_claim.clone(), principal.identity().into());
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), now.saturating_add(expires_in.as_secs()).into());
    if let Some(issuer) = &options.issuer {
        claims.insert("iss".into(), issuer.as_str().into());
    }
    if let Some(audience) = &options.audience {
        claims.insert("aud".into(), audience.as_str().into());
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    Ok(encode(&Header::new(Algorithm::HS256), &Value::Object(claims), &key)
        .expect("a JSON object can be written and an HMAC takes a key of any length"))
}
