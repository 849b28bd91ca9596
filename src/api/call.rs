//! One request on its way through a handler, and what the handler makes of it.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::parameter::{Parameter, Parameters, THREAD_ID_CHARS_MAX, Told};
use super::problem::Problem;
use super::routes::Route;
use crate::domain::{Run, RunId};
use crate::http::{Params, Request, Response};

/// A request that was let in.
pub(super) struct Call {
    /// The request itself.
    pub(super) request: Request,
    /// What the route's placeholders stand for.
    pub(super) params: Params,
    /// The user; empty on the open endpoints.
    pub(super) user: String,
    /// Where the request comes from, as far as that can be known.
    pub(super) address: IpAddr,
    /// What the route says that its handler reads.
    listed: &'static [Told],
    /// Which of those it has read, one bit each.
    read: Cell<u32>,
}

/// What a handler answers.
pub(super) enum Reply {
    /// This.
    Now(Response),
    /// The run's end, or 202 when the client has waited for so long.
    AtEndOf(Box<Run>, Duration),
    /// The run's events after this number, as long as there are any.
    EventsOf(Box<Run>, u64),
    /// Whatever the same call gives once this run has ended, for which it waits at most so long.
    AgainAfter(RunId, Duration),
}

impl Reply {
    /// 200 with this as JSON.
    pub(super) fn json(body: &impl Serialize) -> Self {
        Self::Now(json_response(200, body))
    }
}

/// A response with this as JSON.
pub(super) fn json_response(status: u16, body: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(body).expect("what the API answers with has text keys and no failing serialiser");
    // For whoever reads it in a terminal.
    body.push(b'\n');
    Response::new(status, "application/json", body)
}

impl Call {
    /// A call of this route.
    pub(super) fn new(route: &Route, request: Request, params: Params, user: String, address: IpAddr) -> Self {
        Self { request, params, user, address, listed: route.document.parameters, read: Cell::new(0) }
    }

    /// The placeholder's value as a run's id; whatever is no UUID is no run either.
    pub(super) fn run_id(&self) -> Result<RunId, Problem> {
        self.placeholder(&Parameter::RUN.told).parse().map_err(|_| Problem::not_found("run"))
    }

    /// The placeholder's value as a thread's name, under the rules for one in a body.
    pub(super) fn thread_id(&self) -> Result<&str, Problem> {
        let told = &Parameter::THREAD.told;
        let text = self.placeholder(told).trim();
        let fault = if text.is_empty() {
            told.fault("string_too_short", "must not be empty")
        } else if text.chars().count() > THREAD_ID_CHARS_MAX {
            told.fault("string_too_long", format!("must have at most {THREAD_ID_CHARS_MAX} characters"))
        } else {
            return Ok(text);
        };
        Err(Problem::validation(&[fault]))
    }

    /// What stands for a placeholder.
    pub(super) fn placeholder(&self, told: &Told) -> &str {
        self.note(told);
        self.params.get(told.name).unwrap_or_default()
    }

    /// The other parameters, to be taken one by one.
    ///
    /// # Errors
    /// 400 if the query's encoding is wrong.
    pub(super) fn parameters(&self) -> Result<Parameters<'_>, Problem> {
        Parameters::of(self)
    }

    /// Remembers that a parameter is read, which the route has to list: the document is made of what routes list.
    pub(super) fn note(&self, told: &Told) {
        let index = self.listed.iter().position(|listed| (listed.name, listed.place) == (told.name, told.place));
        debug_assert!(index.is_some(), "the route does not list {} {}", told.place.as_str(), told.name);
        self.read.set(self.read.get() | index.map_or(0, |index| 1 << index));
    }

    /// The first parameter that the route lists and nobody has read.
    pub(super) fn unread(&self) -> Option<&'static str> {
        let unread = self.listed.iter().enumerate().find(|(index, _)| self.read.get() & (1 << index) == 0);
        unread.map(|(_, told)| told.name)
    }
}
