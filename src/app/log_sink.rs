//! Standard error as the log writes to it, and standard output as the welcome does: whoever reads them may stop reading, and nobody
//! here waits for that.
//!
//! What is not taken at once is kept, up to a limit, and sent as soon as it is taken. Past the limit lines are lost: all of them
//! from then on, so that the gap is one gap, until somebody reads again and is told how many there were.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, RawMode, Stat, fstat, open, readlink, stat};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// What is kept for a reader that is behind, in bytes: some 1,000 lines, beside the 64 KiB of a pipe or the 8 MiB that systemd
/// gives the journal's socket.
const PENDING_BYTES_MAX: usize = 256 * 1024;
/// What a pipe takes without waiting once it says that it can be written (`PIPE_BUF`).
const CHUNK_BYTES: usize = 4096;

/// How long a terminal is left alone that has said it can be written and has then taken nothing, as one does whose reader has stopped.
const PAUSE: Duration = Duration::from_millis(2);

/// Where lines go, and those that are on their way there.
pub(super) struct Sink {
    out: OwnedFd,
    way: Way,
    pending: VecDeque<u8>,
    /// Lines that there was no room for.
    lost: u64,
    /// The path by which a regular file was opened, if it still leads there: what has moved it away later has another name for it.
    path: Option<PathBuf>,
}

/// How to write without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A socket, such as the journal's: each send says that it does not wait.
    Socket,
    /// A pipe or a terminal that was opened once more: that it does not wait is a setting of this opening, which nobody else shares.
    Own,
    /// A file, a pipe or a terminal of another user's. Not waiting would be a setting that everybody shares who has inherited it,
    /// so it is looked at before it is written. A pipe then waits only if somebody else writes in between; a terminal
    /// says that it can be written also when it cannot, and so may wait.
    Shared,
}

impl Sink {
    /// A sink for what `out` is open for.
    pub(super) fn to(out: BorrowedFd<'_>) -> io::Result<Self> {
        let open_for = fstat(out)?;
        let kind = FileType::from_raw_mode(open_for.st_mode);
        let is_shared = kind == FileType::Fifo || kind == FileType::CharacterDevice && out.is_terminal();
        let reopened = is_shared.then(|| open_once_more(out)).flatten();
        let path = (kind == FileType::RegularFile).then(|| path_of(out, &open_for)).flatten();
        let way = match (kind, &reopened) {
            (FileType::Socket, _) => Way::Socket,
            (_, Some(_)) => Way::Own,
            _ => Way::Shared,
        };
        let out = reopened.map_or_else(|| out.try_clone_to_owned(), Ok)?;
        Ok(Self { out, way, pending: VecDeque::new(), lost: 0, path })
    }

