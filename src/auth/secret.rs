//! The key that tokens are signed with, and the file in which the server keeps one of its own.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::ownership;

/// A shared secret of at least [`Secret::BYTES_MIN`] bytes. It never shows itself, not even in `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// HS256 wants a key no shorter than its hash (RFC 7518 §3.2).
    pub const BYTES_MIN: usize = 32;
    /// The name of the server's own secret in its state directory.
    pub const FILE: &str = "jwt-secret";

    /// Takes a secret from the configuration.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let bytes = bytes.into();
        if bytes.len() < Self::BYTES_MIN { Err(SecretError::TooShort(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// Reads the server's own secret from `directory`, or makes it there. It survives restarts, and several processes
    /// that ask at once all get the same one. Blocks for one `fsync` of a file and a directory when it is made.
    pub fn of(directory: &Path) -> Result<Self, SecretError> {
        if let Some(secret) = read(directory)? {
            return Ok(secret);
        }
        make(directory)?;
        // Read back rather than returned: another process may have been first, and then its secret holds.
        read(directory)?.ok_or_else(|| SecretError::Io(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why there is no usable secret. The texts are for the operator who starts the server.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its length in bytes.
    #[error("the secret has {0} bytes; it needs at least {min}", min = Secret::BYTES_MIN)]
    TooShort(usize),
    /// The file's mode: its group or others may read or write it.
    #[error("the file {file} in the state directory is open to others (mode {0:o}); make it 0600", file = Secret::FILE)]
    TooOpen(u32),
    /// A second name of a file that is not the directory's owner's.
    #[error("{file} in the state directory is another name of a file of somebody else: remove it", file = Secret::FILE)]
    NotItsOwners,
    /// A directory, a device, a pipe, or more bytes than a secret can have.
    #[error("{file} in the state directory is not a small regular file", file = Secret::FILE)]
    NotAFile,
    /// The file could not be read or written.
    #[error("the file {file} in the state directory cannot be used: {0}", file = Secret::FILE)]
    Io(#[from] io::Error),
}

/// More than any secret needs, so that a wrong file is not read into memory.
const FILE_BYTES_MAX: u64 = 4096;

fn read(directory: &Path) -> Result<Option<Secret>, SecretError> {
    let path = directory.join(Secret::FILE);
    ownership::refuse_link(&path)?;
    let file = match ownership::options(directory).read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(SecretError::NotAFile);
    }
    if ownership::is_second_name(&file, directory) {
        return Err(SecretError::NotItsOwners);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::TooOpen(mode));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Secret::new(bytes.trim_ascii()).map(Some)
}

/// Writes a fresh secret beside the final name and links it there whole: a crash leaves either no secret or a
/// complete one, and, unlike a rename, a link never replaces the secret of a process that was faster.
fn make(directory: &Path) -> Result<(), SecretError> {
    let scratch = directory.join(format!("{}.{}", Secret::FILE, random_hex::<8>()?));
    let linked = write_new(directory, &scratch, random_hex::<32>()?.as_bytes())
        .and_then(|()| fs::hard_link(&scratch, directory.join(Secret::FILE)));
    let removed = fs::remove_file(&scratch);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    removed?;
    Ok(File::open(directory)?.sync_all()?)
}

/// Writes a file of the directory for its owner, while it has one name alone.
fn write_new(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = ownership::options(directory).write(true).create_new(true).mode(0o600).open(path)?;
    ownership::hand_over(&file, directory);
    file.write_all(text)?;
    file.sync_all()
}

/// `N` random bytes as text, so that the file's content can also be given as `JWT_SECRET`.
fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::with_capacity(2 * N);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Secret, SecretError};

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn files(directory: &tempfile::TempDir) -> usize {
        fs::read_dir(directory.path()).expect("the directory is there").count()
    }

    fn write(directory: &tempfile::TempDir, text: &str, mode: u32) {
        let path = directory.path().join(Secret::FILE);
        fs::write(&path, text).expect("a temporary file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("our own file");
    }

    #[test]
    fn the_secret_is_made_once_private_and_survives_a_restart() {
        let directory = directory();
        let made = Secret::of(directory.path()).expect("a usable directory");
        assert_eq!(Secret::of(directory.path()).expect("a usable directory"), made);
        assert_eq!(made.as_bytes().len(), 64);
        let file = fs::metadata(directory.path().join(Secret::FILE)).expect("the file is there");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(files(&directory), 1, "nothing else is left behind");
    }

    #[test]
    fn processes_that_ask_at_once_get_the_same_secret() {
        let directory = directory();
        let secrets = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Secret::of(directory.path()).expect("a usable directory"))).collect();
            asking.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert!(secrets.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(files(&directory), 1);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = directory();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            write(&directory, &"s".repeat(64), mode);
            assert!(matches!(Secret::of(directory.path()), Err(SecretError::TooOpen(found)) if found == mode));
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_not_replaced() {
        let directory = directory();
        for text in ["", "short", &format!("{}\n\n", "s".repeat(31))] {
            write(&directory, text, 0o600);
            assert!(matches!(Secret::of(directory.path()), Err(SecretError::TooShort(n)) if n < Secret::BYTES_MIN));
            assert_eq!(fs::read_to_string(directory.path().join(Secret::FILE)).expect("the file is there"), text);
        }
        write(&directory, &format!("{}\n", "s".repeat(32)), 0o600);
        assert_eq!(
            Secret::of(directory.path()).expect("a usable directory").as_bytes(),
            "s".repeat(32).as_bytes(),
            "as an editor saves it"
        );
    }

    #[test]
    fn what_is_not_a_small_file_is_refused() {
        let directory = directory();
        write(&directory, &"s".repeat(5000), 0o600);
        assert!(matches!(Secret::of(directory.path()), Err(SecretError::NotAFile)));
        fs::remove_file(directory.path().join(Secret::FILE)).expect("the file is there");
        fs::create_dir(directory.path().join(Secret::FILE)).expect("the name is free");
        assert!(matches!(Secret::of(directory.path()), Err(SecretError::NotAFile)));
        assert!(matches!(Secret::of(&directory.path().join("absent")), Err(SecretError::Io(_))));
    }

    #[test]
    fn a_secret_never_shows_itself() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef").expect("32 bytes");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(matches!(Secret::new("0123456789abcdef0123456789abcde"), Err(SecretError::TooShort(31))));
    }
}
