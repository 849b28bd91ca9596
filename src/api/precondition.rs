//! Conditions of requests (RFC 9110 §13) where nothing has an entity tag or a date of modification: those on dates are to be
//! ignored then, and those on tags are decided by whether there is anything at all.

use super::problem::Problem;
use crate::http::{Method, Request, Response};

/// What is answered in place of doing what the request asks, if its condition cannot hold; what only reads is judged by its answer.
pub(super) fn before(request: &Request) -> Option<Problem> {
    let is_unsafe = !is_read(request);
    (is_unsafe && (names_tags(request) || wants_nothing(request))).then(failed)
}

/// The condition of a request that only reads.
#[derive(Clone, Copy)]
pub(super) enum Condition {
    /// None, or one that holds.
    Holds,
    /// `If-Match` with tags.
    NamesTags,
    /// `If-None-Match: *`.
    WantsNothing,
}

impl Condition {
    /// That of this request; what changes something has none any more, once [`before`] has let it pass.
    pub(super) fn of(request: &Request) -> Self {
        if !is_read(request) {
            Self::Holds
        } else if names_tags(request) {
            Self::NamesTags
        } else if wants_nothing(request) {
            Self::WantsNothing
        } else {
            Self::Holds
        }
    }

    /// The answer in its light: it counts only where the answer is a success.
    pub(super) fn judge(self, answer: Result<Response, Problem>) -> Result<Response, Problem> {
        let response = answer?;
        match self {
            Self::NamesTags if is_success(&response) => Err(failed()),
            Self::WantsNothing if is_success(&response) => Ok(Response::empty(304)),
            _ => Ok(response),
        }
    }
}

/// What is said of a condition that does not hold.
pub(super) fn failed() -> Problem {
    Problem::new(412, "The condition of the request does not hold: nothing here has an entity tag. Nothing was done.")
}

fn is_success(response: &Response) -> bool {
    (200..300).contains(&response.status().0)
}

fn is_read(request: &Request) -> bool {
    matches!(request.method(), Method::Get | Method::Head)
}

/// `If-Match` with tags, none of which can be the one of something that has none.
fn names_tags(request: &Request) -> bool {
    request.header("if-match").is_some_and(|tags| tags != "*")
}

/// `If-None-Match: *`: only if there is nothing yet.
fn wants_nothing(request: &Request) -> bool {
    request.header("if-none-match") == Some("*")
}
