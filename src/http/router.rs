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
    /// The path exists; the value of the first route that has it, and the methods it understands, for the `Allow` header. For
    /// `OPTIONS`, too.
    MethodNotAllowed(&'r T, String),
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
        let mut first = None;
        for route in &self.routes {
            let Some(params) = route.matches(&segments) else { continue };
            if route.method == *wanted {
                return Ok(Found::Route(&route.value, params));
            }
            first.get_or_insert(&route.value);
            let names = [Some(route.method.as_str()), (route.method == Method::Get).then_some("HEAD")];
            for name in names.into_iter().flatten() {
                if !allowed.contains(&name) {
                    allowed.push(name);
                }
            }
        }
        Ok(first.map_or(Found::NotFound, |first| Found::MethodNotAllowed(first, allowed.join(", "))))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router<u8> {
        Router::default()
            .with(Method::Get, "/", 0)
            .with(Method::Get, "/runs", 1)
            .with(Method::Post, "/runs", 2)
            .with(Method::Get, "/runs/latest", 3)
            .with(Method::Get, "/runs/{id}", 4)
            .with(Method::Delete, "/runs/{id}", 5)
            .with(Method::Get, "/runs/{id}/steps/{step}", 6)
    }

    fn find(method: &Method, path: &str) -> (Option<u8>, Vec<String>) {
        match router().find(method, path) {
            Ok(Found::Route(&value, params)) => (Some(value), params.0.into_iter().map(|(_, value)| value).collect()),
            _ => (None, Vec::new()),
        }
    }

    #[test]
    fn a_path_finds_its_route_and_what_the_pattern_names() {
        assert_eq!(find(&Method::Get, "/"), (Some(0), vec![]));
        assert_eq!(find(&Method::Get, "/runs"), (Some(1), vec![]));
        assert_eq!(find(&Method::Post, "/runs"), (Some(2), vec![]));
        assert_eq!(find(&Method::Get, "/runs/latest"), (Some(3), vec![]));
        assert_eq!(find(&Method::Get, "/runs/7"), (Some(4), vec!["7".into()]));
        assert_eq!(find(&Method::Get, "/runs/7/steps/8"), (Some(6), vec!["7".into(), "8".into()]));
        let router = router();
        let Ok(Found::Route(_, params)) = router.find(&Method::Get, "/runs/7/steps/8") else { panic!("just found") };
        assert_eq!((params.get("id"), params.get("step"), params.get("x")), (Some("7"), Some("8"), None));
    }

    #[test]
    fn head_finds_what_get_finds() {
        assert_eq!(find(&Method::Head, "/runs/7"), (Some(4), vec!["7".into()]));
        assert_eq!(find(&Method::Head, "/runs"), (Some(1), vec![]));
    }

    #[test]
    fn segments_are_decoded_and_a_decoded_slash_separates_nothing() {
        assert_eq!(find(&Method::Get, "/runs/a%2Fb%20c"), (Some(4), vec!["a/b c".into()]));
        assert_eq!(find(&Method::Get, "/%72uns"), (Some(1), vec![]));
        assert_eq!(find(&Method::Get, "/runs%2Flatest"), (None, vec![]));
        for path in ["/runs/%", "/runs/%2", "/runs/%zz", "/runs/%ff", "/runs/%00"] {
            assert_eq!(router().find(&Method::Get, path), Err(BadEncoding), "{path}");
        }
    }

    #[test]
    fn a_path_that_no_route_has_is_not_found() {
        for path in ["/run", "/runs/", "/runs//steps/8", "/runs/7/", "//runs", "*", ""] {
            assert_eq!(router().find(&Method::Get, path), Ok(Found::NotFound), "{path}");
        }
    }

    #[test]
    fn a_path_that_exists_names_the_methods_it_understands() {
        let allowed = |method, path| match router().find(&method, path) {
            Ok(Found::MethodNotAllowed(_, allowed)) => allowed,
            other => panic!("{other:?}"),
        };
        assert_eq!(allowed(Method::Delete, "/runs"), "GET, HEAD, POST");
        assert_eq!(allowed(Method::Options, "/runs/7"), "GET, HEAD, DELETE");
        assert_eq!(allowed(Method::Patch, "/runs/latest"), "GET, HEAD, DELETE");
        let expected = Found::MethodNotAllowed(&1, "GET, HEAD, POST".to_owned());
        assert_eq!(router().find(&Method::Patch, "/runs"), Ok(expected), "with the first route that has the path");
        // Both patterns fit it, and the later one knows the method.
        assert_eq!(find(&Method::Delete, "/runs/latest"), (Some(5), vec!["latest".into()]));
    }
}
