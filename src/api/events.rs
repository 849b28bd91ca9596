//! The events of a run, as they happen.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::parameter::{Parameter, Place, digits};
use super::problem::Problem;
use super::routes::{Answer, Body, Content, Document, Lane, Route};
use super::runs::owned;
use super::{Api, example};
use crate::clock::Timestamp;
use crate::domain::{EventKind, RunEvent, Status};
use crate::http::Response;
use crate::streams::{NotAdmitted, text_of};

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/runs/{run_id}/events",
    handler: watch,
    lane: Lane::Store,
    token: true,
    limited: true,
    document: Document {
        name: "watchRun",
        summary: "The run's events as Server-Sent Events: those that were, then those that come, up to `finished`",
        parameters: &[Parameter::RUN.told, AFTER.told, LAST_EVENT_ID.told],
        request: None,
        answers: &[
            Answer {
                status: 200,
                meaning: "the events, from 1 without a gap; a comment line every 5 s; the end after `finished`",
                content: Content::Events(Body { schema: event, example: shown }),
                headers: &[],
            },
            Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
            Answer::problem(429, "100 streams of this user are open", || NotAdmitted::UserFull.into()),
            Answer::problem(503, "500 streams are open, or the server is shutting down", || NotAdmitted::Full.into()),
        ],
    },
}];

/// The number of an event, or 0 for none yet; blank is none either.
const fn sequence(
    place: Place,
    name: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    meaning: &'static str,
) -> Parameter<Option<u64>> {
    let allowed = || "the id of an event: a whole number from 0".into();
    let parse =
        |text: &str| if text.is_empty() { Some(None) } else { digits(text).filter(|n| *n <= SEQUENCE_MAX).map(Some) };
    Parameter::of(place, name, schema, allowed, parse, meaning)
}

/// What a store can number.
const SEQUENCE_MAX: u64 = i64::MAX as u64;

/// The parameter by which a client that comes again says what it has seen.
const AFTER: Parameter<Option<u64>> = sequence(
    Place::Query,
    "after",
    |_| json_schema!({"type": "integer", "minimum": 0, "maximum": SEQUENCE_MAX}),
    "the id of the last event that was seen (0): the stream goes on after it",
);
/// The same as a browser says it by itself.
const LAST_EVENT_ID: Parameter<Option<u64>> = sequence(
    Place::Header,
    "Last-Event-ID",
    |_| json_schema!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": SEQUENCE_MAX}, {"const": ""}]}),
    "the same, as EventSource sends it; it counts if both are given",
);

/// One event, as OpenAPI 3.2 describes streams; 3.1 says nothing of them.
fn event(_: &mut SchemaGenerator) -> Schema {
    let whole = json!({"type": "integer", "minimum": 1});
    json_schema!({
        "type": "object",
        "description": "One event. A stream that ends without `finished` is to be asked for again with the last `id`. A client \
            that reads too slowly is cut off and may do the same.",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "Its number, from 1 without a gap."},
            "event": {"enum": EventKind::ALL.map(EventKind::as_str)},
            "data": {
                "type": "string",
                "description": "A JSON object in one line: always `at`, when it was stored; with started `attempt`; with step \
                    `step` and `name`; with checkpoint `step` and `checkpoint_id`; with retrying `reason` and `attempt`; with \
                    finished the run's final `status`.",
                "contentMediaType": "application/json",
                "contentSchema": {
                    "type": "object",
                    "required": ["at"],
                    "properties": {
                        "at": Timestamp::json_schema(&mut SchemaGenerator::default()),
                        "attempt": whole,
                        "step": whole,
                        "name": {"type": "string"},
                        "checkpoint_id": {"type": "string"},
                        "reason": {"type": "string"},
                        "status": {"enum": Status::ALL.iter().filter(|status| status.is_final()).collect::<Vec<_>>()},
                    },
                },
            },
        },
    })
}

fn shown() -> Value {
    let at = |sequence, kind, payload| RunEvent { sequence, kind, payload, at: example::AT };
    let events = [
        at(1, EventKind::Queued, json!({})),
        at(2, EventKind::Started, json!({"attempt": 1})),
        at(3, EventKind::Finished, json!({"status": Status::Succeeded})),
    ];
    text_of(&events).into()
}

/// What a stream is sent as.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";

/// The answer before its events.
pub(super) fn head() -> Response {
    Response::new(200, MEDIA_TYPE, Vec::new())
        .with_header("Cache-Control", "no-store")
        // Reverse proxies that gather answers would hold events back.
        .with_header("X-Accel-Buffering", "no")
}

fn watch(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut parameters = call.parameters()?;
    let after = parameters.get(&AFTER).flatten();
    let last_seen = parameters.get(&LAST_EVENT_ID).flatten();
    parameters.end()?;
    // A browser that comes again asks for the same address as at first, and sends no id before it has one.
    let after = last_seen.or(after).unwrap_or(0);
    Ok(Reply::EventsOf(Box::new(owned(api, call)?), after))
}
