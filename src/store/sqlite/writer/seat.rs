use std::ops::{Deref, DerefMut};

use r2d2::ManageConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, Error};

/// Makes connections that can leave their lease for another thread and come back.
pub(in super::super) struct Seats(pub(in super::super) SqliteConnectionManager);

/// The place of a connection in its lease.
pub(in super::super) struct Seat(Option<Connection>);

impl ManageConnection for Seats {
    type Connection = Seat;
    type Error = Error;

    fn connect(&self) -> Result<Seat, Error> {
        self.0.connect().map(|connection| Seat(Some(connection)))
    }

    fn is_valid(&self, seat: &mut Seat) -> Result<(), Error> {
        self.0.is_valid(seat)
    }

    /// Nobody may find somebody else's transaction. What was not committed, for whatever reason, is rolled back here: a
    /// connection that is dropped instead would keep SQLite's lock until it is closed, and its successor might meet that.
    fn has_broken(&self, seat: &mut Seat) -> bool {
        let rolled_back =
            |connection: &Connection| connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        !seat.0.as_ref().is_some_and(rolled_back)
    }
}

impl Seat {
    pub(super) fn leave(&mut self) -> Connection {
        self.0.take().expect(PRESENT)
    }

    pub(super) fn come_back(&mut self, connection: Connection) {
        self.0 = Some(connection);
    }
}

const PRESENT: &str = "away only while its opener waits for it";

impl Deref for Seat {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().expect(PRESENT)
    }
}

impl DerefMut for Seat {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0.as_mut().expect(PRESENT)
    }
}
