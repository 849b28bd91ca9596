//! Conditions of requests (RFC 9110 §13) where nothing has an entity tag or a date of modification: those on dates are to be
//! ignored then, and those on tags are decided by whether there is anything at all.

use super::problem::Problem;
use crate::http::{Method, Request, Response};

/// What is answered in place of doing what the request asks, if its condition cannot hold; what only reads is judged by [`after`].
pub(super) fn before(request: &Request) -> Option<Problem> {
    let is_unsafe = !is_read(request);
    (is_unsafe && (names_tags(request) || wants_nothing(request))).then(failed)
}

/// The answer to what only reads, in the light of its condition: a condition counts only where the answer is a success.
pub(super) fn after(request: &Request, response: Response) -> Result<Response, Problem> {
    if !is_read(request) || response.status() != 200 {
        return Ok(response);
    }
    if names_tags(request) {
        return Err(failed());
    }
    Ok(if wants_nothing(request) { Response::empty(304) } else { response })
}

/// What is said of a condition that does not hold.
pub(super) fn failed() -> Problem {
    Problem::new(412, "The condition of the request does not hold: nothing here has an entity tag. Nothing was done.")
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
