//! Where the server listens: on the sockets that a service manager passed, else where `BIND` says.

use std::fs::symlink_metadata;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, chmod, fstat, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, connect, getsockname, socket_with, sockopt,
};

use super::StartError;
use super::inherited::Passed;
use crate::config::{Bind, Config};
use crate::http::Server;

/// Everybody on this machine may connect, as to a port of its loopback address; tokens say who may come in.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// Sockets that are listened on.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) sockets: Vec<OwnedFd>,
    /// Where, in the same order; never empty.
    pub(super) places: Vec<Bind>,
    /// Whether somebody else keeps the sockets, so that whoever connects is answered by the next process.
    pub(super) is_passed: bool,
    /// The file of a Unix socket that was made here, removed when this is dropped.
    pub(super) file: Option<SocketFile>,
}

/// A socket's file, for as long as it is listened on.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number: whether it is still the same.
    identity: (u64, u64),
}

impl Listening {
    /// Listens on what was passed, if anything was, else where the configuration says.
    pub(super) fn open(config: &Config, passed: Vec<Passed>) -> Result<Self, StartError> {
        if !passed.is_empty() {
            return Self::on_passed(config, passed);
        }
        let failed = |error| StartError::Bind(config.bind.clone(), error);
        let (socket, place, file) = match &config.bind {
            Bind::Net(address) => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                let place = listener.local_addr().map_err(failed)?;
                (listener.into(), Bind::Net(place), None)
            }
            Bind::Unix(path) => {
                let (listener, file) = bind_unix(path).map_err(failed)?;
                (listener.into(), config.bind.clone(), Some(file))
            }
        };
        Ok(Self { sockets: vec![socket], places: vec![place], is_passed: false, file })
    }

    fn on_passed(config: &Config, passed: Vec<Passed>) -> Result<Self, StartError> {
        if passed.len() > Server::LISTENERS_MAX {
            return Err(StartError::TooManySockets(passed.len()));
        }
        let mut places = Vec::new();
        for Passed { name, socket } in &passed {
            let place = place_of_listener(socket).ok_or_else(|| StartError::NoListener(name.clone()))?;
            if config.is_open_at(&place) {
                return Err(StartError::OpenSocket(name.clone(), place));
            }
            places.push(place);
        }
        let sockets = passed.into_iter().map(|passed| passed.socket).collect();
        Ok(Self { sockets, places, is_passed: true, file: None })
    }
}

/// Where a stream socket listens; `None` of anything else.
fn place_of_listener(socket: &OwnedFd) -> Option<Bind> {
    let is_listener =
        sockopt::socket_type(socket).ok()? == SocketType::STREAM && sockopt::socket_acceptconn(socket).ok()?;
    let address: SocketAddrAny = getsockname(socket).ok().filter(|_| is_listener)?;
    if let Ok(address) = address.clone().try_into() {
        return Some(Bind::Net(address));
    }
    let address: SocketAddrUnix = address.try_into().ok()?;
    let shown = match (address.path_bytes(), address.abstract_name()) {
        (Some(path), _) => String::from_utf8_lossy(path).into_owned(),
        (None, name) => format!("@{}", String::from_utf8_lossy(name.unwrap_or_default())),
    };
    Some(Bind::Unix(shown.into()))
}

/// Listens on a file, in the place of one that a dead process has left.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let is_socket = symlink_metadata(path)?.file_type().is_socket();
            if !(is_socket && is_left(path)?) {
                return Err(if is_socket { error } else { io::Error::other("there is a file that is no socket") });
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let file = SocketFile::open_to_all(path)?;
    Ok((listener, file))
}

/// Whether nobody listens on a socket's file any more. Does not wait: who does not come to accepting is there all the same.
fn is_left(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&probe, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED))
}

impl SocketFile {
    /// Lets everybody connect to the socket of this name. Whoever owns the directory may have put something else there since the
    /// socket was made: no link is followed, and a second name of another file is as good as one.
    fn open_to_all(path: &Path) -> io::Result<Self> {
        let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Socket || found.st_nlink != 1 {
            return Err(io::Error::other("somebody has put another file in the place of the socket"));
        }
        chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), MODE)?;
        Ok(Self { path: path.to_owned(), identity: (found.st_dev, found.st_ino) })
    }
}

/// Removes the file, unless somebody has put another in its place.
impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = symlink_metadata(&self.path)
            .is_ok_and(|file| file.file_type().is_socket() && (file.dev(), file.ino()) == self.identity);
        if is_ours {
            // If it stays, the next start removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::net::{bind, listen};

    use super::*;

    fn socket() -> OwnedFd {
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap()
    }

    fn mode(path: &Path) -> Mode {
        Mode::from_raw_mode(symlink_metadata(path).unwrap().permissions().mode())
    }

    #[test]
    fn what_has_taken_the_place_of_a_socket_is_not_opened_to_anybody() {
        let directory = tempfile::tempdir().unwrap();
        let [path, file, private] = ["socket", "file", "private"].map(|name| directory.path().join(name));
        std::fs::write(&file, "somebody's").unwrap();
        let _private = UnixListener::bind(&private).unwrap();
        let put_there: [fn(&Path, &Path) -> io::Result<()>; 2] =
            [|of, path| symlink(of, path), |of, path| std::fs::hard_link(of, path)];
        for of in [&file, &private] {
            let before = mode(of);
            for put in put_there {
                put(of, &path).unwrap();
                let refused = SocketFile::open_to_all(&path).unwrap_err();
                assert!(refused.to_string().contains("another file"), "{refused}");
                assert_eq!(mode(of), before);
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_living_socket_that_accepts_nobody_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = SocketAddrUnix::new(&*path).unwrap();
        let listener = socket();
        bind(&listener, &address).unwrap();
        listen(&listener, 1).unwrap();
        let waiting = std::iter::repeat_with(socket).take_while(|socket| connect(socket, &address).is_ok());
        let _waiting: Vec<OwnedFd> = waiting.collect();
        let (tell, told) = channel();
        std::thread::spawn(move || tell.send(bind_unix(&path).map(drop).map_err(|error| error.kind())));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(Err(ErrorKind::AddrInUse)));
    }

    #[test]
    fn a_dead_sockets_file_is_replaced_and_a_living_ones_or_anothers_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // Dropped without having been removed, as by a process that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let (_living, file) = bind_unix(&path).unwrap();
        assert_eq!(mode(&path), MODE);
        assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody's").unwrap();
        assert!(bind_unix(&path).unwrap_err().to_string().contains("no socket"));
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's", "it is not ours");
        std::fs::remove_file(&path).unwrap();
        let (_listener, file) = bind_unix(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }
}
