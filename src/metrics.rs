//! Everything that is counted for `GET /metrics`: one table.

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A counter for each value of a label; the values are words of ours, never a client's.
pub type Counters<V = &'static str> = Family<[(&'static str, V); 1], Counter>;

/// How `/metrics` is to be read: OpenMetrics, which Prometheus understands.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "holdfast";

macro_rules! metrics {
    ($($(#[doc = $doc:expr])+ $field:ident: $kind:ty;)+) => {
        /// The counters, each counted where it happens; what is measured instead is set when somebody asks.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
            registry: Registry,
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix(PREFIX);
                $(
                    let $field = <$kind>::default();
                    // The text gets a full stop of the library's.
                    let help = concat!($($doc),+).trim().trim_end_matches('.');
                    registry.register(stringify!($field), help, $field.clone());
                )+
                Self { $($field,)+ registry }
            }
        }

        /// Every metric's name, without `holdfast_` and the `_total` of a counter, and its meaning, for the documentation and
        /// its test.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($field), concat!($($doc),+))),+];
    };
}

metrics! {
    /// Answers by the `class` of their status, `2xx` and so on; a stream counts when it begins.
    answers: Counters;
    /// Refusals that the connection layer made by itself, by `status`; also among the answers.
    http_refusals: Counters<u16>;
    /// Tokens that were refused, by `reason`.
    tokens_refused: Counters;
    /// Requests that were refused because their client asks too often, by how it is `known`: `user` or `address`.
    rate_limit_refused: Counters;
    /// Requests that were let in after they had waited for their turn, by how their client is `known`.
    rate_limit_delayed: Counters;
    /// Requests that wait for their turn.
    rate_limit_waiting: Gauge;
}

impl Metrics {
    /// All of them as `/metrics` shows them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a text takes whatever is written into it");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.tokens_refused.get_or_create(&[("reason", "expired")]).inc();
        metrics.http_refusals.get_or_create(&[("status", 431)]).inc();
        metrics.rate_limit_waiting.set(3);
        let text = metrics.text();
        for line in [
            "# TYPE holdfast_tokens_refused counter",
            "# HELP holdfast_rate_limit_waiting Requests that wait for their turn.",
            "holdfast_tokens_refused_total{reason=\"expired\"} 1",
            "holdfast_http_refusals_total{status=\"431\"} 1",
            "holdfast_rate_limit_waiting 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(ALL.len(), 6, "a family of which nothing has happened yet is not shown");
        assert!(!text.contains("holdfast_answers"), "{text}");
    }
}
