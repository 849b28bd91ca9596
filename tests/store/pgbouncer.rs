//! The same store with PgBouncer in between, which gives it another connection of the server for every statement.

use holdfast::store::postgres::Options;

use super::Opened;
use super::postgres::{database, initialised, opened, options};
use crate::util::{PgBouncer, require_pgbouncer};

pub(super) fn open() -> Option<Opened> {
    require_pgbouncer().then(|| {
        let database = database();
        let unprepared = Options { prepares: false, ..options() };
        let store = initialised(&PgBouncer::shared().url(&database), unprepared);
        opened(store, database)
    })
}
