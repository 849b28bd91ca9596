//! What every answer gets besides its content: the request's id, CORS, compression.

use std::io::Write;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use uuid::Uuid;

use super::Api;
use super::problem::Problem;
use super::routes::Numbered;
use crate::event;
use crate::http::{BadEncoding, Caller, Found, Method, Request, Response};
use crate::limits::Standing;
use crate::metrics::NO_ROUTE;

/// Smaller bodies are sent as they are: they fit one packet anyway.
const GZIP_BYTES_MIN: usize = 1024;
/// Every method that some path understands.
const METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";
/// Request headers that a page may send.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-Id";
/// How long a browser may remember a preflight, in seconds: two hours, which is what browsers cap it at.
const PREFLIGHT_SECONDS: &str = "7200";

/// What holds for every answer: it is what its type says it is, it tells no other site where its reader came from, and no
/// page elsewhere embeds it (which leaves to CORS what scripts read).
const SECURITY: &str = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n";

/// What a browser may do with an answer that is no page: nothing.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

/// Nobody keeps what only its user may see, nor a refusal, which may not hold any more.
const NO_STORE: &str = "Cache-Control: no-store\r\n";

/// What one page may read another may not: no cache shall give it to that.
const VARY_ORIGIN: &str = "Vary: Origin\r\n";

const ANY_ORIGIN: &str = "Access-Control-Allow-Origin: *\r\n";

/// Response headers that a page may read.
const EXPOSED: &str = "Access-Control-Expose-Headers: Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, \
    Retry-After, WWW-Authenticate, X-Request-Id\r\n";

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
    /// Whether the answer is for one user only.
    pub(super) is_private: bool,
    /// How its client stands, if the request was counted.
    pub(super) standing: Option<Standing>,
    /// Its route, once that is known.
    pub(super) route: Option<Numbered>,
    /// Who asks, once that is known and if the log wants to know.
    pub(super) user: Option<String>,
    method: &'static str,
    begun: Instant,
    allow: Allow,
    gzip: bool,
}

/// Whose pages may read the answer.
enum Allow {
    Everybody,
    /// The one that asks, if it is listed.
    Listed(Option<String>),
}

impl Envelope {
    pub(super) fn of(request: &Request, origins: &Origins) -> Self {
        let mut envelope = Self::between(request.header("x-request-id"), request.header("origin"), origins);
        envelope.gzip = accepts_gzip(request.header_values("accept-encoding"));
        envelope.method = method(request.method());
        envelope
    }

    /// For a request of which no more could be read than who sends it.
    pub(super) fn of_refused(caller: &Caller, origins: &Origins) -> Self {
        Self::between(caller.request_id.as_deref(), caller.origin.as_deref(), origins)
    }

    fn between(request_id: Option<&str>, origin: Option<&str>, origins: &Origins) -> Self {
        let is_sane = |id: &&str| {
            (1..=Caller::REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let request_id = match request_id.filter(is_sane) {
            Some(id) => id.to_owned(),
            None => Uuid::now_v7().as_hyphenated().to_string(),
        };
        let allow = match origins {
            Origins::Any => Allow::Everybody,
            Origins::Listed(listed) => Allow::Listed(listed.iter().find(|known| Some(&***known) == origin).cloned()),
        };
        Self {
            request_id,
            is_private: false,
            standing: None,
            route: None,
            user: None,
            method: "",
            begun: Instant::now(),
            allow,
            gzip: false,
        }
    }

    /// A problem as it is sent; logs it if it is a failure of ours.
    pub(super) fn seal_problem(&self, api: &Api, problem: Problem) -> Response {
        self.log_failure(api, &problem);
        self.seal(api, problem.into_response(&self.request_id))
    }

    /// The same, not counted: it may not be sent.
    pub(super) fn enclose_problem(&self, api: &Api, problem: Problem) -> Response {
        self.enclose(api, problem.into_response(&self.request_id))
    }

    /// The response as it is sent; counts it, and logs it where that is wanted.
    pub(super) fn seal(&self, api: &Api, response: Response) -> Response {
        let response = self.enclose(api, response);
        let (number, took) = (self.route.map_or(NO_ROUTE, |route| route.number), self.begun.elapsed());
        api.metrics.http_requests.count(number, response.status().0);
        api.metrics.http_request_duration_seconds.observe(number, took);
        tracing::debug!(
            event = event::REQUEST_ANSWERED,
            request_id = self.request_id,
            method = self.method,
            route = self.template(),
            status = response.status().0,
            duration_ms = took.as_micros() as f64 / 1000.0,
            bytes = if self.method == "HEAD" { 0 } else { response.body().len() },
            user = self.user
        );
        response
    }

    /// The path of its route, with the placeholders: what stands for them is nobody's business.
    fn template(&self) -> Option<&'static str> {
        self.route.map(|found| found.route.path)
    }

    /// Each request that fails because of us has one line with its id, whatever else is logged of the reason.
    fn log_failure(&self, api: &Api, problem: &Problem) {
        let (request_id, method, route) = (&self.request_id, self.method, self.template());
        if let Some(cause) = problem.cause() {
            tracing::error!(event = event::REQUEST_FAILED, request_id, method, route, error = cause);
        } else if problem.status() >= 500
            && let Some(unlogged) = api.unserved_logged.spend()
        {
            let (status, run_id) = (problem.status(), problem.run_id());
            tracing::info!(event = event::REQUEST_UNSERVED, request_id, method, route, status, run_id, unlogged);
        }
    }

    /// What whoever handles the request logs meanwhile names it; an error's level, so that no setting of LOG leaves it out.
    pub(super) fn span(&self) -> tracing::span::EnteredSpan {
        tracing::error_span!("request", request_id = self.request_id).entered()
    }

    fn enclose(&self, api: &Api, response: Response) -> Response {
        let status = response.status().0;
        let has_policy = response.header("Content-Security-Policy").is_some();
        let is_kept = response.header("Cache-Control").is_some() || !(self.is_private || status >= 400);
        let mut response = response
            .with_header("X-Request-Id", &self.request_id)
            .with_lines(SECURITY)
            .with_lines(if has_policy { "" } else { POLICY })
            .with_lines(if is_kept { "" } else { NO_STORE });
        response = match &self.allow {
            Allow::Everybody => response.with_lines(ANY_ORIGIN).with_lines(EXPOSED),
            Allow::Listed(Some(origin)) => {
                response.with_header("Access-Control-Allow-Origin", origin).with_lines(EXPOSED).with_lines(VARY_ORIGIN)
            }
            Allow::Listed(None) => response.with_lines(VARY_ORIGIN),
        };
        if let Some(standing) = &self.standing {
            let policy = api.limiter.policy();
            response = response.with_lines(&format!("RateLimit: {standing}\r\nRateLimit-Policy: {policy}\r\n"));
        }
        if response.body().len() > GZIP_BYTES_MIN {
            response = response.with_lines("Vary: Accept-Encoding\r\n");
            if self.gzip {
                let compressed = gzip(response.body());
                response = response.with_body(compressed).with_header("Content-Encoding", "gzip");
            }
        }
        response
    }
}

/// A method as a word of ours.
fn method(method: &Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::NonStandard(_) => "another",
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("writing into memory cannot fail")
}

/// Whether gzip is accepted, and no less than what is sent otherwise (RFC 9110 §12.5.3); several headers are one list.
fn accepts_gzip<'a>(headers: impl Iterator<Item = &'a str>) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for item in headers.flat_map(|header| header.split(',')) {
        let (coding, weight) = item.split_once(';').map_or((item, Some(WEIGHT_MAX)), |(coding, q)| (coding, weight(q)));
        let coding = coding.trim_matches(BLANKS);
        let named = |name: &str| coding.eq_ignore_ascii_case(name);
        let slot = match () {
            () if named("gzip") || named("x-gzip") => &mut gzip,
            () if named("identity") => &mut identity,
            () if coding == "*" => &mut any,
            () => continue,
        };
        // Of a coding that is named twice the first counts, and one whose weight cannot be read is not wanted.
        slot.get_or_insert(weight.unwrap_or(0));
    }
    gzip.or(any).is_some_and(|gzip| gzip > 0 && gzip >= identity.unwrap_or(0))
}

