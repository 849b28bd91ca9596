//! The authenticated user.

/// Who a request speaks for. Two identities are the same user if their bytes are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    identity: String,
}

impl Principal {
    /// The longest identity in bytes: an e-mail address has at most 254 (RFC 5321 §4.5.3.1.3), and it is stored with
    /// every run and counted in every index.
    pub const IDENTITY_BYTES_MAX: usize = 254;

    /// Takes an identity that may name a user.
    pub fn new(identity: impl Into<String>) -> Result<Self, IdentityError> {
        let identity = identity.into();
        if identity.trim().is_empty() {
            return Err(IdentityError::Empty);
        }
        if identity.len() > Self::IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLong);
        }
        if identity.chars().any(char::is_control) {
            return Err(IdentityError::ControlCharacter);
        }
        Ok(Self { identity })
    }

    /// The identity as the token spells it.
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

/// Why a text cannot name a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// More than [`Principal::IDENTITY_BYTES_MAX`] bytes.
    #[error("it is longer than {} bytes", Principal::IDENTITY_BYTES_MAX)]
    TooLong,
    /// A control character, which could forge lines in logs and headers.
    #[error("it contains a control character")]
    ControlCharacter,
}

#[cfg(test)]
mod tests {
    use super::{IdentityError, Principal};

    #[test]
    fn an_identity_is_taken_as_it_is_spelt() {
        for identity in ["ann@example.org", "Ann Ó Háinle", "用户@例子.中国", &"a".repeat(254)] {
            assert_eq!(
                Principal::new(identity).map(|principal| principal.identity().to_owned()).as_deref(),
                Ok(identity)
            );
        }
    }

    #[test]
    fn an_identity_that_could_confuse_logs_or_indexes_is_refused() {
        let long = "é".repeat(128);
        for (identity, why) in [
            ("", IdentityError::Empty),
            (" \t\u{2003}", IdentityError::Empty),
            (long.as_str(), IdentityError::TooLong),
            ("ann\nbob", IdentityError::ControlCharacter),
            ("ann\0", IdentityError::ControlCharacter),
            ("ann\u{85}", IdentityError::ControlCharacter),
        ] {
            assert_eq!(Principal::new(identity), Err(why), "{identity:?}");
        }
    }
}
