//! The mark of a store that moves or has moved: a file beside it, so that the store itself stays as it is.

use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;

use crate::app::state_directory;
use crate::ownership;
use crate::store::StoreError;

/// The file of the mark, in the state directory.
pub(super) const FILE: &str = "moved-to-postgresql";

/// How far the move of a store is, as far as the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It has begun, under this id.
    Begun(Uuid),
    /// It has ended, at this time.
    Ended(Uuid, String),
}

impl Mark {
    /// What is marked in this directory; `None` where nothing ever moved.
    ///
    /// # Errors
    /// If it cannot be read, or says something else.
    pub(super) fn read(directory: &Path) -> std::io::Result<Option<Self>> {
        let opened = ownership::options(directory).read(true).open(directory.join(FILE));
        let text = match opened.and_then(std::io::read_to_string) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let mark = match words[..] {
            ["begun", id] => id.parse().ok().map(Self::Begun),
            ["ended", id, at] => id.parse().ok().map(|id| Self::Ended(id, at.to_owned())),
            _ => None,
        };
        mark.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Writes the mark so that it is whole and outlasts a power failure once this returns.
    ///
    /// # Errors
    /// If it cannot be written; it is then as it was.
    pub(super) fn write(&self, directory: &Path) -> std::io::Result<()> {
        let text = match self {
            Self::Begun(id) => format!("begun {id}\n"),
            Self::Ended(id, at) => format!("ended {id} {at}\n"),
        };
        state_directory::write_whole(directory, FILE, &text)
    }
}

/// Refuses a store that moves or has moved: what it accepted would be lost to whoever uses the other one.
///
/// # Errors
/// `Refused`, saying what to do.
pub(crate) fn refuse_moved(directory: &Path) -> Result<(), StoreError> {
    let (shown, file) = (directory.display(), directory.join(FILE));
    let file = file.display();
    let why = match Mark::read(directory) {
        Ok(None) => return Ok(()),
        Ok(Some(Mark::Begun(_))) => format!(
            "the store in {shown} is on its way to PostgreSQL: finish that with DATABASE_URL=… holdfast migrate-store, or \
             remove {file} to go on with the store as it is"
        ),
        Ok(Some(Mark::Ended(_, at))) => format!(
            "the store in {shown} moved to PostgreSQL at {at}: set DATABASE_URL to that database, or remove {file} to go back \
             to the store as it was then"
        ),
        Err(error) => format!("{file}, which says whether the store has moved, cannot be read: {error}"),
    };
    Err(StoreError::Refused(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_keeps_servers_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Mark::read(path).unwrap(), None);
        assert!(refuse_moved(path).is_ok());
        let id = Uuid::now_v7();
        for mark in [Mark::Begun(id), Mark::Ended(id, "2025-01-02T03:04:05.678Z".into())] {
            mark.write(path).unwrap();
            assert_eq!(Mark::read(path).unwrap(), Some(mark));
            assert!(matches!(refuse_moved(path), Err(StoreError::Refused(_))));
        }
        std::fs::write(path.join(FILE), "").unwrap();
        assert!(Mark::read(path).is_err());
        assert!(matches!(refuse_moved(path), Err(StoreError::Refused(_))), "nobody knows what it said");
    }
}
