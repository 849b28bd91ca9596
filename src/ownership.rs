//! Whose a directory is: who owns it may put links there that lead to root's files, so in somebody else's directory root follows none.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;

/// Whether this is root at work in a directory of somebody else.
pub fn is_anothers(directory: &Path) -> bool {
    rustix::process::geteuid().is_root() && directory.metadata().is_ok_and(|directory| directory.uid() != 0)
}

/// Opens files of this directory; fails at a link where none may be followed.
pub fn options(directory: &Path) -> OpenOptions {
    let mut options = OpenOptions::new();
    if is_anothers(directory) {
        options.custom_flags(libc::O_NOFOLLOW);
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
