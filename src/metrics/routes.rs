//! What is counted of each route: its series are there before the first request, so that a request costs no look-up and no lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::histogram::{Histogram, REQUEST_SECONDS};

/// What a route is called: its path with the placeholders, and its method.
pub type RouteName = (&'static str, &'static str);

/// The place of whatever has no route, in the order of the series; the routes' own come after it, in their order.
pub const NO_ROUTE: usize = 0;
/// How that is called.
const OTHER: RouteName = ("other", "other");

/// Every status that is answered; one that is missing here would be counted as `other`, which a test of the whole rules out.
const STATUSES: [u16; 23] =
    [200, 202, 204, 304, 400, 401, 404, 405, 408, 409, 412, 413, 414, 415, 417, 422, 429, 431, 500, 501, 503, 505, 507];

/// Shown from the start, since `increase()`, by which an alert counts it, does not see a series being born with a number.
const FAILED: u16 = 500;

/// Answers by route and status; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct RouteStatuses(Arc<[(RouteName, [AtomicU64; STATUSES.len() + 1])]>);

/// Times by route; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct RouteTimes(Arc<[(RouteName, Histogram)]>);

impl RouteStatuses {
    /// For these routes.
    pub fn of(routes: &[RouteName]) -> Self {
        Self(named(routes, || [const { AtomicU64::new(0) }; STATUSES.len() + 1]))
    }

    /// Counts an answer of the route of this number.
    pub fn count(&self, route: usize, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        self.0[route].1[place].fetch_add(1, Relaxed);
    }

    fn counted(&self) -> impl Iterator<Item = (RouteName, Option<u16>, u64)> {
        let of_route = |(name, counts): &(RouteName, [AtomicU64; STATUSES.len() + 1])| {
            let name = *name;
            let counts = counts.each_ref().map(|count| count.load(Relaxed));
            let statuses = STATUSES.into_iter().map(Some).chain([None]);
            let is_shown = |status: &Option<u16>, count: &u64| *count > 0 || *status == Some(FAILED);
            statuses
                .zip(counts)
                .filter(move |(status, count)| is_shown(status, count))
                .map(move |(status, count)| (name, status, count))
        };
        self.0.iter().flat_map(of_route)
    }
}

impl RouteTimes {
    /// For these routes.
    pub fn of(routes: &[RouteName]) -> Self {
        Self(named(routes, || Histogram::new(REQUEST_SECONDS)))
    }

    /// Counts how long an answer of the route of this number took.
    pub fn observe(&self, route: usize, time: Duration) {
        self.0[route].1.observe(time);
    }

    fn observed(&self) -> impl Iterator<Item = &(RouteName, Histogram)> {
        self.0.iter().filter(|(_, histogram)| !histogram.has_none())
    }
}

fn named<T>(routes: &[RouteName], make: impl Fn() -> T) -> Arc<[(RouteName, T)]> {
    [OTHER].iter().chain(routes).map(|name| (*name, make())).collect()
}

impl TypedMetric for RouteStatuses {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for RouteStatuses {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for ((route, method), status, count) in self.counted() {
            let status = status.map_or_else(|| "other".to_owned(), |status| status.to_string());
            let labels = [("route", route), ("method", method), ("status", &*status)];
            ConstCounter::new(count).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }

    fn is_empty(&self) -> bool {
        self.counted().next().is_none()
    }
}

impl TypedMetric for RouteTimes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for RouteTimes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for ((route, method), histogram) in self.observed() {
            histogram.encode(encoder.encode_family(&[("route", *route), ("method", *method)])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }

    fn is_empty(&self) -> bool {
        self.observed().next().is_none()
    }
}
