//! What an administrator looks at when something is slow.

use serde::Serialize;

use super::Api;
use super::call::{Call, Reply};
use super::problem::Problem;
use super::routes::{Document, Lane, Route, schema};
use crate::clock::Timestamp;
use crate::pool::PoolStatus;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/debug/pool-status",
    handler: pool_status,
    lane: Lane::Here,
    token: false,
    limited: false,
    document: Document {
        summary: "The store's connections, and which operations hold them",
        parameters: &[],
        request: None,
        answers: &[(200, "all pools of the store taken together", Some(schema::<PoolView>))],
    },
}];

#[derive(Serialize, schemars::JsonSchema)]
#[allow(clippy::struct_excessive_bools, reason = "these are the fields of the contract")]
struct PoolView {
    backend: &'static str,
    /// The serial number of the pool; it grows when the pool is replaced.
    generation: u64,
    pool_closed: bool,
    /// Whether the pool is open and can query.
    pool_healthy: bool,
    /// Whether the last probe, at most two seconds old, succeeded.
    can_query: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_error: Option<&'static str>,
    closing: bool,
    connections: usize,
    idle_connections: usize,
    max_connections: u32,
    /// Operations that wait for a connection.
    waiting: usize,
    active_operations: usize,
    operations: Vec<OperationView>,
    oldest_operation_ms: u64,
    leases_total: u64,
    timeouts_total: u64,
    recycles_total: u64,
    timestamp: Timestamp,
}

#[derive(Serialize, schemars::JsonSchema)]
struct OperationView {
    name: &'static str,
    age_ms: u64,
}

fn pool_status(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let pools = api.store.pools();
    let sum = |count: fn(&PoolStatus) -> usize| pools.iter().map(|(_, pool)| count(pool)).sum();
    let total = |count: fn(&PoolStatus) -> u64| pools.iter().map(|(_, pool)| count(pool)).sum();
    let mut operations: Vec<OperationView> = pools
        .iter()
        .flat_map(|(_, pool)| &pool.operations)
        .map(|operation| OperationView { name: operation.name, age_ms: operation.age.as_millis() as u64 })
        .collect();
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.age_ms));
    let closed = pools.iter().any(|(_, pool)| pool.closed);
    let closing = pools.iter().any(|(_, pool)| pool.closing);
    let database = api.probes.database();
    let can_query = database.is_connected() && !closed;
    Ok(Reply::json(&PoolView {
        backend: database.backend,
        generation: pools.iter().map(|(_, pool)| pool.generation).max().unwrap_or(0),
        pool_closed: closed,
        pool_healthy: can_query && !closing,
        can_query,
        query_error: database.trouble().or(closed.then_some("the pool is closed")),
        closing,
        connections: sum(|pool| pool.connections),
        idle_connections: sum(|pool| pool.idle_connections),
        max_connections: pools.iter().map(|(_, pool)| pool.connections_max).sum(),
        waiting: sum(|pool| pool.waiting),
        active_operations: operations.len(),
        oldest_operation_ms: operations.first().map_or(0, |oldest| oldest.age_ms),
        operations,
        leases_total: total(|pool| pool.leases_total),
        timeouts_total: total(|pool| pool.timeouts_total),
        recycles_total: total(|pool| pool.recycles_total),
        timestamp: Timestamp::now(),
    }))
}
