use holdfast::domain::RunId;
use holdfast::store::{Store, StoreError};

use super::{LEASE, NO_LIMITS, new_run, submit};

pub(super) fn a_probe_names_the_backend(store: &dyn Store) {
    let probe = store.probe().unwrap();
    assert!(!probe.backend.is_empty() && !probe.server_version.is_empty());
    assert!(!probe.latency.is_zero());
}

pub(super) fn the_pools_name_what_is_going_on(store: &dyn Store) {
    submit(store, "ann", "thread");
    let pools = store.pools();
    assert!(!pools.is_empty());
    assert!(pools.iter().map(|(_, pool)| pool.leases_total).sum::<u64>() > 0);
    assert!(pools.iter().all(|(_, pool)| pool.operations.is_empty() && !pool.closed));
    store.log_old_operations(LEASE);
}

pub(super) fn a_closed_store_refuses_at_once_and_may_be_closed_again(store: &dyn Store) {
    let run = submit(store, "ann", "thread");
    for _ in 0..2 {
        assert!(store.close(LEASE).is_empty(), "nothing had to be abandoned");
    }
    assert!(store.pools().iter().all(|(_, pool)| pool.closed && pool.connections == 0));
    assert!(matches!(store.run("ann", run.id), Err(StoreError::Closing)));
    assert!(matches!(store.submit(&new_run("ann", "thread"), NO_LIMITS, None), Err(StoreError::Closing)));
    assert!(matches!(store.queue_place(RunId::new()), Err(StoreError::Closing)));
    assert!(matches!(store.probe(), Err(StoreError::Closing)));
}
