//! Where published keys come from: a file that somebody replaces, or an issuer's address.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ureq::Agent;
use ureq::http::header::{AGE, CACHE_CONTROL};
use ureq::http::{HeaderMap, HeaderName, StatusCode};

use super::{KeySet, KeySetError};
use crate::config::KeyLocation;
use crate::trust;

/// From the first step of resolving the name to the last byte: an issuer answers within a tenth of a second.
const FETCH_WAIT: Duration = Duration::from_secs(10);
/// An address that has moved, and perhaps to a host nearby.
const REDIRECTS_MAX: u32 = 3;
/// How long a fetched set is used at least before it is fetched again, whatever the issuer says, unless a key is missing.
const FRESH_MIN: Duration = Duration::from_secs(5 * 60);
/// How long it is used at most: so long may a key still be accepted that its issuer has withdrawn.
const FRESH_MAX: Duration = Duration::from_secs(60 * 60);

/// The place of a key set.
pub struct KeySource(Place);

enum Place {
    File {
        path: PathBuf,
        /// What it was like just before it was read last.
        read: Option<Stamp>,
    },
    Https(String),
}

impl KeySource {
    /// The source at this place; nothing is read yet.
    pub fn new(location: &KeyLocation) -> Self {
        Self(match location {
            KeyLocation::File(path) => Place::File { path: path.clone(), read: None },
            KeyLocation::Https(address) => Place::Https(address.clone()),
        })
    }

    /// Whether it is on this machine, so that its keys are there at the start or never.
    pub fn is_file(&self) -> bool {
        matches!(self.0, Place::File { .. })
    }

    /// The keys as they are there now, and how long not to ask again. Blocks as long as the disk does, or up to ten seconds.
    pub fn load(&mut self) -> Result<(KeySet, Duration), KeySourceError> {
        match &mut self.0 {
            Place::File { path, read } => {
                // Before it is read: what is written meanwhile is a change.
                *read = Stamp::of(path);
                // A file is looked at all the time, so there is no further need to read it.
                Ok((KeySet::parse(&contents(path)?)?, FRESH_MAX))
            }
            Place::Https(address) => {
                let (document, fresh_for) = fetch(address)?;
                Ok((KeySet::parse(&document)?, fresh_for))
            }
        }
    }

    /// Whether a file is another one than was read last, or gone since.
    pub(super) fn has_changed(&self) -> bool {
        match &self.0 {
            Place::File { path, read } => Stamp::of(path) != *read,
            Place::Https(_) => false,
        }
    }
}

/// Why there are no keys. None of the texts names the place.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// The file cannot be opened or read.
    #[error("the file cannot be read: {}", .0.kind())]
    File(io::Error),
    /// It is a directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// No answer, or none that counts; why.
    #[error("{0}")]
    Address(&'static str),
    /// The address answers, but not with 200.
    #[error("the address answers {}", .0.as_u16())]
    Status(StatusCode),
    /// What is there is no set of keys.
    #[error("what is there is no key set: {0}")]
    Keys(#[from] KeySetError),
}

/// What tells that a file was written or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// Of the file at the end of all links.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self { device: file.dev(), inode: file.ino(), bytes: file.len(), modified: file.modified().ok() })
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, KeySourceError> {
    // Before it is opened: that of a pipe would wait for a writer.
    if !fs::metadata(path).map_err(KeySourceError::File)?.is_file() {
        return Err(KeySourceError::NotAFile);
    }
    let mut document = Vec::new();
    let file = File::open(path).map_err(KeySourceError::File)?;
    file.take(KeySet::BYTES_MAX as u64 + 1).read_to_end(&mut document).map_err(KeySourceError::File)?;
    Ok(document)
}

fn fetch(address: &str) -> Result<(Vec<u8>, Duration), KeySourceError> {
    // Made for each fetch, so that the authorities are those of then and take no memory in between.
    let agent: Agent = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .max_idle_connections(0)
        .timeout_global(Some(FETCH_WAIT))
        .tls_config(trust::https())
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut response = agent.get(address).header("Accept", "application/json").call().map_err(refusal)?;
    if response.status() != StatusCode::OK {
        return Err(KeySourceError::Status(response.status()));
    }
    let fresh_for = fresh_for(response.headers());
    let body = response.body_mut().with_config().limit(KeySet::BYTES_MAX as u64);
    Ok((body.read_to_vec().map_err(refusal)?, fresh_for))
}

fn refusal(error: ureq::Error) -> KeySourceError {
    KeySourceError::Address(match error {
        // So rustls tells that it does not trust the server, or that what answers does not speak TLS.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => "no encrypted connection can be made",
        // A resolver's error has no kind of its own.
        ureq::Error::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            "the name cannot be resolved"
        }
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => "the connection is refused",
        ureq::Error::Timeout(_) => "there is no answer in time",
        ureq::Error::HostNotFound => "the name cannot be resolved",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "no encrypted connection can be made",
        ureq::Error::RequireHttpsOnly(_) => "the address leads to one that is not encrypted",
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => "the address leads from one to another",
        ureq::Error::BodyExceedsLimit(_) => return KeySetError::TooLarge.into(),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => "what answers does not speak HTTP",
        _ => "the connection breaks",
    })
}

/// How long the issuer says that its answer may be used, within our bounds; the shortest time if it does not say.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let values = |name: HeaderName| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let directives = values(CACHE_CONTROL).flat_map(|value| value.split(',')).map(str::trim);
    let max_age = directives
        .filter_map(|directive| directive.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))
        .find_map(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok());
    let age = values(AGE).find_map(|seconds| seconds.trim().parse::<u64>().ok()).unwrap_or(0);
    Duration::from_secs(max_age.unwrap_or(0).saturating_sub(age)).clamp(FRESH_MIN, FRESH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header's value"))).collect()
    }

    #[test]
    fn the_issuer_says_how_long_its_keys_are_fresh_within_bounds() {
        for (lines, minutes) in [
            (&[][..], 5),
            (&[(CACHE_CONTROL, "public, max-age=1200, must-revalidate")][..], 20),
            (&[(CACHE_CONTROL, "public"), (CACHE_CONTROL, "Max-Age = \"1200\"")], 20),
            (&[(CACHE_CONTROL, "max-age=1800"), (AGE, "600")], 20),
            (&[(CACHE_CONTROL, "max-age=60")], 5),
            (&[(CACHE_CONTROL, "max-age=600"), (AGE, "100000")], 5),
            (&[(CACHE_CONTROL, "no-store")], 5),
            (&[(CACHE_CONTROL, "max-age=soon, s-maxage=1200")], 5),
            (&[(CACHE_CONTROL, "max-age=31536000")], 60),
            (&[(CACHE_CONTROL, "max-age=18446744073709551615")], 60),
        ] {
            assert_eq!(fresh_for(&headers(lines)), Duration::from_secs(minutes * 60), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_small_regular_file_is_not_read() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let load = |path: PathBuf| KeySource::new(&KeyLocation::File(path)).load();
        assert!(matches!(load(directory.path().join("absent")), Err(KeySourceError::File(_))));
        assert!(matches!(load(directory.path().to_owned()), Err(KeySourceError::NotAFile)));
        assert!(matches!(load("/dev/zero".into()), Err(KeySourceError::NotAFile)));
        let large = directory.path().join("large");
        File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a file of nothing");
        assert!(matches!(load(large), Err(KeySourceError::Keys(KeySetError::TooLarge))));
    }
}
