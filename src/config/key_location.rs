//! Where an issuer publishes its keys: the value of `JWT_JWKS`.

use std::path::PathBuf;
use std::str::FromStr;

use ureq::http::Uri;

/// Where a key set is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// A file of this machine.
    File(PathBuf),
    /// An address that begins with `https://`.
    Https(String),
}

/// Why a text is no place of a key set. None repeats the text, in which there may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyLocationError {
    /// Whoever is on the way could put keys of their own there.
    #[error("an address that does not begin with https://")]
    NotEncrypted,
    /// Nothing secret is sent to fetch what is public.
    #[error("an address with a user or a password in it")]
    Credentials,
    /// No host, or something that no address has.
    #[error("no readable https:// address")]
    Unreadable,
}

impl FromStr for KeyLocation {
    type Err = KeyLocationError;

    fn from_str(text: &str) -> Result<Self, KeyLocationError> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::File(text.into())) };
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(KeyLocationError::NotEncrypted);
        }
        if rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@')) {
            return Err(KeyLocationError::Credentials);
        }
        let is_address =
            !text.contains('#') && text.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        if is_address { Ok(Self::Https(text.to_owned())) } else { Err(KeyLocationError::Unreadable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_a_file_or_at_an_encrypted_address() {
        let google = "https://www.googleapis.com/oauth2/v3/certs";
        for address in [google, "HTTPS://localhost:8443/keys?tenant=1", "https://[::1]:1/"] {
            assert_eq!(address.parse(), Ok(KeyLocation::Https(address.to_owned())));
        }
        for path in ["keys.json", "/etc/holdfast/keys.json", "https:/keys"] {
            assert_eq!(path.parse(), Ok(KeyLocation::File(path.into())));
        }
        for (text, why) in [
            ("http://127.0.0.1/keys", KeyLocationError::NotEncrypted),
            ("file:///etc/keys", KeyLocationError::NotEncrypted),
            ("https://ann:hunter2@keys.example", KeyLocationError::Credentials),
            ("https://ann@keys.example/a", KeyLocationError::Credentials),
            ("https://", KeyLocationError::Unreadable),
            ("https:///keys", KeyLocationError::Unreadable),
            ("https://keys.example/a b", KeyLocationError::Unreadable),
            ("https://keys.example/#a", KeyLocationError::Unreadable),
        ] {
            assert_eq!(text.parse::<KeyLocation>(), Err(why), "{text}");
        }
    }
}
