//! Whether a bearer token is ours, in time, meant for this server, and whom it names.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::crypto::{self, ALGORITHMS};
use super::key_set::PublicKey;
use super::keyring::Current;
use super::seen::{LEEWAY_SECONDS, Seen, SeenTokens, Times};
use super::{Keyring, Principal, Secret};

/// Verifies bearer tokens: those signed with a shared secret (HS256) and those signed with the keys that an issuer publishes
/// (RS256, ES256, EdDSA), whichever of the two there is. Shared by all http threads.
pub struct Verifier {
    secret: Option<DecodingKey>,
    keyring: Option<Arc<Keyring>>,
    /// What a token must say, for each of [`ALGORITHMS`].
    validations: [Validation; ALGORITHMS.len()],
    identity_claim: String,
    seen: SeenTokens,
}

/// What a token must say besides being signed and in time.
#[derive(Clone, Debug)]
pub struct VerifierOptions {
    /// The `iss` that a token must carry; unset, it is not looked at.
    pub issuer: Option<String>,
    /// An `aud` that a token must carry. Unset, tokens for any audience are accepted, because whoever holds the shared
    /// secret was trusted with this server. A key that signs for several services needs an audience.
    pub audience: Option<String>,
    /// The claim that names the user. When it is `email`, an `email_verified` that is not true refuses the token.
    pub identity_claim: String,
}

impl Default for VerifierOptions {
    fn default() -> Self {
        Self { issuer: None, audience: None, identity_claim: EMAIL.to_owned() }
    }
}

const EMAIL: &str = "email";

/// Tokens of identity providers have one or two KB; a larger one is refused before it is decoded.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

impl Verifier {
    /// A verifier for tokens signed with `secret`.
    pub fn new(secret: &Secret, options: VerifierOptions) -> Self {
        Self::with(Some(secret), None, options)
    }

    /// A verifier for tokens signed with one of the keys of `keyring` as they are then, and with `secret` if there is one.
    pub fn with_keys(secret: Option<&Secret>, keyring: Arc<Keyring>, options: VerifierOptions) -> Self {
        Self::with(secret, Some(keyring), options)
    }

    fn with(secret: Option<&Secret>, keyring: Option<Arc<Keyring>>, options: VerifierOptions) -> Self {
        crypto::install();
        Self {
            secret: secret.map(|secret| DecodingKey::from_secret(secret.as_bytes())),
            keyring,
            validations: ALGORITHMS.map(|algorithm| validation(algorithm, &options)),
            identity_claim: options.identity_claim,
            seen: SeenTokens::new(),
        }
    }

    /// The principal of a request, given all of its `Authorization` headers. Neither blocks nor does I/O; addresses and
    /// keys inside the token (`jku`, `x5u`, `jwk`, `x5c`) are never followed.
    pub fn verify(&self, authorization_headers: &[&str]) -> Result<Principal, TokenError> {
        let token = bearer_token(authorization_headers)?;
        let digest = SeenTokens::digest(token);
        if let Some(seen) = self.seen.get(&digest, self.keyring.as_ref().map_or(0, |keyring| keyring.generation())) {
            return seen;
        }
        let header = read_header(token)?;
        let current = self.keyring.as_ref().map_or_else(Current::default, |keyring| keyring.current());
        let (algorithm, key) = self.choose(&header, &current)?;
        let validation = ALGORITHMS.iter().position(|known| *known == algorithm).map(|at| &self.validations[at]);
        let decoded = jsonwebtoken::decode::<Claims>(token, key, validation.ok_or(TokenError::Algorithm)?);
        let claims = match decoded.map_err(TokenError::from) {
            Ok(decoded) => decoded.claims,
            // The key was the only one to choose, and may have been followed by another.
            Err(TokenError::Signature) if header.kid.is_none() && algorithm != Algorithm::HS256 => {
                return Err(self.missing(&current, TokenError::Signature));
            }
            Err(error) => return Err(error),
        };
        let times = Times::of(&claims.0);
        let principal = self.principal(claims)?;
        self.seen.insert(digest, Seen { principal: principal.clone(), times, generation: current.generation });
        Ok(principal)
    }

