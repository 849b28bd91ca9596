//! Who may come in: by which secret or by whose keys.

use super::Patient;
use super::finding::{Finding, counted};
use crate::auth::{self, KeySet, KeySource};
use crate::config::KeyLocation;

const SUBJECT: &str = "tokens";

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let secret = match (&config.jwt_secret, &config.jwt_jwks) {
        (Some(_), _) => Some("signed with JWT_SECRET"),
        (None, Some(_)) => None,
        (None, None) => match config.state_directory.join(auth::Secret::FILE).try_exists() {
            Ok(false) => Some("signed with a secret of its own, which the first start makes"),
            Ok(true) | Err(_) => Some("signed with the server's own secret"),
        },
    };
    let secret = secret.map(|how| Finding::ok(SUBJECT, format!("those are accepted that are {how}")));
    secret.into_iter().chain(config.jwt_jwks.as_ref().map(published)).collect()
}

fn published(location: &KeyLocation) -> Finding {
    let mut source = KeySource::new(location);
    match source.load().and_then(|(set, _)| Ok(set.usable()?)) {
        Ok(set) if set.left_out().is_empty() => Finding::ok(SUBJECT, format!("JWT_JWKS has {}", usable(&set))),
        Ok(set) => Finding::warning(
            SUBJECT,
            format!("JWT_JWKS has {}; left out: {}", usable(&set), set.left_out()),
            "ask the issuer for keys of 2048 bits or more, for signatures, by RS256, ES256 or EdDSA: tokens by the others are refused",
        ),
        Err(error) if source.is_file() => Finding::misconfigured(
            SUBJECT,
            format!("JWT_JWKS cannot be used: {error}"),
            "mend the file: a server does not start with it",
        ),
        Err(error) => Finding::fault(
            SUBJECT,
            format!("JWT_JWKS cannot be read now: {error}"),
            "see that this machine reaches the issuer and trusts its certificate (SSL_CERT_FILE): a server that starts now lets \
             nobody in until it can read the keys",
        ),
    }
}

fn usable(set: &KeySet) -> String {
    counted(set.count(), "usable key")
}
