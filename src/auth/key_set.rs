//! Public keys as an issuer publishes them: a JSON Web Key Set (RFC 7517), of which what can verify a token is kept.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

/// The keys of one document, in its order. Neither reading nor using it does any I/O.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<PublicKey>,
    left_out: LeftOut,
}

/// A key with the one algorithm that it verifies.
pub(super) struct PublicKey {
    /// What tokens call it.
    pub(super) kid: Option<String>,
    /// By its kind, never by what a token says.
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl KeySet {
    /// The largest document: identity providers have two to ten keys of half a KB, some with a chain of certificates each.
    pub const BYTES_MAX: usize = 256 * 1024;
    /// The most keys that a document may have, usable or not.
    pub const KEYS_MAX: usize = 100;

    /// Reads a document. A key that cannot verify tokens is left out: of another kind, for another purpose, too weak, or of
    /// a name that an earlier one has.
    ///
    /// # Errors
    /// If it is too large or no key set. One without a usable key is a set of none: so an issuer withdraws its last.
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > Self::BYTES_MAX {
            return Err(KeySetError::TooLarge);
        }
        // Out of a list serde would read the fields by their places.
        if document.trim_ascii_start().first() != Some(&b'{') {
            return Err(KeySetError::Unreadable);
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| KeySetError::Unreadable)?;
        if document.keys.len() > Self::KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self { keys: Vec::new(), left_out: LeftOut::default() };
        for jwk in document.keys {
            let jwk = if jwk.is_object() { Jwk::deserialize(jwk).ok() } else { None };
            let key = jwk.ok_or("unreadable").and_then(Jwk::into_key);
            match key {
                Ok(key) if key.kid.as_deref().is_some_and(|kid| set.named(kid).is_some()) => {
                    set.left_out.count("repeated");
                }
                Ok(key) => set.keys.push(key),
                Err(why) => set.left_out.count(why),
            }
        }
        Ok(set)
    }

    /// The same, where there must be a key.
    ///
    /// # Errors
    /// If there is none.
    pub fn usable(self) -> Result<Self, KeySetError> {
        if self.keys.is_empty() { Err(KeySetError::NoneUsable(self.left_out)) } else { Ok(self) }
    }

    /// How many keys it has.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// What was left out of the document.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// The key of that name.
    pub(super) fn named(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.kid.as_deref() == Some(kid))
    }

    /// Every key of that algorithm.
    pub(super) fn of(&self, algorithm: Algorithm) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().filter(move |key| key.algorithm == algorithm)
    }

    /// Whether both have the same keys of the same names in the same order.
    pub(super) fn has_the_keys_of(&self, other: &Self) -> bool {
        let same = |(one, two): (&PublicKey, &PublicKey)| {
            one.kid == two.kid && one.algorithm == two.algorithm && one.numbers() == two.numbers()
        };
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(same)
    }
}

impl PublicKey {
    /// A point and nothing else, or the modulus and the exponent without leading zeros.
    pub(super) fn numbers(&self) -> (&[u8], &[u8]) {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(point) => (point, &[]),
            DecodingKeyKind::RsaModulusExponent { n, e } => (n, e),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.algorithm, self.kid)
    }
}

/// How many keys of a document were left out, and why: words of ours, nothing that the document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<&'static str, usize>);

impl LeftOut {
    fn count(&mut self, why: &'static str) {
        *self.0.entry(why).or_default() += 1;
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.values().sum()
    }

    /// Whether every key was usable.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.0.iter().map(|(why, count)| format!("{count} {why}")).collect();
        f.write_str(&reasons.join(", "))
    }
}

/// Why a document is no set of keys, or none to begin with. None of the texts repeats anything of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Longer than [`KeySet::BYTES_MAX`].
    #[error("it is larger than {} KiB", KeySet::BYTES_MAX / 1024)]
    TooLarge,
    /// Not what RFC 7517 §5 describes.
    #[error("it is not a JSON object with a list of `keys`")]
    Unreadable,
    /// More than [`KeySet::KEYS_MAX`].
    #[error("it has more than {} keys", KeySet::KEYS_MAX)]
    TooMany,
    /// Every key was left out, or there was none.
    #[error("it has no key that could verify a token{}", in_parentheses(.0))]
    NoneUsable(LeftOut),
}

fn in_parentheses(left_out: &LeftOut) -> String {
    if left_out.is_empty() { String::new() } else { format!(" (left out: {left_out})") }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// One key, as far as it concerns us; a private or symmetric one has more.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<Value>,
}

/// What ring verifies with; below, RFC 7518 §3.3 forbids it, above, one token would cost more than a third of a millisecond.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// ring's bound of the exponent; 65537 has 17.
const RSA_EXPONENT_BITS_MAX: usize = 33;
/// Of a coordinate on P-256 (RFC 7518 §6.2.1.2) and of a point on Ed25519 (RFC 8037 §2).
const POINT_BYTES: usize = 32;

impl Jwk {
    /// The key, or in a word or two why it cannot verify tokens.
    fn into_key(self) -> Result<PublicKey, &'static str> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Algorithm::RS256,
            ("EC", Some("P-256")) => Algorithm::ES256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
            ("EC" | "OKP", _) => return Err("of another curve"),
            ("oct", _) => return Err("symmetric"),
            _ => return Err("of an unknown type"),
        };
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig")
            || self.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify"))
        {
            return Err("for another purpose");
        }
        if self.alg.as_deref().is_some_and(|alg| alg.parse() != Ok(algorithm)) {
            return Err("for another algorithm");
        }
        if self.d.is_some() {
            // Whoever can read it can sign with it.
            return Err("private");
        }
        let key = match algorithm {
            Algorithm::RS256 => {
                let (n, e) = (number(self.n.as_deref())?, number(self.e.as_deref())?);
                match bits(&n) {
                    few if few < *RSA_BITS.start() => return Err("too weak"),
                    many if many > *RSA_BITS.end() => return Err("too long"),
                    _ => {}
                }
                let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
                if !is_odd(&n) || !is_odd(&e) || e == [1] || bits(&e) > RSA_EXPONENT_BITS_MAX {
                    return Err("impossible");
                }
                DecodingKey::from_rsa_raw_components(&n, &e)
            }
            Algorithm::ES256 => {
                // Uncompressed, as SEC 1 §2.3.3 writes it.
                let mut point = vec![4];
                point.extend(coordinate(self.x.as_deref())?);
                point.extend(coordinate(self.y.as_deref())?);
                DecodingKey::from_ec_der(&point)
            }
            _ => DecodingKey::from_ed_der(&coordinate(self.x.as_deref())?),
        };
        Ok(PublicKey { kid: self.kid, algorithm, key })
    }
}

pub(super) fn decoded(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or("unreadable")
}

/// A number without leading zeros, which some publish against RFC 7518 §2.
fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let bytes = decoded(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    if zeros == bytes.len() { Err("impossible") } else { Ok(bytes[zeros..].to_vec()) }
}

fn coordinate(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    decoded(text).and_then(|bytes| if bytes.len() == POINT_BYTES { Ok(bytes) } else { Err("impossible") })
}

/// Of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize)
}
