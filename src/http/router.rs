//! From a method and a path to what answers it.

use tiny_http::Method;

use super::uri::{BadEncoding, decode_path_segment};

/// A table of routes such as `GET /runs/{id}/wait`, each with a value of the caller's.
#[derive(Debug)]
pub struct Router<T> {
    routes: Vec<Route<T>>,
}

/// What a router found.
#[derive(Debug, PartialEq)]
pub enum Found<'r, T> {
    /// The value of the route, and what its pattern named.
    Route(&'r T, Params),
    /// The path exists; the methods it understands, for the `Allow` header. For `OPTIONS`, too.
    MethodNotAllowed(String),
    /// No route has this path.
    NotFound,
}

/// The decoded segments of a path that a pattern named.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

#[derive(Debug)]
struct Route<T> {
    method: Method,
    pattern: &'static str,
    /// Whether the path has to equal the pattern, which needs no decoding to be tried.
    is_literal: bool,
    value: T,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router { routes: Vec::new() }
    }
}

impl<T> Router<T> {
    /// Adds a route; of two that fit the same path, the one added first is found. `{name}` stands for one whole segment that is not empty.
    #[must_use]
    pub fn with(mut self, method: Method, pattern: &'static str, value: T) -> Router<T> {
        assert!(pattern.starts_with('/'), "a pattern is a path");
        self.routes.push(Route { method, pattern, is_literal: !pattern.contains('{'), value });
        self
    }

    /// Every route in the order of the table, for a page that describes them.
    pub fn routes(&self) -> impl Iterator<Item = (&Method, &'static str, &T)> {
        self.routes.iter().map(|route| (&route.method, route.pattern, &route.value))
    }

    /// Looks a path up, as it came, percent-encoded. `HEAD` finds what `GET` finds.
    ///
    /// # Errors
    /// The path's encoding is wrong.
    pub fn find(&self, method: &Method, path: &str) -> Result<Found<'_, T>, BadEncoding> {
        let wanted = if *method == Method::Head { &Method::Get } else { method };
        let literal = |route: &&Route<T>| route.is_literal && route.pattern == path && route.method == *wanted;
        if let Some(route) = self.routes.iter().find(literal) {
            return Ok(Found::Route(&route.value, Params::default()));
        }
        let segments = path.split('/').map(decode_path_segment).collect::<Result<Vec<_>, _>>()?;
        let mut allowed: Vec<&str> = Vec::new();
        for route in &self.routes {
            let Some(params) = route.matches(&segments) else { continue };
            if route.method == *wanted {
                return Ok(Found::Route(&route.value, params));
            }
            allowed.push(route.method.as_str());
            if route.method == Method::Get {
                allowed.push("HEAD");
            }
        }
        Ok(if allowed.is_empty() { Found::NotFound } else { Found::MethodNotAllowed(allowed.join(", ")) })
    }
}

impl<T> Route<T> {
    fn matches(&self, segments: &[String]) -> Option<Params> {
        let mut params = Params::default();
        let mut segments = segments.iter();
        for expected in self.pattern.split('/') {
            let segment = segments.next()?;
            match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) if !segment.is_empty() => params.0.push((name, segment.clone())),
                None if segment == expected => {}
                _ => return None,
            }
        }
        segments.next().is_none().then_some(params)
    }
}

impl Params {
    /// The segment that the pattern calls `{name}`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }
}
