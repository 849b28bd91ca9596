//! One request on its way through a handler, and what the handler makes of it.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::problem::{Fault, Problem};
use crate::domain::{Run, RunId};
use crate::http::{Params, Query, Request, Response};

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
    /// The placeholder's value as a run's id; whatever is no UUID is no run either.
    pub(super) fn run_id(&self) -> Result<RunId, Problem> {
        self.params.get("run_id").and_then(|text| text.parse().ok()).ok_or_else(|| Problem::not_found("run"))
    }

    /// The placeholder's value as a thread's name.
    pub(super) fn thread_id(&self) -> &str {
        self.params.get("thread_id").map_or("", str::trim)
    }

    /// The query's parameters, to be taken one by one.
    ///
    /// # Errors
    /// 400 if the query's encoding is wrong.
    pub(super) fn parameters(&self) -> Result<Parameters, Problem> {
        let query = Query::parse(self.request.query())
            .map_err(|error| Problem::new(400, format!("The query cannot be read: {error}.")))?;
        Ok(Parameters { query, faults: Vec::new() })
    }
}

/// The parameters of a query; unknown ones are ignored, as is usual for queries.
pub(super) struct Parameters {
    query: Query,
    faults: Vec<Fault>,
}

impl Parameters {
    /// The parameter's text; the first one counts if it is given more than once.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(n) if (min..=max).contains(&n) => n,
            _ => {
                let msg = format!("must be a whole number from {min} to {max}");
                self.faults.push(Fault::query(name, "out_of_range", msg));
                default
            }
        }
    }

    /// Whatever `parse` makes of the parameter; `allowed` says what it accepts.
    pub(super) fn parsed<T>(&mut self, name: &str, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = parse(self.text(name)?);
        if value.is_none() {
            self.faults.push(Fault::query(name, "value_error", format!("must be {allowed}")));
        }
        value
    }

    /// One more fault, found by the caller.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every fault there was.
    pub(super) fn end(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::validation(&self.faults)) }
    }
}
