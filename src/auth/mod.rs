//! From an `Authorization` header to a **principal**: the authenticated user.
//!
//! A token is a JWT signed with a [`Secret`] that this server shares with whoever issues tokens, or that it made for
//! itself and [`issue`]s tokens with. Verifying costs microseconds and no I/O, so every request does it anew.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod issue;
mod principal;
mod secret;
#[cfg(test)]
mod token_tests;
mod verifier;

pub use issue::issue;
pub use principal::{IdentityError, Principal};
pub use secret::{Secret, SecretError};
pub use verifier::{TokenError, Verifier, VerifierOptions};
