//! The directory that is this instance: its data and its identity. One process at a time holds it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::domain::InstanceId;
use crate::ownership;

/// The lock file, in the state directory; the kernel gives up the lock when the process ends, however it ends.
pub const LOCK_FILE: &str = "lock";
/// The file that holds the instance's id.
const INSTANCE: &str = "instance";

/// The state directory, locked.
pub struct StateDirectory {
    path: PathBuf,
    instance: InstanceId,
    _lock: File,
}

/// Why the state directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateDirectoryError {
    /// It cannot be made or written.
    #[error("the state directory {path} cannot be used: {cause}. Set STATE_DIRECTORY to one that this user may write")]
    Unusable {
        /// The directory.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Another process holds it.
    #[error(
        "the state directory {0} is in use by another process: stop that one first, or set STATE_DIRECTORY to another"
    )]
    Locked(String),
    /// The identity is not readable.
    #[error("{0} does not hold an instance id; restore it from a backup, or remove it if no other server runs")]
    BadInstance(String),
}

impl StateDirectory {
    /// Makes the directory if need be, locks it, and reads or makes the instance's id.
    ///
    /// # Errors
    /// If it cannot be written, or another process has it.
    pub fn open(path: &Path) -> Result<Self, StateDirectoryError> {
        make(path)?;
        let unusable = |cause| StateDirectoryError::Unusable { path: path.display().to_string(), cause };
        let lock = kept(path, LOCK_FILE).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateDirectoryError::Locked(path.display().to_string()));
            }
            Err(errno) => return Err(unusable(errno.into())),
        }
        let instance = instance(path)?;
        Ok(Self { path: path.to_owned(), instance, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Holder of the claims of whichever process has this directory.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}

/// Makes the directory (0700) if there is none.
fn make(path: &Path) -> Result<(), StateDirectoryError> {
    let unusable = |cause| StateDirectoryError::Unusable { path: path.display().to_string(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)
}

/// Makes this file in the directory, empty, if there is none. SQLite gives the companions of its files to their owner by itself.
pub(super) fn make_file(directory: &Path, name: &str) -> Result<(), StateDirectoryError> {
    make(directory)?;
    let unusable = |cause| StateDirectoryError::Unusable { path: directory.join(name).display().to_string(), cause };
    kept(directory, name).map(drop).map_err(unusable)
}

/// Opens this file of the directory, as it is or empty.
fn kept(directory: &Path, name: &str) -> std::io::Result<File> {
    let path = directory.join(name);
    ownership::refuse_link(&path)?;
    let file = private(directory).create(true).truncate(false).open(path)?;
    ownership::hand_over(&file, directory);
    Ok(file)
}

/// Writes this file of the directory, in place of what has its name. It is written aside and renamed: a crash in between leaves no half
/// of it, and it outlasts a power failure once this returns.
pub(super) fn write_whole(directory: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let aside = format!("{name}.new");
    let mut file = fresh(directory, &aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(directory.join(aside), directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Makes this file of the directory, in place of what has its name: that may be left of a crash, or be a link, which is not followed.
fn fresh(directory: &Path, name: &str) -> std::io::Result<File> {
    let path = directory.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = private(directory).create_new(true).open(path)?;
    ownership::hand_over(&file, directory);
    Ok(file)
}

fn private(directory: &Path) -> OpenOptions {
    let mut options = ownership::options(directory);
    options.read(true).write(true).mode(0o600);
    options
}

fn instance(directory: &Path) -> Result<InstanceId, StateDirectoryError> {
    let path = directory.join(INSTANCE);
    let unusable = |cause| StateDirectoryError::Unusable { path: path.display().to_string(), cause };
    match ownership::options(directory).read(true).open(&path) {
        Ok(mut file) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(unusable)?;
            text.trim().parse().map_err(|_| StateDirectoryError::BadInstance(path.display().to_string()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let instance = InstanceId::new();
            write_whole(directory, INSTANCE, &format!("{instance}\n")).map_err(unusable)?;
            Ok(instance)
        }
        Err(error) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_survives_and_a_second_holder_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = StateDirectory::open(&path).unwrap();
        assert!(matches!(StateDirectory::open(&path), Err(StateDirectoryError::Locked(_))));
        let instance = first.instance();
        drop(first);
        assert_eq!(StateDirectory::open(&path).unwrap().instance(), instance);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(INSTANCE), "who?").unwrap();
        assert!(matches!(StateDirectory::open(directory.path()), Err(StateDirectoryError::BadInstance(_))));
        assert_eq!(std::fs::read(directory.path().join(INSTANCE)).unwrap(), b"who?");
    }
}
