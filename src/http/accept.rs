//! New connections, and what happens when there is no room for one.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags};

use super::connection::{Connection, Phase};
use super::front::Front;
use super::limits::ACCEPTS_MAX;
use super::refusal::Refusal;
use super::request::Peer;
use super::socket::Socket;
use crate::event;

/// A listening socket in the epoll set.
#[derive(Debug)]
pub(super) struct Listener {
    /// The data of its events.
    data: u64,
    /// `None` once it is closed. The lock is held for one `accept`.
    socket: Mutex<Option<OwnedFd>>,
    is_local: bool,
    /// A descriptor that is given up when there is no other, so that a connection can be accepted, and so refused.
    reserve: Mutex<Option<File>>,
    /// Threads that are about to accept, or have not given what they have accepted its place yet.
    admitting: AtomicUsize,
    /// Armed by the sweeps only: there was not even a descriptor to refuse with.
    is_paused: AtomicBool,
}

enum Accepted {
    Connection(Socket, Peer),
    /// The client has gone again.
    Nothing,
    /// No one else waits.
    Drained,
    /// No descriptors, or no memory.
    Exhausted,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, data: u64, front: &Front) -> io::Result<Listener> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let listener = Listener {
            data,
            is_local: rustix::net::getsockname(&socket)?.address_family() == AddressFamily::UNIX,
            socket: Mutex::new(Some(socket)),
            reserve: Mutex::new(Some(open_reserve()?)),
            admitting: AtomicUsize::new(0),
            is_paused: AtomicBool::new(false),
        };
        if let Some(socket) = listener.socket.lock().as_ref() {
            epoll::add(&front.epoll, socket, EventData::new_u64(data), EventFlags::IN | EventFlags::ONESHOT)?;
        }
        Ok(listener)
    }

    /// Closes the socket. Whoever connects from now on is refused by the kernel, or waits for another process that has it too:
    /// then closing alone would not take it out of the epoll set.
    pub(super) fn close(&self, front: &Front) {
        if let Some(socket) = self.socket.lock().take() {
            let _ = epoll::delete(&front.epoll, &socket);
        }
    }

    /// Admits some of those who wait, then lets the epoll set watch for more.
    pub(super) fn on_event(&self, front: &Arc<Front>) {
        self.admitting.fetch_add(1, Ordering::SeqCst);
        self.admit_some(front);
        self.admitting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether somebody may have been accepted who has no place yet.
    pub(super) fn is_admitting(&self) -> bool {
        self.admitting.load(Ordering::SeqCst) > 0
    }

    /// Whether somebody has connected whom nobody has accepted. Does not block.
    pub(super) fn has_waiting(&self) -> bool {
        let socket = self.socket.lock();
        socket.as_ref().is_some_and(|socket| {
            let mut look = [PollFd::new(socket, PollFlags::IN)];
            poll(&mut look, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        })
    }

    fn admit_some(&self, front: &Arc<Front>) {
        for _ in 0..ACCEPTS_MAX {
            match self.accept() {
                Accepted::Connection(socket, peer) => admit(front, socket, peer),
                Accepted::Nothing => {}
                Accepted::Drained => break,
                Accepted::Exhausted if self.refuse_one(front) => {}
                Accepted::Exhausted => {
                    if !self.is_paused.swap(true, Ordering::AcqRel) {
                        tracing::warn!(
                            event = event::HTTP_ACCEPT_PAUSED,
                            "no descriptor is left to accept a connection"
                        );
                    }
                    // Armed, the listener would wake the threads again and again for nothing.
                    return;
                }
            }
        }
        self.is_paused.store(false, Ordering::Release);
        self.arm(front);
    }

    /// Tries again what had to pause.
    pub(super) fn resume(&self, front: &Front) {
        if self.is_paused.load(Ordering::Acquire) {
            self.arm(front);
        }
    }

    fn arm(&self, front: &Front) {
        if let Some(socket) = self.socket.lock().as_ref() {
            let armed = epoll::modify(
                &front.epoll,
                socket,
                EventData::new_u64(self.data),
                EventFlags::IN | EventFlags::ONESHOT,
            );
            armed.expect("a listener stays in the epoll set for as long as it is open");
        }
    }

    fn accept(&self) -> Accepted {
        let socket = self.socket.lock();
        let Some(socket) = socket.as_ref() else { return Accepted::Drained };
        match rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((accepted, _)) if self.is_local => Accepted::Connection(accepted.into(), Peer::Local),
            Ok((accepted, peer)) => match peer.map(SocketAddr::try_from) {
                Some(Ok(peer)) => Accepted::Connection(accepted.into(), Peer::Net(peer)),
                _ => Accepted::Nothing,
            },
            Err(Errno::AGAIN) => Accepted::Drained,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Accepted::Exhausted,
            // All others concern the one connection that was next (accept(2), "Error handling").
            Err(_) => Accepted::Nothing,
        }
    }

    /// Accepts one with the reserved descriptor, says why it is closed, and takes the descriptor back. False when that did
    /// not work: another thread was quicker to use it, or it is not the descriptors that are missing.
    fn refuse_one(&self, front: &Front) -> bool {
        let refusal = Refusal::TooManyConnections;
        // Before the lock, since the service renders it.
        let answer = front.refusal_bytes(&refusal);
        let mut reserve = self.reserve.lock();
        drop(reserve.take());
        let accepted = self.accept();
        // Best effort: there is no descriptor to keep the connection with until its client has read this.
        let is_sent = matches!(&accepted, Accepted::Connection(socket, _) if socket.write(&answer).is_ok());
        let is_refused = !matches!(accepted, Accepted::Exhausted);
        drop(accepted);
        *reserve = open_reserve().ok();
        let is_back = reserve.is_some();
        drop(reserve);
        if is_sent {
            front.note_refusal(&refusal);
        }
        is_refused && is_back
    }
}

#[cfg(test)]
impl Listener {
    pub(super) fn take_reserve(&self) -> Option<File> {
        self.reserve.lock().take()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }
}

fn open_reserve() -> io::Result<File> {
    File::open("/dev/null")
}

/// Begins a connection's life. Past `connections_max` the idlest connection makes room; where none is idle, the new one is told so.
fn admit(front: &Arc<Front>, socket: Socket, peer: Peer) {
    let Some(seat) = front.slots.reserve() else { return };
    socket.send_at_once();
    let mut connection = Box::new(Connection::new(seat, socket, peer));
    if front.slots.used() <= front.limits.connections_max || evict_idlest(front) {
        front.accepted.fetch_add(1, Ordering::Relaxed);
        connection.await_request(Instant::now(), &front.limits);
        front.watch(connection);
    } else if front.register(&connection, EventFlags::empty()) {
        front.refuse_for_good(connection, &Refusal::TooManyConnections, None);
    }
}

/// Closes the connection that has waited longest for its next request, if that request is not just coming in.
fn evict_idlest(front: &Front) -> bool {
    let is_idle = |connection: &Connection| connection.phase == Phase::Idle && !connection.has_pipelined();
    for _ in 0..EVICTION_TRIES {
        let idle_since = |connection: &Connection| is_idle(connection).then_some(connection.deadline);
        let Some(idlest) = front.slots.least(idle_since) else { return false };
        let Some(mut connection) = front.slots.take(idlest, is_idle) else { continue };
        if !connection.has_unread() {
            return true;
        }
        connection.deadline = None;
        connection.await_request(Instant::now(), &front.limits);
        front.rewatch(connection);
    }
    false
}

/// Each try that fails met a connection whose request was just arriving.
const EVICTION_TRIES: usize = 8;
