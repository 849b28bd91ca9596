//! The events of a run, as they happen.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::Api;
use super::call::{Call, Reply};
use super::problem::{Fault, Problem};
use super::routes::{Document, Lane, Parameter, Route};
use super::runs::owned;
use crate::http::Response;

/// The header by which a client that comes again says what it has seen.
const LAST_EVENT_ID: &str = "Last-Event-ID";
/// The parameter that says the same for a client that cannot set headers.
const AFTER: &str = "after";

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/runs/{run_id}/events",
    handler: watch,
    lane: Lane::Store,
    token: true,
    limited: true,
    document: Document {
        summary: "The run's events as Server-Sent Events: those that were, then those that come, up to `finished`",
        parameters: &[
            Parameter::path("run_id", "the run"),
            Parameter::query(AFTER, "the id of the last event that was seen (0): the stream goes on after it"),
            Parameter::header(LAST_EVENT_ID, "the same, as EventSource sends it; it counts if both are given"),
        ],
        request: None,
        answers: &[
            (200, "the events, from 1 without a gap; a comment line every 5 s; the end after `finished`", Some(stream)),
            (404, "no such run of this user", None),
            (429, "too many requests, or 100 streams of this user are open", None),
            (503, "500 streams are open, or the server is shutting down", None),
        ],
    },
}];

fn stream(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "contentMediaType": MEDIA_TYPE,
        "description": "Each event has `id`, its number; `event`, one of queued, started, step, checkpoint, retrying and \
            finished; and `data`, a JSON object in one line: always `at`, when it was stored; with started `attempt`; with \
            step `step` and `name`; with checkpoint `step` and `checkpoint_id`; with retrying `reason` and `attempt`; with \
            finished the run's final `status`. A stream that ends without `finished` is to be asked for again with the \
            last `id`. A client that reads too slowly is cut off and may do the same.",
    })
}

const MEDIA_TYPE: &str = "text/event-stream";

/// The answer before its events.
pub(super) fn head() -> Response {
    Response::new(200, MEDIA_TYPE, Vec::new())
        .with_header("Cache-Control", "no-store")
        // Reverse proxies that gather answers would hold events back.
        .with_header("X-Accel-Buffering", "no")
}

fn watch(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut query = call.parameters()?;
    let after = query.parsed(AFTER, ALLOWED, sequence);
    let header = call.request.header(LAST_EVENT_ID).filter(|text| !text.is_empty());
    let last_seen = header.and_then(sequence);
    if header.is_some() && last_seen.is_none() {
        query.fault(Fault::header(LAST_EVENT_ID, "value_error", format!("must be {ALLOWED}")));
    }
    query.end()?;
    // A browser that comes again asks for the same address as at first.
    let after = last_seen.or(after).unwrap_or(0);
    Ok(Reply::EventsOf(Box::new(owned(api, call)?), after))
}

const ALLOWED: &str = "the id of an event: a whole number from 0";

/// The number of an event, or 0 for none yet.
fn sequence(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    // What a store can number.
    text.parse().ok().filter(|number| is_plain && i64::try_from(*number).is_ok())
}
