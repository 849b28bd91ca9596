//! Tokens that have been verified, so that a signature is worked out once and not at every request.

use std::sync::Arc;

use jsonwebtoken::get_current_timestamp;
use quick_cache::sync::Cache;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::{Principal, TokenError};

/// How far the issuer's clock may be from ours.
pub(super) const LEEWAY_SECONDS: u64 = 60;

/// More users than a small machine serves within the lifetime of a token; with identities as long as they may be, 4 MB.
const TOKENS_MAX: usize = 10_000;

/// The verified tokens, by their hash: what is kept is good for nothing without the token. Shared without a lock of its own.
pub(super) struct SeenTokens(Cache<Digest, Arc<Seen>>);

pub(super) type Digest = [u8; 32];

/// What a verified token says, and until when that holds.
pub(super) struct Seen {
    pub(super) principal: Principal,
    pub(super) times: Times,
    /// Of the keys it was verified with: a key may be gone from the next set.
    pub(super) generation: u64,
}

impl SeenTokens {
    pub(super) fn new() -> Self {
        Self(Cache::new(TOKENS_MAX))
    }

    pub(super) fn digest(token: &str) -> Digest {
        digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The principal of a token that was verified with the keys of this generation, if it has been; its times are looked at
    /// every time.
    pub(super) fn get(&self, digest: &Digest, generation: u64) -> Option<Result<Principal, TokenError>> {
        let seen = self.0.get(digest).filter(|seen| seen.generation == generation)?;
        let checked = seen.times.check(get_current_timestamp());
        if checked == Err(TokenError::Expired) {
            self.0.remove(digest);
        }
        Some(checked.map(|()| seen.principal.clone()))
    }

    pub(super) fn insert(&self, digest: Digest, seen: Seen) {
        self.0.insert(digest, Arc::new(seen));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// When a token is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) expires: u64,
    pub(super) begins: u64,
}

impl Times {
    /// Of claims that jsonwebtoken has found to be in time; read as it reads them.
    pub(super) fn of(claims: &Map<String, Value>) -> Self {
        let seconds = |name| {
            let value: &Value = claims.get(name)?;
            value.as_u64().or_else(|| value.as_f64().map(|seconds| seconds.round() as u64))
        };
        Self { expires: seconds("exp").unwrap_or(0), begins: seconds("nbf").unwrap_or(0) }
    }

    /// The same question, and the same answers in the same order, as jsonwebtoken asks of a new token.
    pub(super) fn check(self, now: u64) -> Result<(), TokenError> {
        if self.expires < now.saturating_sub(LEEWAY_SECONDS) {
            Err(TokenError::Expired)
        } else if self.begins > now + LEEWAY_SECONDS {
            Err(TokenError::NotYetValid)
        } else {
            Ok(())
        }
    }
}
