//! What `bench/inner.rs` measures of this module.

use super::routes;
use crate::http::Router;

/// The paths of the API, as they are looked up for each request.
pub fn router() -> Router<()> {
    routes::all().fold(Router::default(), |router, route| {
        router.with(route.method.parse().expect("the table holds methods"), route.path, ())
    })
}