    /// The one key that may verify a token with this header, and the algorithm of that key. Of the token's `alg` no more is
    /// used than that it must be the same.
    fn choose<'a>(
        &'a self,
        header: &TokenHeader,
        current: &'a Current,
    ) -> Result<(Algorithm, &'a DecodingKey), TokenError> {
        let algorithm =
            header.alg.parse().ok().filter(|known| ALGORITHMS.contains(known)).ok_or(TokenError::Algorithm)?;
        let secret = self.secret.as_ref().filter(|_| algorithm == Algorithm::HS256);
        let set = current.set.as_deref();
        let public = |key: &'a PublicKey| (key.algorithm, &key.key);
        let named = header.kid.as_deref().and_then(|kid| set?.named(kid));
        match (named, secret, set) {
            (Some(key), ..) if key.algorithm == algorithm => Ok(public(key)),
            (Some(_), ..) => Err(TokenError::Algorithm),
            // Its name is between whoever shares it.
            (None, Some(secret), _) => Ok((Algorithm::HS256, secret)),
            // Nothing that could be published would verify it, and without a place of published keys nothing is.
            _ if algorithm == Algorithm::HS256 || self.keyring.is_none() => Err(TokenError::Algorithm),
            (None, None, None) => Err(self.missing(current, TokenError::KeysAway)),
            (None, None, Some(_)) if header.kid.is_some() => Err(self.missing(current, TokenError::UnknownKey)),
            (None, None, Some(set)) => {
                let mut fitting = set.of(algorithm);
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => Ok(public(key)),
                    (Some(_), Some(_)) => Err(TokenError::AmbiguousKey),
                    (None, _) if set.count() == 0 => Err(self.missing(current, TokenError::UnknownKey)),
                    (None, _) => Err(self.missing(current, TokenError::Algorithm)),
                }
            }
        }
    }

    /// Has the keys refreshed, soon and by another thread, unless they are newer than these already.
    fn missing(&self, current: &Current, error: TokenError) -> TokenError {
        if let Some(keyring) = &self.keyring {
            keyring.miss(current.generation);
        }
        error
    }

    #[cfg(test)]
    pub(super) fn seen_tokens(&self) -> usize {
        self.seen.len()
    }

    /// Why the published keys are not as they should be, if so.
    pub fn keys_trouble(&self) -> Option<Arc<str>> {
        self.keyring.as_ref().and_then(|keyring| keyring.trouble())
    }

    /// Whether there is nothing to verify tokens with, not yet or not any more.
    pub fn awaits_keys(&self) -> bool {
        self.secret.is_none() && self.keyring.as_ref().is_some_and(|keyring| keyring.count().unwrap_or(0) == 0)
    }

    fn principal(&self, Claims(mut claims): Claims) -> Result<Principal, TokenError> {
        if self.identity_claim == EMAIL && !claims.get("email_verified").is_none_or(says_true) {
            return Err(TokenError::Identity);
        }
        match claims.remove(&self.identity_claim) {
            Some(Value::String(identity)) => Principal::new(identity).map_err(|_| TokenError::Identity),
            _ => Err(TokenError::Identity),
        }
    }
}

/// Why a request is not let in. The text is one sentence for the client and repeats nothing that the token contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `Authorization` header at all.
    #[error("This needs a token: send it as `Authorization: Bearer <token>`.")]
    Missing,
    /// Not one readable JWT; carries what is wrong with it.
    #[error("The token cannot be read: {0}.")]
    Malformed(&'static str),
    /// `exp` is past.
    #[error("The token has expired.")]
    Expired,
    /// `nbf` is yet to come.
    #[error("The token is not valid yet.")]
    NotYetValid,
    /// Signed with another secret, or altered afterwards.
    #[error("The token's signature does not match.")]
    Signature,
    /// Signed in a way for which there is no key, in another way than its key is for, or not at all.
    #[error("The token is not signed with an algorithm that this server has a key for.")]
    Algorithm,
    /// Signed with a key that is not among the published ones; they are read again soon.
    #[error(
        "The token is signed with a key that this server does not know; if the key is new, try again in some seconds."
    )]
    UnknownKey,
    /// Signed with one of several keys, and it does not say with which.
    #[error("The token does not name its key (`kid`), and several would fit.")]
    AmbiguousKey,
    /// The published keys have never been read yet; nothing is said about the token.
    #[error("The keys to check the token with are not there yet; keep the token and try again soon.")]
    KeysAway,
    /// `aud` does not name this server.
    #[error("The token is meant for another audience.")]
    Audience,
    /// `iss` is not the expected one.
    #[error("The token comes from another issuer.")]
    Issuer,
    /// The identity claim is absent, not a name, or not verified.
    #[error("The token does not name a user, or names one whose e-mail address is not verified.")]
    Identity,
}

