//! What `GET /metrics` tells.

/// The value of a series, such as `panics_total`; `None` of what has not happened yet.
pub(crate) fn series(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix("holdfast_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value)
}
