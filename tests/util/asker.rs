//! `holdfast ask` in a process of its own.

use std::net::SocketAddr;

use super::server::Running;
use super::{Finished, Launch};

/// How `holdfast ask` is to be started.
pub(crate) struct Asker {
    launch: Launch,
}

impl Asker {
    /// This user's, with a token of the tests' secret and no configuration but the address.
    pub(crate) fn of(user: &str, server: SocketAddr) -> Self {
        let launch = Launch::holdfast().embedded().without("STATE_DIRECTORY").without("BIND").without("JWT_SECRET");
        let asker = Self { launch };
        asker.env("HOLDFAST_URL", &format!("http://{server}")).env("HOLDFAST_TOKEN", &Launch::token(user))
    }

    /// Sets a variable.
    #[must_use]
    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        Self { launch: self.launch.env(name, value) }
    }

    /// Takes a variable away.
    #[must_use]
    pub(crate) fn without(self, name: &str) -> Self {
        Self { launch: self.launch.without(name) }
    }

    /// Has a shell run these commands before it becomes the client.
    #[must_use]
    pub(crate) fn shell(self, prelude: &str) -> Self {
        Self { launch: self.launch.shell(prelude) }
    }

    /// The launch itself, for files in its home.
    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Asks and waits until the client has ended.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.begin(arguments).wait()
    }

    /// Begins to ask.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        self.launch.begin(&[&["ask"], arguments].concat())
    }
}