impl TokenError {
    /// The same for programs: one word of the HTTP contract.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Signature => "signature",
            Self::Algorithm => "algorithm",
            Self::UnknownKey | Self::AmbiguousKey | Self::KeysAway => "key",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Identity => "identity",
        }
    }
}

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAlgorithm => Self::Algorithm,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
                "aud" => Self::Audience,
                "iss" => Self::Issuer,
                _ => Self::Malformed("it has no usable `exp`"),
            },
            ErrorKind::InvalidClaimFormat(_) => Self::Malformed("its `exp` or `nbf` is not a point in time"),
            ErrorKind::Json(_) => Self::Malformed("a part of it is not a JSON object with distinct names"),
            _ => Self::Malformed("it is not three parts in base64url"),
        }
    }
}

fn bearer_token<'a>(authorization_headers: &[&'a str]) -> Result<&'a str, TokenError> {
    let header = match authorization_headers {
        [] => return Err(TokenError::Missing),
        [header] => header.trim_matches([' ', '\t']),
        _ => return Err(TokenError::Malformed("there is more than one `Authorization` header")),
    };
    let token = match header.split_once(' ') {
        _ if header.eq_ignore_ascii_case("Bearer") => {
            return Err(TokenError::Malformed("there is nothing after `Bearer` (is the variable that holds it set?)"));
        }
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token.trim_start_matches(' '),
        _ => return Err(TokenError::Malformed("the `Authorization` header is not `Bearer <token>`")),
    };
    if token.len() > TOKEN_BYTES_MAX { Err(TokenError::Malformed("it is longer than 8 KiB")) } else { Ok(token) }
}

/// What a token must say to be accepted with this algorithm.
fn validation(algorithm: Algorithm, options: &VerifierOptions) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.validate_aud = options.audience.is_some();
    if let Some(issuer) = &options.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    if let Some(audience) = &options.audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation
}

#[derive(serde::Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default, deserialize_with = "text")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

/// Reads the header and refuses what no key could mend. The library reads a header only into algorithms that it knows, so that
/// `none` would look like a broken token; read as claims are, a header keeps the two apart. Nothing here is trusted yet.
fn read_header(token: &str) -> Result<TokenHeader, TokenError> {
    let (header, _) = token.split_once('.').ok_or(TokenError::Malformed("it is not three parts in base64url"))?;
    let header: TokenHeader = dangerous::insecure_decode_claims(format!(".{header}."))?;
    if header.crit {
        return Err(TokenError::Malformed("it demands extensions (`crit`) that this server does not know"));
    }
    Ok(header)
}

/// A text, and not `null` (RFC 7515 §4.1.4).
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Some identity providers write booleans as text.
fn says_true(value: &Value) -> bool {
    value.as_bool().unwrap_or(value == "true")
}

/// A JSON object in which no name is given twice: of two e-mail addresses a lenient reader would take the last, and
/// an issuer's other readers perhaps the first.
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DistinctNames)
    }
}

struct DistinctNames;

impl<'de> Visitor<'de> for DistinctNames {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with distinct names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Claims, A::Error> {
        let mut claims = Map::new();
        while let Some((name, value)) = entries.next_entry()? {
            if claims.insert(name, value).is_some() {
                return Err(serde::de::Error::custom("a name is given twice"));
            }
        }
        Ok(Claims(claims))
    }
}
