//! `GET /metrics`: what is counted, for Prometheus.

use super::Api;
use super::call::{Call, Reply};
use super::problem::Problem;
use super::routes::{Answer, Document, Lane, Route};
use crate::http::Response;
use crate::metrics::CONTENT_TYPE;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/metrics",
    handler: show,
    lane: Lane::Here,
    token: false,
    limited: false,
    document: Document {
        name: "getMetrics",
        summary: "What is counted, for Prometheus",
        parameters: &[],
        request: None,
        answers: &[Answer::text("every counter and measurement, as OpenMetrics text", &[CONTENT_TYPE])],
    },
}];

fn show(api: &Api, _: &Call) -> Result<Reply, Problem> {
    api.metrics.rate_limit_waiting.set(i64::try_from(api.turnstile.waiting()).unwrap_or(i64::MAX));
    Ok(Reply::Now(Response::new(200, CONTENT_TYPE, api.metrics.text().into_bytes())))
}
