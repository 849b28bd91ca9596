//! What every route may answer besides its own answers, and the headers that answers have.

use schemars::{Schema, json_schema};

use super::json;
use super::parameter::Parameter;
use super::precondition;
use super::problem::Problem;
use super::routes::{Lane, Route};
use crate::auth::TokenError;
use crate::http::{BadEncoding, Limits, Refusal};

/// An answer that some routes, or all, have in common: a problem.
pub(super) struct Answer {
    /// What the document calls it.
    pub(super) name: &'static str,
    /// Its status.
    pub(super) status: u16,
    /// When it is given.
    pub(super) meaning: &'static str,
    /// One that really occurs.
    pub(super) example: fn() -> Problem,
    /// Which routes may give it.
    pub(super) concerns: fn(&Route) -> bool,
}

/// A header of answers.
pub(super) struct Header {
    /// Its name.
    pub(super) name: &'static str,
    /// What it says.
    pub(super) meaning: &'static str,
    /// Whether each answer that lists it has it.
    pub(super) is_always: bool,
    /// What its values look like.
    pub(super) schema: fn() -> Schema,
}

const fn every(_: &Route) -> bool {
    true
}

/// Whether it reads a body or parameters, which may be wrong.
fn reads(route: &Route) -> bool {
    // A run's id that is none is answered as one that does not exist.
    let is_id = |name: &str| name == Parameter::RUN.told.name;
    route.document.request.is_some() || route.document.parameters.iter().any(|told| !is_id(told.name))
}

/// The one that is no problem and has no body, to whatever only reads: its name and when it is given.
pub(super) const NOT_MODIFIED: (&str, &str) = ("NotModified", "If-None-Match: * rules out what there is");

/// The others, by status.
pub(super) const ANSWERS: &[Answer] = &[
    Answer {
        name: "BadRequest",
        status: 400,
        meaning: "the request cannot be read",
        example: || Problem::new(400, format!("The query cannot be read: {BadEncoding}.")),
        concerns: every,
    },
    Answer {
        name: "Unauthorized",
        status: 401,
        meaning: "there is no token, or it is refused for the reason given",
        example: || TokenError::Missing.into(),
        concerns: |route| route.token,
    },
    Answer {
        name: "RequestTimeout",
        status: 408,
        meaning: "the request did not arrive in time",
        example: || Problem::from(&Refusal::BodyTimeout),
        concerns: every,
    },
    Answer {
        name: "PreconditionFailed",
        status: 412,
        meaning: "If-Match names tags, of which nothing here has any; or If-None-Match: * comes with what changes something",
        example: precondition::failed,
        concerns: every,
    },
    Answer {
        name: "ContentTooLarge",
        status: 413,
        meaning: "the body is larger than MAX_BODY_BYTES",
        example: || Problem::from(&Refusal::BodyTooLarge(Limits::default().body_bytes_max)),
        concerns: every,
    },
    Answer {
        name: "UriTooLong",
        status: 414,
        meaning: "the address is longer than 8 KiB",
        example: || Problem::from(&Refusal::TargetTooLong),
        concerns: every,
    },
    Answer {
        name: "UnsupportedMediaType",
        status: 415,
        meaning: "the body is not declared to be JSON",
        example: json::not_json,
        concerns: |route| route.document.request.is_some(),
    },
    Answer {
        name: "ExpectationFailed",
        status: 417,
        meaning: "something else than 100-continue is expected",
        example: || Problem::from(&Refusal::Expectation),
        concerns: every,
    },
    Answer {
        name: "UnprocessableContent",
        status: 422,
        meaning: "the request is not valid; errors has its faults, at most 20",
        example: || Problem::validation(&[Parameter::THREAD.told.fault("string_too_short", "must not be empty")]),
        concerns: reads,
    },
    Answer {
        name: "TooManyRequests",
        status: 429,
        meaning: "too many requests of this user, or of this address",
        example: || Problem::too_often(3),
        concerns: |route| route.limited,
    },
    Answer {
        name: "RequestHeaderFieldsTooLarge",
        status: 431,
        meaning: "the head is larger than 16 KiB or has more than 100 headers",
        example: || Problem::from(&Refusal::HeadTooLarge),
        concerns: every,
    },
    Answer {
        name: "InternalServerError",
        status: 500,
        meaning: "the server failed in a way that it should not",
        example: || Problem::from(&Refusal::Unanswered),
        concerns: every,
    },
    Answer {
        name: "NotImplemented",
        status: 501,
        meaning: "the body has another transfer coding than chunked",
        example: || Problem::from(&Refusal::TransferCoding),
        concerns: every,
    },
    Answer {
        name: "Busy",
        status: 503,
        meaning: "the store cannot be used, or the server is busy or shutting down",
        example: || Problem::busy("The server is busy; nothing was done."),
        concerns: |route| route.token || route.lane != Lane::Here,
    },
    Answer {
        name: "TooManyConnections",
        status: 503,
        meaning: "too many connections are open",
        example: || Problem::from(&Refusal::TooManyConnections),
        concerns: |route| !route.token && route.lane == Lane::Here,
    },
    Answer {
        name: "HttpVersionNotSupported",
        status: 505,
        meaning: "another version than HTTP/1.1 or HTTP/1.0 is spoken",
        example: || Problem::from(&Refusal::Version),
        concerns: every,
    },
];

/// Headers of answers, besides those that HTTP itself needs.
pub(super) const HEADERS: &[Header] = &[
    Header {
        name: "X-Request-Id",
        meaning: "by which the log names the request",
        is_always: true,
        schema: || json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}),
    },
    Header {
        name: "Location",
        meaning: "where to look for the run",
        is_always: false,
        schema: || json_schema!({"type": "string", "format": "uri-reference"}),
    },
    Header {
        name: "Retry-After",
        meaning: "seconds to wait before the next try",
        is_always: true,
        schema: || json_schema!({"type": "integer", "minimum": 1}),
    },
    Header {
        name: "WWW-Authenticate",
        meaning: "how to authenticate: Bearer",
        is_always: true,
        schema: || json_schema!({"type": "string"}),
    },
    Header {
        name: "Link",
        meaning: "the next page, with rel=\"next\"; none on the last one",
        is_always: false,
        schema: || json_schema!({"type": "string"}),
    },
    Header {
        name: "Preference-Applied",
        meaning: "respond-async, when that was asked for and done (RFC 7240)",
        is_always: false,
        schema: || json_schema!({"type": "string"}),
    },
    Header {
        name: "RateLimit",
        meaning: "how many requests the client may still make at once, and in how many seconds it may make more",
        is_always: false,
        schema: || json_schema!({"type": "string"}),
    },
    Header {
        name: "RateLimit-Policy",
        meaning: "how many requests a client may make in how many seconds",
        is_always: false,
        schema: || json_schema!({"type": "string"}),
    },
];

/// The headers by which an answer of a route that is limited tells how its client stands.
pub(super) const STANDING: [&str; 2] = ["RateLimit", "RateLimit-Policy"];
