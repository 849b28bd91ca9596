//! The one table of routes: the router and the OpenAPI document are both made from it.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::call::{Call, Reply};
use super::parameter::Told;
use super::problem::Problem;
use super::{
    Api, analyze, conversations, data, debug, docs, events, feedback, health, messages, metrics, openapi, page, runs,
};

/// One route: what it is, who may call it, where it is worked on, and what is told about it.
pub(super) struct Route {
    /// The method; `HEAD` works wherever `GET` does.
    pub(super) method: &'static str,
    /// The path with its placeholders.
    pub(super) path: &'static str,
    /// What answers.
    pub(super) handler: fn(&Api, &Call) -> Result<Reply, Problem>,
    /// Where the handler is called.
    pub(super) lane: Lane,
    /// Whether a token is asked for.
    pub(super) token: bool,
    /// Whether calls are counted against the client's rate.
    pub(super) limited: bool,
    /// What the OpenAPI document says.
    pub(super) document: Document,
}

/// A route with its number among all, from 1: by that it is counted.
#[derive(Clone, Copy)]
pub(super) struct Numbered {
    pub(super) number: usize,
    pub(super) route: &'static Route,
}

/// Where a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// On the http thread: it touches neither store nor disk and never waits.
    Here,
    /// On a thread of the store lane, because it asks the store.
    Store,
    /// On a thread of the store lane too, because it reads the tables of data, or takes milliseconds; that goes without the store.
    Data,
}

/// What is told about a route.
pub(super) struct Document {
    /// The name that generated clients give it, unique among all: the `operationId`.
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) summary: &'static str,
    /// Placeholders, query parameters and headers: what the handler reads, and no other.
    pub(super) parameters: &'static [Told],
    /// The body, if it takes one.
    pub(super) request: Option<Body>,
    /// What it answers, besides what every route may answer.
    pub(super) answers: &'static [Answer],
}

/// A JSON value in a body: its schema, and one that really occurs.
#[derive(Clone, Copy)]
pub(super) struct Body {
    /// Its schema.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
    /// Made of the type itself, so that it cannot be another one.
    pub(super) example: fn() -> Value,
}

/// A type that bodies hold.
pub(super) trait Example: JsonSchema {
    /// One that really occurs, as JSON.
    fn example() -> Value;
}

impl Body {
    /// The body that is one of these.
    pub(super) const fn of<T: Example>() -> Self {
        Self { schema: |generator| generator.subschema_for::<T>(), example: T::example }
    }
}

/// One answer of a route.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// When it is given.
    pub(super) meaning: &'static str,
    /// What is in it.
    pub(super) content: Content,
    /// Headers that matter to whoever reads it; those of a problem are told by its example.
    pub(super) headers: &'static [&'static str],
}

/// What is in an answer.
pub(super) enum Content {
    /// JSON.
    Json(Body),
    /// A text of one of these media types, whichever the client prefers.
    Text(&'static [&'static str]),
    /// Server-Sent Events, each of which is such an object; the example is the stream's text.
    Events(Body),
    /// A problem such as this one.
    Problem(fn() -> Problem),
}

impl Answer {
    /// JSON of a type.
    pub(super) const fn json<T: Example>(status: u16, meaning: &'static str) -> Self {
        Self { status, meaning, content: Content::Json(Body::of::<T>()), headers: &[] }
    }

    /// The same with another example than the type's own, and with these headers.
    pub(super) const fn json_such_as<T: Example>(
        status: u16,
        meaning: &'static str,
        example: fn() -> Value,
        headers: &'static [&'static str],
    ) -> Self {
        let schema = Body::of::<T>().schema;
        Self { status, meaning, content: Content::Json(Body { schema, example }), headers }
    }

    /// 200 with a text.
    pub(super) const fn text(meaning: &'static str, media_types: &'static [&'static str]) -> Self {
        Self { status: 200, meaning, content: Content::Text(media_types), headers: &[] }
    }

    /// A problem.
    pub(super) const fn problem(status: u16, meaning: &'static str, example: fn() -> Problem) -> Self {
        Self { status, meaning, content: Content::Problem(example), headers: &[] }
    }
}

/// Routes of one subject.
pub(super) struct Subject {
    /// Its name.
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) meaning: &'static str,
    /// Their tables.
    pub(super) tables: &'static [&'static [Route]],
}

/// Every route, by subject.
pub(super) const SUBJECTS: &[Subject] = &[
    Subject {
        name: "Analyses",
        meaning: "Asking, waiting, watching and cancelling.",
        tables: &[analyze::ROUTES, runs::ROUTES, events::ROUTES],
    },
    Subject {
        name: "Conversations",
        meaning: "Threads as a chat shows them, and what users say of the answers.",
        tables: &[conversations::ROUTES, messages::ROUTES, feedback::ROUTES],
    },
    Subject { name: "Data", meaning: "The tables that questions are about.", tables: &[data::ROUTES] },
    Subject {
        name: "Health",
        meaning: "How the server is doing, without a token.",
        tables: &[health::ROUTES, metrics::ROUTES],
    },
    Subject { name: "Debugging", meaning: "For whom something is slow or strange.", tables: &[debug::ROUTES] },
    Subject {
        name: "Pages",
        meaning: "For people and for programs that want to know what there is.",
        tables: &[page::ROUTES, docs::ROUTES, openapi::ROUTES],
    },
];

/// Every route.
pub(super) fn all() -> impl Iterator<Item = &'static Route> {
    SUBJECTS.iter().flat_map(|subject| subject.tables).copied().flatten()
}
