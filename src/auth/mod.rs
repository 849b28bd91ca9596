//! From an `Authorization` header to a **principal**: the authenticated user.
//!
//! A token is a JWT. It is signed with a [`Secret`] that this server shares with whoever issues tokens, or that it made for
//! itself and [`issue`]s tokens with; or with a key whose public half its issuer publishes in a [`KeySet`]. Of those the
//! [`Keyring`] holds the last good set, which a [`Refresher`] replaces on a thread of its own: verifying does no I/O and takes
//! microseconds, and less for a token that was seen before.

mod crypto;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod issue;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code, reason = "each who includes it uses a part"))]
mod issuer;
mod key_set;
mod key_source;
#[cfg(test)]
mod key_tests;
mod keyring;
mod principal;
mod refresher;
mod secret;
mod seen;
#[cfg(test)]
mod token_tests;
mod verifier;

pub use issue::issue;
pub use key_set::{KeySet, KeySetError, LeftOut};
pub use key_source::{KeySource, KeySourceError};
pub use keyring::Keyring;
pub use principal::{IdentityError, Principal};
pub use refresher::Refresher;
pub use secret::{Secret, SecretError};
pub use verifier::{TokenError, Verifier, VerifierOptions};
