//! One client at its socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::util::{Heard, PATIENCE, Response, read_response};

/// A connection whose client sends what it likes.
pub(super) struct Peer {
    connection: BufReader<Heard>,
}

impl Peer {
    pub(super) fn connect(server: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { connection: BufReader::new(Heard::new(socket)) }
    }

    /// Sends; the server may have refused and closed before it has all of it, and what it said is read all the same.
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.connection.get_mut().write_all(bytes.as_ref()));
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.connection.get_ref()
    }

    pub(super) fn heard(&mut self) -> &mut Heard {
        self.connection.get_mut()
    }

    /// Whether there is nothing to be read within the time that the socket waits.
    pub(super) fn is_silent(&mut self) -> bool {
        self.connection.fill_buf().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Whether the other side has forgotten the connection.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self.socket().take_error(), Ok(Some(_))) || self.socket().write(b"x").is_err()
    }

    /// Says that nothing more will come.
    pub(super) fn end_sending(&self) {
        // It may be closed already.
        drop(self.socket().shutdown(Shutdown::Write));
    }

    /// The next answer; `None` if the connection ends before it, in peace or by a reset.
    pub(super) fn answer(&mut self, method: &str) -> Option<Response> {
        read_response(&mut self.connection, method).ok()
    }

    /// Whether the server closes and says nothing more; a reset is an end, too, for these clients send more than is read.
    pub(super) fn is_over(&mut self) -> bool {
        match self.connection.fill_buf() {
            Ok(rest) => rest.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Goes away as a client does that is killed: by a reset.
    pub(super) fn reset(self) {
        set_socket_linger(self.socket(), Some(Duration::ZERO)).unwrap();
    }
}
