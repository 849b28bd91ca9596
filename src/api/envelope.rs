//! What every answer gets besides its content: the request's id, CORS, compression.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use uuid::Uuid;

use super::problem::Problem;
use super::routes::Route;
use crate::http::{Caller, Found, Request, Response, Router};

/// An incoming `X-Request-Id` may be so long.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Smaller bodies are sent as they are: they fit one packet anyway.
const GZIP_BYTES_MIN: usize = 1024;
/// Every method that some path understands.
const METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
/// Request headers that a page may send.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-Id";
/// Response headers that a page may read.
const EXPOSED_HEADERS: &str = "Link, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id";
/// How long a browser may remember a preflight, in seconds: two hours, which is what browsers cap it at.
const PREFLIGHT_SECONDS: &str = "7200";

/// The origins whose pages may call.
#[derive(Clone, Debug)]
pub enum Origins {
    /// Every one, without credentials.
    Any,
    /// These.
    Listed(Vec<String>),
}

/// What of a request decides over the form of its answer.
pub(super) struct Envelope {
    pub(super) request_id: String,
    allow_origin: Option<String>,
    vary_origin: bool,
    gzip: bool,
}

impl Envelope {
    pub(super) fn of(request: &Request, origins: &Origins) -> Self {
        let mut envelope = Self::between(request.header("x-request-id"), request.header("origin"), origins);
        envelope.gzip = request.header_values("accept-encoding").any(accepts_gzip);
        envelope
    }

    /// For a request of which no more could be read than who sends it.
    pub(super) fn of_refused(caller: &Caller, origins: &Origins) -> Self {
        Self::between(caller.request_id.as_deref(), caller.origin.as_deref(), origins)
    }

    fn between(request_id: Option<&str>, origin: Option<&str>, origins: &Origins) -> Self {
        let is_sane = |id: &&str| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let request_id = match request_id.filter(is_sane) {
            Some(id) => id.to_owned(),
            None => Uuid::now_v7().as_hyphenated().to_string(),
        };
        let (allow_origin, vary_origin) = match origins {
            Origins::Any => (Some("*".to_owned()), false),
            Origins::Listed(listed) => (listed.iter().find(|known| Some(&***known) == origin).cloned(), true),
        };
        Self { request_id, allow_origin, vary_origin, gzip: false }
    }

    /// The response as it is sent.
    pub(super) fn seal(&self, response: Response) -> Response {
        let mut response =
            response.with_header("X-Request-Id", &self.request_id).with_header("X-Content-Type-Options", "nosniff");
        if let Some(origin) = &self.allow_origin {
            response = response
                .with_header("Access-Control-Allow-Origin", origin)
                .with_header("Access-Control-Expose-Headers", EXPOSED_HEADERS);
        }
        if self.vary_origin {
            response = response.with_header("Vary", "Origin");
        }
        if response.body().len() > GZIP_BYTES_MIN {
            response = response.with_header("Vary", "Accept-Encoding");
            if self.gzip {
                let compressed = gzip(response.body());
                response = response.with_body(compressed).with_header("Content-Encoding", "gzip");
            }
        }
        response
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing into memory cannot fail")
}

/// Whether one `Accept-Encoding` allows gzip (RFC 9110 §12.5.3).
fn accepts_gzip(value: &str) -> bool {
    let quality = |coding: &str| {
        value.split(',').find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, "q=1"));
            let weight = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(0.0);
            name.trim().eq_ignore_ascii_case(coding).then_some(weight)
        })
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|weight| weight > 0.0)
}

/// The answer to `OPTIONS`: a preflight, or what a path understands.
pub(super) fn options(request: &Request, router: &Router<&'static Route>) -> Result<Response, Problem> {
    let response = Response::empty(204);
    if request.header("origin").is_some() && request.header("access-control-request-method").is_some() {
        return Ok(response
            .with_header("Access-Control-Allow-Methods", METHODS)
            .with_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
            .with_header("Access-Control-Max-Age", PREFLIGHT_SECONDS));
    }
    match router.find(request.method(), request.path()) {
        Ok(Found::MethodNotAllowed(allowed)) => Ok(response.with_header("Allow", &format!("{allowed}, OPTIONS"))),
        _ if request.path() == "*" => Ok(response.with_header("Allow", METHODS)),
        _ => Err(Problem::not_found("path")),
    }
}

#[cfg(test)]
mod tests {
    use super::accepts_gzip;

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for value in ["gzip", "br, gzip", "GZIP;q=0.5", "*", "gzip; q=1.0, identity", "identity;q=0, *;q=0.1"] {
            assert!(accepts_gzip(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip;q=0, *", "identity", "gzip;q=x"] {
            assert!(!accepts_gzip(value), "{value}");
        }
    }
}