    /// Goes on in the file that its path leads to now, made if there is none, and gives that; `None` where it is the same file, or
    /// none that has a path. On an error it goes on where it was.
    pub(super) fn reopen_file(&mut self) -> io::Result<Option<BorrowedFd<'_>>> {
        let Some(path) = &self.path else { return Ok(None) };
        let before = fstat(&self.out)?;
        let mode = Mode::from_raw_mode(before.st_mode & PERMISSIONS);
        // Not waiting concerns what may be there in the place of a file.
        let file = open(path, OFlags::APPEND | OFlags::CREATE | FLAGS, mode)?;
        let now = fstat(&file)?;
        if is_same(&before, &now) {
            return Ok(None);
        }
        if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("what is in the place of the file is none"));
        }
        self.out = file;
        Ok(Some(self.out.as_fd()))
    }

    /// Whether it leads where this does.
    pub(super) fn leads_where(&self, other: BorrowedFd<'_>) -> bool {
        matches!((fstat(&self.out), fstat(other)), (Ok(one), Ok(other)) if is_same(&one, &other))
    }

    /// Whether there is something that has not been taken yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether a person may be looking.
    pub(super) fn is_terminal(&self) -> bool {
        self.out.is_terminal()
    }

    /// Writes a line, or keeps it, or counts it as lost. Does not block.
    pub(super) fn write(&mut self, line: &[u8]) {
        self.flush();
        if self.lost > 0 || self.pending.len() + line.len() > PENDING_BYTES_MAX {
            self.lost += 1;
            return;
        }
        let sent = if self.pending.is_empty() { self.send(line) } else { 0 };
        self.pending.extend(&line[sent..]);
    }

    /// Sends what is taken of that which was kept. Does not block.
    pub(super) fn flush(&mut self) {
        while !self.pending.is_empty() {
            let sent = self.send(self.pending.as_slices().0);
            if sent == 0 {
                return;
            }
            self.pending.drain(..sent);
        }
        // What a stalled reader has cost is given back.
        if self.pending.capacity() > 0 {
            self.pending = VecDeque::new();
        }
    }

    /// How many lines were lost, once everything that came before them has been taken; then none are lost any more.
    pub(super) fn take_lost(&mut self) -> u64 {
        if self.pending.is_empty() { std::mem::take(&mut self.lost) } else { 0 }
    }

    /// Waits until what was kept has been taken, at most until `deadline`.
    pub(super) fn settle(&mut self, deadline: Instant) {
        self.flush();
        while !self.pending.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.can_be_written(left) {
                return;
            }
            let before = self.pending.len();
            self.flush();
            if self.pending.len() == before {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// How many bytes were taken. All of them if nobody will ever read them: whoever has closed the other end, or filled the
    /// disk under a file, has nothing to be told by a log.
    fn send(&self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let written = match self.way {
                Way::Socket => send(&self.out, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
                Way::Own => rustix::io::write(&self.out, rest),
                Way::Shared if !self.can_be_written(Duration::ZERO) => return sent,
                Way::Shared => rustix::io::write(&self.out, &rest[..rest.len().min(CHUNK_BYTES)]),
            };
            match written {
                Ok(0) | Err(Errno::AGAIN) => return sent,
                Ok(bytes) => sent += bytes,
                Err(Errno::INTR) => {}
                Err(_) => return bytes.len(),
            }
        }
        sent
    }

    fn can_be_written(&self, within: Duration) -> bool {
        let within = Timespec::try_from(within).ok();
        let mut polled = [PollFd::new(&self.out, PollFlags::OUT)];
        // An error, or an end without a reader, is something that a write finds out, at once.
        poll(&mut polled, within.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// How something is opened to be written without waiting.
const FLAGS: OFlags = OFlags::WRONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
/// The bits of a file's mode that say who may do what.
const PERMISSIONS: RawMode = 0o777;

/// The same pipe or terminal, opened so that writing does not wait; not where it belongs to somebody else, or has no reader.
fn open_once_more(out: BorrowedFd<'_>) -> Option<OwnedFd> {
    open(link_of(out), FLAGS, Mode::empty()).ok()
}

/// The path by which a file was opened, if it still leads to it.
fn path_of(out: BorrowedFd<'_>, open_for: &Stat) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(readlink(link_of(out), Vec::new()).ok()?.into_bytes()));
    stat(&path).is_ok_and(|found| is_same(&found, open_for)).then_some(path)
}

fn link_of(out: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", out.as_raw_fd())
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::io::{PipeReader, Read, pipe};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

    use super::*;

    fn lines(from: u64, to: u64) -> String {
        (from..to).map(|number| format!("line {number} {}\n", "x".repeat(80))).collect::<Vec<_>>().concat()
    }

    /// Writes lines until one is lost, and gives the number of the first that was.
    fn write_until_lost(sink: &mut Sink) -> u64 {
        let first = (0..100_000).find(|number| {
            sink.write(lines(*number, number + 1).as_bytes());
            sink.lost > 0
        });
        first.expect("there is a limit")
    }

    /// Reads everything that is on its way, while the sink sends it.
    fn read_all(sink: &mut Sink, reader: &mut impl Read, bytes: usize) -> String {
        let mut read = Vec::new();
        let mut buffer = vec![0; 4096];
        while read.len() < bytes {
            sink.flush();
            let n = reader.read(&mut buffer).expect("it can be read");
            read.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(read).expect("it is text")
    }

    fn a_reader_that_stops_loses_one_gap(mut sink: Sink, mut reader: impl Read) {
        let first_lost = write_until_lost(&mut sink);
        sink.write(b"this one is lost as well\n");
        assert_eq!((sink.take_lost(), sink.lost), (0, 2), "what comes before has not been read");
        assert!(sink.pending.len() > PENDING_BYTES_MAX - 200, "{}", sink.pending.len());

        let expected = lines(0, first_lost);
        assert_eq!(read_all(&mut sink, &mut reader, expected.len()), expected);
        sink.write(b"and this one, since nobody has been told yet\n");
        assert_eq!((sink.take_lost(), sink.take_lost()), (3, 0));
        sink.write(b"this one is not\n");
        assert_eq!(read_all(&mut sink, &mut reader, 16), "this one is not\n");
        assert_eq!(sink.pending.capacity(), 0, "the memory is given back");
    }

    #[test]
    fn a_pipe_whose_reader_stops_loses_one_gap() {
        let (reader, writer) = pipe().unwrap();
        let sink = Sink::to(writer.as_fd()).unwrap();
        assert_eq!(sink.way, Way::Own);
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "whoever shares it waits as before");
        a_reader_that_stops_loses_one_gap(sink, reader);
    }

    /// A terminal says that it can be written also when nobody takes what it has.
    #[test]
    fn a_terminal_whose_reader_stops_loses_one_gap() {
        let reader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&reader).unwrap();
        unlockpt(&reader).unwrap();
        let name = ptsname(&reader, Vec::new()).unwrap();
        let terminal = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut raw = tcgetattr(&terminal).unwrap();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).unwrap();
        // A sink that waits has its own thread, so that the test fails instead of waiting with it.
        let (done, is_done) = channel();
        std::thread::spawn(move || {
            let sink = Sink::to(terminal.as_fd()).unwrap();
            assert!(sink.is_terminal() && sink.way == Way::Own);
            let flags = rustix::fs::fcntl_getfl(&terminal).unwrap();
            assert!(!flags.contains(OFlags::NONBLOCK), "whoever shares it waits as before");
            a_reader_that_stops_loses_one_gap(sink, File::from(reader));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(30)).expect("nobody waits for the reader");
    }

    #[test]
    fn a_file_that_was_moved_away_is_gone_on_with_where_it_was_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let [path, moved] = ["log", "log.1"].map(|name| directory.path().join(name));
        let file = File::create(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut sink = Sink::to(file.as_fd()).unwrap();
        sink.write(b"one\n");
        assert!(sink.reopen_file().unwrap().is_none(), "it is the same still");
        std::fs::rename(&path, &moved).unwrap();
        sink.write(b"two\n");
        assert!(sink.reopen_file().unwrap().is_some());
        sink.write(b"three\n");
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((&*read(&moved), &*read(&path)), ("one\ntwo\n", "three\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & PERMISSIONS, 0o600);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(sink.reopen_file().is_err());
        sink.write(b"four\n");
        let (_reader, writer) = pipe().unwrap();
        assert!(Sink::to(writer.as_fd()).unwrap().reopen_file().unwrap().is_none());
    }

    #[test]
    fn a_socket_whose_reader_stops_loses_one_gap() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let sink = Sink::to(writer.as_fd()).unwrap();
        assert_eq!(sink.way, Way::Socket);
        a_reader_that_stops_loses_one_gap(sink, reader);
    }

    #[test]
    fn what_cannot_be_opened_again_is_looked_at_before_it_is_written() {
        let (reader, writer): (PipeReader, _) = pipe().unwrap();
        let sink = Sink { way: Way::Shared, out: writer.into(), pending: VecDeque::new(), lost: 0, path: None };
        a_reader_that_stops_loses_one_gap(sink, reader);
    }

    #[test]
    fn nothing_is_kept_for_a_reader_that_has_gone() {
        let (reader, writer) = pipe().unwrap();
        let mut sink = Sink::to(writer.as_fd()).unwrap();
        drop(reader);
        for _ in 0..10_000 {
            sink.write(lines(0, 1).as_bytes());
        }
        assert_eq!((sink.pending.len(), sink.lost), (0, 0));
    }

    #[test]
    fn an_end_waits_for_a_slow_reader_and_not_for_one_that_has_stopped() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut sink = Sink::to(writer.as_fd()).unwrap();
        let lost = write_until_lost(&mut sink);
        sink.settle(Instant::now() + Duration::from_millis(10));
        assert!(!sink.pending.is_empty());
        let bytes = lines(0, lost).len();
        let slow = std::thread::spawn(move || {
            let mut read = vec![0; bytes];
            reader.read_exact(&mut read).map(|()| read)
        });
        sink.settle(Instant::now() + Duration::from_secs(30));
        assert!(sink.pending.is_empty());
        assert_eq!(slow.join().unwrap().unwrap(), lines(0, lost).as_bytes());
    }
}
