//! The one table of routes: the router and the OpenAPI document are both made from it.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::call::{Call, Reply};
use super::problem::Problem;
use super::{
    Api, analyze, conversations, data, debug, events, feedback, health, messages, metrics, openapi, page, runs,
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

/// Where a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// On the http thread: it touches neither store nor disk and never waits.
    Here,
    /// On a thread of the store lane, because it asks the store.
    Store,
    /// On a thread of the store lane too, because it reads the tables of data, which are there without the store.
    Data,
}

/// What is told about a route.
pub(super) struct Document {
    /// One sentence.
    pub(super) summary: &'static str,
    /// Placeholders, query parameters and headers.
    pub(super) parameters: &'static [Parameter],
    /// The body's shape, if it takes one.
    pub(super) request: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Status, meaning and shape; a problem where there is no shape and the status is an error.
    pub(super) answers: &'static [Answer],
}

/// Status, meaning and shape.
pub(super) type Answer = (u16, &'static str, Option<fn(&mut SchemaGenerator) -> Schema>);

/// A parameter of a route.
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: &'static str,
    /// `path`, `query` or `header`.
    pub(super) place: &'static str,
    /// What it is for.
    pub(super) meaning: &'static str,
}

impl Parameter {
    /// A placeholder of the path.
    pub(super) const fn path(name: &'static str, meaning: &'static str) -> Self {
        Self { name, place: "path", meaning }
    }

    /// A parameter of the query.
    pub(super) const fn query(name: &'static str, meaning: &'static str) -> Self {
        Self { name, place: "query", meaning }
    }

    /// A header.
    pub(super) const fn header(name: &'static str, meaning: &'static str) -> Self {
        Self { name, place: "header", meaning }
    }
}

/// The schema of a type, for the tables of routes.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Every route.
pub(super) fn all() -> impl Iterator<Item = &'static Route> {
    [
        page::ROUTES,
        health::ROUTES,
        analyze::ROUTES,
        runs::ROUTES,
        events::ROUTES,
        conversations::ROUTES,
        messages::ROUTES,
        feedback::ROUTES,
        data::ROUTES,
        debug::ROUTES,
        metrics::ROUTES,
        openapi::ROUTES,
    ]
    .into_iter()
    .flatten()
}
