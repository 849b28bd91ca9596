// An issuer of tokens, for tests and measurements alone: keys of each kind that sign whatever they are given. It knows nothing of
// the code that verifies. `tests/util` and `bench/access.rs` include this file.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

/// A key and the name under which it is published, if any.
pub(crate) struct Key {
    kid: Option<String>,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(hmac::Key),
}

impl Key {
    /// The RSA key of RFC 7515 appendix A.2, with 2048 bits: making one takes seconds.
    pub(crate) fn rsa(kid: Option<&str>) -> Self {
        let number = |text| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: number(RSA_N), e: number(RSA_E) },
            d: number(RSA_D),
            p: number(RSA_P),
            q: number(RSA_Q),
            dP: number(RSA_DP),
            dQ: number(RSA_DQ),
            qInv: number(RSA_QI),
        };
        Self::new(kid, Pair::Rsa(Box::new(RsaKeyPair::from_components(&components).expect("the key of the RFC"))))
    }

    /// A new one on P-256.
    pub(crate) fn p256(kid: Option<&str>) -> Self {
        let (algorithm, random) = (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("randomness");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("it was just made");
        Self::new(kid, Pair::P256(pair))
    }

    /// The one on P-256 with this private number and public point.
    pub(crate) fn p256_of(kid: Option<&str>, [d, x, y]: [&str; 3]) -> Self {
        let number = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let (algorithm, random) = (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let point = [vec![4], number(x), number(y)].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &number(d), &point, &random);
        Self::new(kid, Pair::P256(pair.expect("the halves of a key")))
    }

    /// A new one on Ed25519.
    pub(crate) fn ed25519(kid: Option<&str>) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        Self::new(kid, Pair::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("it was just made")))
    }

    /// The one on Ed25519 that is made of this seed.
    pub(crate) fn ed25519_of(kid: Option<&str>, seed: &[u8; 32]) -> Self {
        Self::new(kid, Pair::Ed25519(Ed25519KeyPair::from_seed_unchecked(seed).expect("every seed has a key")))
    }

    /// A secret for HS256.
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self::hmac(hmac::HMAC_SHA256, secret)
    }

    /// A secret for one of HS256, HS384 and HS512.
    pub(crate) fn hmac(algorithm: hmac::Algorithm, secret: &[u8]) -> Self {
        Self::new(None, Pair::Secret(hmac::Key::new(algorithm, secret)))
    }

    fn new(kid: Option<&str>, pair: Pair) -> Self {
        Self { kid: kid.map(str::to_owned), pair }
    }

    /// What its tokens say in `kid`.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What its tokens say in `alg`.
    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Secret(key) if key.algorithm() == hmac::HMAC_SHA384 => "HS384",
            Pair::Secret(key) if key.algorithm() == hmac::HMAC_SHA512 => "HS512",
            Pair::Secret(_) => "HS256",
        }
    }

    /// Its public half as it is published.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(_) => json!({"kty": "RSA", "n": RSA_N, "e": RSA_E}),
            Pair::P256(pair) => {
                // One byte that says that both coordinates follow.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
            }
            Pair::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
            Pair::Secret(_) => panic!("a secret is not published"),
        };
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().into();
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    /// Its public half as bytes: PKCS #1 in DER, or a point.
    pub(crate) fn public_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Secret(_) => panic!("a secret has no public half"),
        }
    }

    /// A token with these claims and the header that such tokens have.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        self.signed(&header.to_string(), &claims.to_string())
    }

    /// A token of any two texts.
    pub(crate) fn signed(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.signature(message.as_bytes())))
    }

    /// Whether it has signed this.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match &self.pair {
            Pair::Rsa(_) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Pair::P256(_) => &signature::ECDSA_P256_SHA256_FIXED,
            Pair::Ed25519(_) => &signature::ED25519,
            Pair::Secret(key) => return hmac::verify(key, message, signature).is_ok(),
        };
        UnparsedPublicKey::new(algorithm, self.public_bytes()).verify(message, signature).is_ok()
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a key that signs");
                signature
            }
            Pair::P256(pair) => pair.sign(&random, message).expect("randomness").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Secret(key) => hmac::sign(key, message).as_ref().to_vec(),
        }
    }
}

const RSA_N: &str = "\
    ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
    T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
    dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
    GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_E: &str = "AQAB";
const RSA_D: &str = "\
    Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46su\
    i395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4\
    qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB\
    4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ";
const RSA_P: &str = "\
    4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8\
    cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc";
const RSA_Q: &str = "\
    uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t\
    62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc";
const RSA_DP: &str = "\
    BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCj\
    n12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0";
const RSA_DQ: &str = "\
    h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnw\
    gjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU";
const RSA_QI: &str = "\
    IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93\
    IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U";
