//! What holds of every `Authorization` header, whoever makes it up.

use std::sync::LazyLock;

use jsonwebtoken::get_current_timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{base64url, written};
use crate::auth::issuer::Key;
use crate::auth::{KeySet, Keyring, Principal, Secret, TokenError, Verifier, VerifierOptions};

/// The secret of the corpus.
const SECRET: &str = "a secret of more than 32 bytes, shared";

const ISSUER: &str = "https://issuer";
const AUDIENCE: &str = "here";

/// How far an issuer's clock may be from ours, and a second that passes meanwhile.
const LEEWAY_SECONDS: f64 = 61.0;

/// Whoever is let in has a token that somebody signed who may, in time, for this server, and with a name.
///
/// The lines are `Authorization` headers, each ended by a line feed. Where the first line has a tab, it is no header but
/// the two texts of a token, which is signed here: so that what is behind the signature is reached as well. One more tab and
/// the name of one of [`SIGNERS`] after them has that key sign; otherwise it is the secret.
pub fn tokens(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some((header, rest)) = lines.first().and_then(|line| line.split_once('\t')) {
        let named = rest.rsplit_once('\t').and_then(|(payload, name)| Some((payload, signer(name)?)));
        let token = named.map_or_else(|| signed(header, rest), |(payload, key)| key.signed(header, payload));
        lines[0] = format!("Bearer {token}");
    }
    let headers: Vec<&str> = lines.iter().map(String::as_str).collect();
    for server in &*SERVERS {
        check(&headers, &server.verifier.verify(&headers), server);
    }
}

/// The keys that sign, by what a line calls them: of RFC 7515 A.2 and A.3, RFC 7517 A.2, RFC 8037 A.1; and one that nobody
/// publishes.
static SIGNERS: LazyLock<[(&str, Key); 5]> = LazyLock::new(|| {
    let p256 = [
        "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    ];
    let second = [
        "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
        "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    ];
    let seed = base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("a seed");
    [
        ("rsa", Key::rsa(Some("r"))),
        ("p256", Key::p256_of(Some("e"), p256)),
        ("second", Key::p256_of(Some("f"), second)),
        ("ed25519", Key::ed25519_of(None, &seed.try_into().expect("32 bytes"))),
        ("stranger", Key::ed25519_of(None, &[7; 32])),
    ]
});

fn signer(name: &str) -> Option<&'static Key> {
    SIGNERS.iter().find(|(signer, _)| *signer == name).map(|(_, key)| key)
}

/// A verifier, and what it was made of.
struct Server {
    verifier: Verifier,
    has_secret: bool,
    /// The keys that are published for it.
    published: Vec<&'static Key>,
    is_strict: bool,
}

static SERVERS: LazyLock<[Server; 5]> = LazyLock::new(|| {
    let every = ["rsa", "p256", "second", "ed25519"];
    [
        server(true, &[], false),
        server(true, &[], true),
        server(true, &every, false),
        server(false, &every, true),
        server(false, &["p256", "rsa"], false),
    ]
});

fn server(has_secret: bool, published: &[&str], is_strict: bool) -> Server {
    let secret = has_secret.then(|| Secret::new(SECRET).expect("it is long enough"));
    let published: Vec<&Key> = published.iter().filter_map(|name| signer(name)).collect();
    let named = |name: &str| is_strict.then(|| name.to_owned());
    let options = VerifierOptions { issuer: named(ISSUER), audience: named(AUDIENCE), ..VerifierOptions::default() };
    let verifier = match &secret {
        Some(secret) if published.is_empty() => Verifier::new(secret, options),
        _ => {
            let (keyring, _) = Keyring::new();
            let document = json!({"keys": published.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string();
            keyring.replace(KeySet::parse(document.as_bytes()).expect("the keys of the RFCs"));
            Verifier::with_keys(secret.as_ref(), keyring, options)
        }
    };
    Server { verifier, has_secret, published, is_strict }
}

impl Server {
    /// Who has to have signed a token with this header; `None` for the secret. It is the key of that name, the secret, or the
    /// only key of that algorithm, and nobody signs with the algorithm of another.
    fn signer(&self, header: &Map<String, Value>) -> Option<&'static Key> {
        let kid = header.get("kid").map(|kid| kid.as_str().expect("a name is a text"));
        let named = kid.and_then(|kid| self.published.iter().copied().find(|key| key.kid() == Some(kid)));
        if let Some(key) = named {
            assert_eq!(header["alg"], key.algorithm(), "{header:?}");
            return Some(key);
        }
        if header["alg"] == "HS256" {
            assert!(self.has_secret, "{header:?}");
            return None;
        }
        let fitting: Vec<_> = self.published.iter().filter(|key| header["alg"] == key.algorithm()).collect();
        assert!(kid.is_none() && fitting.len() == 1, "{} keys fit {header:?}", fitting.len());
        Some(fitting[0])
    }
}

/// Holds an outcome against what the headers say.
fn check(headers: &[&str], outcome: &Result<Principal, TokenError>, server: &Server) {
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
    let object = |part: &str| -> Map<String, Value> { serde_json::from_slice(&decoded(part)).expect("an object") };
    let (header, claims) = (object(head), object(payload));
    assert!(!header.contains_key("crit"), "{header:?}");
    let (message, signature) = (format!("{head}.{payload}").into_bytes(), decoded(signature));
    let is_signed = match server.signer(&header) {
        Some(key) => key.has_signed(&message, &signature),
        None => hmac(&message) == *signature,
    };
    assert!(is_signed, "nobody signed {token}");
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
    if server.is_strict {
        let names = |claim: &str, name: &str| match &claims[claim] {
            Value::Array(all) => all.iter().any(|one| one == name),
            one => one == name,
        };
        assert!(names("iss", ISSUER) && names("aud", AUDIENCE), "{claims:?}");
    }
}

/// A token of any two texts, signed with the secret.
fn signed(header: &str, payload: &str) -> String {
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
