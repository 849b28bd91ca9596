//! Whether a bearer token is ours, in time, meant for this server, and whom it names.

use std::fmt;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Principal, Secret};

/// Verifies bearer tokens signed with one shared secret (HS256). Shared by all http threads without a lock.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    identity_claim: String,
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

/// How far the issuer's clock may be from ours.
const LEEWAY_SECONDS: u64 = 60;

/// Tokens of identity providers have one or two KB; a larger one is refused before it is decoded.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

impl Verifier {
    /// A verifier for tokens signed with `secret`.
    pub fn new(secret: &Secret, options: VerifierOptions) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = options.audience.is_some();
        if let Some(issuer) = options.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if let Some(audience) = options.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        Self { key: DecodingKey::from_secret(secret.as_bytes()), validation, identity_claim: options.identity_claim }
    }

    /// The principal of a request, given all of its `Authorization` headers. Neither blocks nor does I/O; addresses and
    /// keys inside the token (`jku`, `x5u`, `jwk`) are never followed.
    pub fn verify(&self, authorization_headers: &[&str]) -> Result<Principal, TokenError> {
        let token = bearer_token(authorization_headers)?;
        check_header(token)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)?.claims;
        self.principal(claims)
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
    /// Signed in another way than HS256, or not at all.
    #[error("The token is not signed with an algorithm that this server accepts (HS256).")]
    Algorithm,
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

#[derive(serde::Deserialize)]
struct TokenHeader {
    alg: String,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
}

/// Refuses what no key could mend. The library reads a header only into algorithms that it knows, so that `none`
/// would look like a broken token; read as claims are, a header keeps the two apart. Nothing here is trusted yet.
fn check_header(token: &str) -> Result<(), TokenError> {
    let (header, _) = token.split_once('.').ok_or(TokenError::Malformed("it is not three parts in base64url"))?;
    let header: TokenHeader = dangerous::insecure_decode_claims(format!(".{header}."))?;
    if header.crit {
        return Err(TokenError::Malformed("it demands extensions (`crit`) that this server does not know"));
    }
    if header.alg == "HS256" { Ok(()) } else { Err(TokenError::Algorithm) }
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