const BLANKS: [char; 2] = [' ', '\t'];

pub(super) const WEIGHT_MAX: u16 = 1000;

/// `q=0.5` in thousandths (RFC 9110 §12.4.2).
pub(super) fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.trim_matches(BLANKS).strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let (whole, digits) = value.split_once('.').unwrap_or((value, ""));
    if digits.len() > 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{digits:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(WEIGHT_MAX),
        _ => None,
    }
}

/// Whether a browser asks in the name of a page whether that may call.
pub(super) fn is_preflight(request: &Request) -> bool {
    request.header("origin").is_some() && request.header("access-control-request-method").is_some()
}

/// The answer to it, whatever the path; whose page may call is what every answer says.
pub(super) fn preflight() -> Response {
    Response::empty(204)
        .with_header("Access-Control-Allow-Methods", METHODS)
        .with_header("Access-Control-Allow-Headers", ALLOWED_HEADERS)
        .with_header("Access-Control-Max-Age", PREFLIGHT_SECONDS)
}

/// The answer to any other `OPTIONS`: what the path understands that was looked up.
pub(super) fn options(found: &Result<Found<'_, Numbered>, BadEncoding>, path: &str) -> Result<Response, Problem> {
    let response = Response::empty(204);
    match found {
        Ok(Found::MethodNotAllowed(_, allowed)) => Ok(response.with_header("Allow", &format!("{allowed}, OPTIONS"))),
        _ if path == "*" => Ok(response.with_header("Allow", METHODS)),
        _ => Err(Problem::not_found("path")),
    }
}

#[cfg(test)]
mod tests {
    use super::{accepts_gzip, weight};

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for headers in [
            &["gzip"][..],
            &["br, gzip"],
            &["GZIP;q=0.5"],
            &["x-gzip"],
            &["*"],
            &["gzip; q=1.0, identity"],
            &["identity;q=0, *;q=0.1"],
            &["gzip ; Q=0.001"],
            &["gzip;q=1."],
            &["br;q=1.0", "gzip;q=0.8, *;q=0.1"],
            &[",gzip,,"],
            &["*;q=0", "gzip"],
            &["identity;q=0.5, gzip;q=0.5"],
        ] {
            assert!(accepts_gzip(headers.iter().copied()), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[""],
            &["br"],
            &["gzip;q=0"],
            &["gzip;q=0.000"],
            &["gzip;q=0, *"],
            &["*", "gzip;q=0"],
            &["gzip;q=0, gzip"],
            &["identity"],
            &["gzip;q=x"],
            &["gzip;q="],
            &["gzip;"],
            &["gzip;q=1.5"],
            &["gzip;q=0.0001"],
            &["gzip;q=nan"],
            &["gzip;q=1e0"],
            &["gzip;q=-1"],
            &["gzip;level=9"],
            &["gzip;q=0.5;q=1"],
            &["gzipp"],
            &["*;q=0"],
            &["gzip;q=0.5, identity"],
        ] {
            assert!(!accepts_gzip(headers.iter().copied()), "{headers:?}");
        }
        assert_eq!([weight(" q=0.05"), weight("q=1.000"), weight("q=1.001")], [Some(50), Some(1000), None]);
    }
}
