//! The keys of `JWT_JWKS`: read at the start, and again by a thread of their own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::StartError;
use super::ticker::Ticker;
use crate::auth::{KeySource, Keyring, Refresher};
use crate::config::KeyLocation;

/// What a shutdown waits for the thread: one that is fetching keys is left, since nothing is lost by it.
const STOP_WAIT: Duration = Duration::from_millis(250);

/// Keys on their way. The thread begins when the rest of the server is there.
pub(super) struct Keys {
    keyring: Arc<Keyring>,
    refresher: Refresher,
    woken: Receiver<()>,
}

impl Keys {
    /// Reads a file; an address may be away for now.
    pub(super) fn begin(location: &KeyLocation) -> Result<Self, StartError> {
        let (keyring, woken) = Keyring::new();
        let refresher = Refresher::begin(KeySource::new(location), Arc::clone(&keyring), Instant::now())
            .map_err(|error| StartError::Keys(place(location), error))?;
        Ok(Self { keyring, refresher, woken })
    }

    pub(super) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Starts the thread.
    pub(super) fn keep_fresh(self) -> io::Result<KeyRefresher> {
        let Self { keyring, mut refresher, woken } = self;
        // An address has not been asked yet.
        keyring.refresh();
        let ticker = Ticker::woken("key-refresher", woken, move || refresher.turn(Instant::now()))?;
        Ok(KeyRefresher { keyring, ticker })
    }
}

/// The thread that reads keys.
pub(super) struct KeyRefresher {
    keyring: Arc<Keyring>,
    ticker: Ticker,
}

impl KeyRefresher {
    pub(super) fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    pub(super) fn stop(&mut self, deadline: Instant) {
        self.ticker.stop(deadline.min(Instant::now() + STOP_WAIT));
    }
}

fn place(location: &KeyLocation) -> String {
    match location {
        KeyLocation::File(path) => path.display().to_string(),
        KeyLocation::Https(address) => address.clone(),
    }
}
