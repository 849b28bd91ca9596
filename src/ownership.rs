//! Whose a directory is: who owns it may put links there that lead to root's files, so in somebody else's directory root follows none.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;

/// Whether this is root at work in a directory of somebody else.
pub fn is_anothers(directory: &Path) -> bool {
    rustix::process::geteuid().is_root() && directory.metadata().is_ok_and(|directory| directory.uid() != 0)
}

/// Opens files of this directory; where no link may be followed it fails at one, and waits for nobody at a pipe.
pub fn options(directory: &Path) -> OpenOptions {
    let mut options = OpenOptions::new();
    if is_anothers(directory) {
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    options
}

/// The path by which SQLite opens this file, and the flag that goes with it. SQLite that is to follow no link wants none in the whole
/// path: those on the way to the directory are resolved before.
pub fn for_sqlite(file: &Path) -> (PathBuf, OpenFlags) {
    match (file.parent(), file.file_name()) {
        (Some(directory), Some(name)) if is_anothers(directory) => {
            let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
            (directory.join(name), OpenFlags::SQLITE_OPEN_NOFOLLOW)
        }
        _ => (file.to_owned(), OpenFlags::empty()),
    }
}

/// What root makes in somebody's directory becomes that one's, since the server that comes next is not root. What has a second name
/// elsewhere, or was another's, is not given away. Where root may not give, in a container say, the server is root as well, or says
/// what it cannot read.
pub fn hand_over(file: &File, directory: &Path) {
    if is_anothers(directory)
        && let (Ok(file_is), Ok(directory)) = (file.metadata(), directory.metadata())
        && file_is.is_file()
        && file_is.uid() == 0
        && file_is.nlink() == 1
    {
        let _ = fchown(file, Some(directory.uid()), Some(directory.gid()));
    }
}

/// Whether root would read for somebody what is not that one's: a second name of a file is as good as a link to it.
pub fn is_second_name(file: &File, directory: &Path) -> bool {
    is_anothers(directory)
        && match (file.metadata(), directory.metadata()) {
            (Ok(file), Ok(directory)) => file.nlink() > 1 && file.uid() != directory.uid(),
            _ => true,
        }
}

/// Says in words what opening this file would fail with; what is opened afterwards is opened without following links all the same.
///
/// # Errors
/// If it is a link that may not be followed.
pub fn refuse_link(file: &Path) -> io::Result<()> {
    if file.is_symlink() && file.parent().is_some_and(is_anothers) {
        let file = file.display();
        let why =
            format!("{file} is a link, and root follows none in a directory of somebody else: run this as its owner");
        return Err(io::Error::other(why));
    }
    Ok(())
}
