//! `holdfast ask` in a process of its own.

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use super::server::Process;
use super::{Finished, Launch, wait_for};

/// How `holdfast ask` is to be started.
pub(crate) struct Asker {
    launch: Launch,
}

/// One that has been started, ended by its id when it is dropped.
pub(crate) struct Asking {
    process: Process,
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
    pub(crate) fn begin(&self, arguments: &[&str]) -> Asking {
        Asking { process: Process::start(&self.launch, &[&["ask"], arguments].concat()) }
    }
}

impl Asking {
    /// Waits until the client has written a line with this text to standard error, and gives the line.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        wait_for(&format!("a line with {text:?}"), || {
            self.process.stderr().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        self.process.end()
    }
}
