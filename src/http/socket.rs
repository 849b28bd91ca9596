//! A client's socket, of whatever family.

use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

/// A connected stream socket that does not block.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// What has arrived, into `buffer`; 0 at the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(recv(&self.0, buffer, RecvFlags::empty())?.0)
    }

    /// Sends what the socket takes. A client that has gone is an error and no signal.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    /// Whether something has arrived that was not read yet.
    pub(super) fn has_unread(&self) -> bool {
        recv(&self.0, &mut [0], RecvFlags::PEEK).is_ok_and(|(peeked, _)| peeked > 0)
    }

    /// Says that nothing more will be sent.
    pub(super) fn end_output(&self) -> io::Result<()> {
        Ok(shutdown(&self.0, Shutdown::Write)?)
    }

    /// Has what is written sent at once. Best effort: without it answers are right, only later; a Unix socket has no delay.
    pub(super) fn send_at_once(&self) {
        let _ = sockopt::set_tcp_nodelay(&self.0, true);
    }
}

impl<T: Into<OwnedFd>> From<T> for Socket {
    fn from(socket: T) -> Self {
        Self(socket.into())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
