//! Keeps the published keys up to date: when it is time, when their file has changed, when a token names a key that is not
//! there, and when the administrator asks for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{KeySet, KeySetError, KeySource, KeySourceError, Keyring};
use crate::event;

/// How often a file is looked at; a look is one system call.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long strangers' tokens cannot have the keys read once more.
const MISSED_PAUSE: Duration = Duration::from_secs(10);
/// After a first failure; each further pause is twice as long.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// A source that is there again is noticed within this time.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Reads the keys again and again; its owner gives it turns.
pub struct Refresher {
    source: KeySource,
    keyring: Arc<Keyring>,
    /// When the keys are read again if nothing happens.
    due: Instant,
    /// From when on a missing key has them read.
    missed_from: Instant,
    /// How often in a row they could not be read.
    failures: u32,
}

impl Refresher {
    /// Fills `keyring` from `source`: a file at once, an address at the first turn, which may take as long as a network does.
    ///
    /// # Errors
    /// If there is no file with a usable key.
    pub fn begin(source: KeySource, keyring: Arc<Keyring>, now: Instant) -> Result<Self, KeySourceError> {
        let mut refresher = Self { source, keyring, due: now, missed_from: now, failures: 0 };
        if refresher.source.is_file() {
            let (set, fresh_for) = refresher.source.load()?;
            refresher.hold(set.usable()?, now + fresh_for);
        }
        Ok(refresher)
    }

    /// Reads the keys if there is a reason to, and says how long to pause unless the keyring wants something.
    pub fn turn(&mut self, now: Instant) -> Duration {
        let is_told = self.keyring.take_told();
        let is_missed = self.keyring.is_missed() && now >= self.missed_from;
        if is_told || is_missed || now >= self.due || self.source.has_changed() {
            self.refresh(now);
        }
        let missed_from = if self.keyring.is_missed() { self.missed_from } else { self.due };
        let pause = self.due.min(missed_from).saturating_duration_since(now);
        if self.source.is_file() { pause.min(LOOK_PAUSE) } else { pause }
    }

    fn refresh(&mut self, now: Instant) {
        if self.keyring.is_missed() {
            self.missed_from = now + MISSED_PAUSE;
        }
        let loaded = self.load(now);
        // Also those of tokens that came meanwhile: their keys are here now, or are asked for again.
        self.keyring.forget_missed();
        let Err(error) = loaded else { return };
        if self.failures == 0 {
            tracing::warn!(event = event::KEYS_UNAVAILABLE, %error, "trying again until it works");
        }
        self.due = now + RETRY_PAUSE_MAX.min(RETRY_PAUSE_MIN * 2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let outcome = match self.keyring.count() {
            None => "tokens that are signed with them are answered with 503",
            Some(0) => "tokens that are signed with them are refused, since there were none before",
            Some(_) => "those that were read before go on being used",
        };
        self.keyring.set_trouble(&format!("The keys of JWT_JWKS cannot be read: {error}; {outcome}"));
    }

    fn load(&mut self, now: Instant) -> Result<(), KeySourceError> {
        let (set, fresh_for) = self.source.load()?;
        self.hold(set, now + fresh_for);
        Ok(())
    }

    /// Goes on with what the source says, also if that is that no key counts any more.
    fn hold(&mut self, set: KeySet, due: Instant) {
        self.due = due;
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(event = event::KEYS_AVAILABLE, "the keys can be read again");
        }
        let (usable, left_out, reasons) = (set.count(), set.left_out().len(), set.left_out().to_string());
        let none = (usable == 0).then(|| KeySetError::NoneUsable(set.left_out().clone()));
        let is_new = self.keyring.replace(set);
        match none {
            Some(none) => {
                if is_new {
                    tracing::warn!(event = event::KEYS_LOADED, usable, left_out, reasons, "their tokens are refused");
                }
                self.keyring.set_trouble(&format!(
                    "The document of JWT_JWKS is there, but {none}; tokens that are signed with such keys are refused"
                ));
            }
            None if is_new => tracing::info!(event = event::KEYS_LOADED, usable, left_out, reasons),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::json;

    use super::*;
    use crate::auth::issuer::Key;
    use crate::config::KeyLocation;

    /// A refresher of a file, at points in time of the test's choice.
    struct Bench {
        directory: tempfile::TempDir,
        keyring: Arc<Keyring>,
        refresher: Refresher,
        begun: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("keys.json");
            write(&path, "first");
            let (keyring, _) = Keyring::new();
            let begun = Instant::now();
            let source = KeySource::new(&KeyLocation::File(path));
            let refresher = Refresher::begin(source, Arc::clone(&keyring), begun).expect("a file of keys");
            Self { directory, keyring, refresher, begun }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("keys.json")
        }

        fn turn_at(&mut self, seconds: u64) -> Duration {
            self.refresher.turn(self.begun + Duration::from_secs(seconds))
        }

        fn miss(&self) {
            self.keyring.miss(self.keyring.generation());
        }

        fn has(&self, kid: &str) -> bool {
            self.keyring.current().set.is_some_and(|set| set.named(kid).is_some())
        }
    }

    fn document(kid: &str) -> String {
        json!({"keys": [Key::ed25519(Some(kid)).jwk()]}).to_string()
    }

    fn write(path: &Path, kid: &str) {
        let fresh = path.with_extension("new");
        fs::write(&fresh, document(kid)).and_then(|()| fs::rename(fresh, path)).expect("a temporary file");
    }

    /// The same so that the file looks as before, as the clocks of some network file systems have it; the name must be as
    /// long as the one before.
    fn write_unnoticed(path: &Path, kid: &str) {
        let modified = fs::metadata(path).and_then(|file| file.modified()).expect("it is there");
        fs::write(path, document(kid)).expect("a temporary file");
        let file = fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_modified(modified)).expect("our own file");
    }

    #[test]
    fn a_file_is_read_when_it_has_changed_and_looked_at_every_second() {
        let mut bench = Bench::new();
        assert!(bench.has("first") && bench.keyring.generation() == 1);
        assert_eq!(bench.turn_at(1), LOOK_PAUSE);
        write(&bench.path(), "second");
        assert_eq!(bench.turn_at(2), LOOK_PAUSE);
        assert!(bench.has("second") && !bench.has("first") && bench.keyring.generation() == 2);
        let same = fs::read(bench.path()).expect("it is there");
        fs::write(bench.path(), same).expect("a temporary file");
        bench.keyring.refresh();
        bench.turn_at(3);
        assert_eq!(bench.keyring.generation(), 2, "the same keys are the same set");
    }

    #[test]
    fn the_last_good_set_stays_while_there_is_no_other() {
        let mut bench = Bench::new();
        for (second, spoilt) in [(1, "{"), (2, "{\"key\":[]}"), (3, "[]")] {
            fs::write(bench.path(), spoilt).expect("a temporary file");
            bench.turn_at(second);
            assert!(bench.has("first") && bench.keyring.trouble().is_some(), "{spoilt}");
        }
        write(&bench.path(), "first");
        bench.turn_at(4);
        fs::remove_file(bench.path()).expect("it is there");
        bench.turn_at(5);
        assert!(bench.has("first"));
        let trouble = bench.keyring.trouble().expect("the file is gone");
        assert!(trouble.contains("entity not found") && !trouble.contains("keys.json"), "{trouble}");
        write(&bench.path(), "second");
        bench.turn_at(6);
        assert!(bench.has("second") && bench.keyring.trouble().is_none());
    }

    #[test]
    fn a_document_without_usable_keys_withdraws_them_all() {
        let mut bench = Bench::new();
        for (second, none) in [(1, r#"{"keys":[]}"#), (3, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#)] {
            let (generation, kid) = (bench.keyring.generation(), format!("of {second}"));
            fs::write(bench.path(), none).expect("a temporary file");
            bench.turn_at(second);
            assert_eq!((bench.keyring.count(), bench.keyring.generation()), (Some(0), generation + 1));
            let trouble = bench.keyring.trouble().expect("there is no key");
            assert!(trouble.contains("it has no key that could verify"), "{trouble}");
            assert_eq!(trouble.contains("left out: 1 symmetric"), none.contains("oct"), "{trouble}");
            write(&bench.path(), &kid);
            bench.turn_at(second + 1);
            assert!(bench.has(&kid) && bench.keyring.trouble().is_none());
        }
        // Whoever starts with such a file has not meant it.
        fs::write(bench.path(), r#"{"keys":[]}"#).expect("a temporary file");
        let source = KeySource::new(&KeyLocation::File(bench.path()));
        let begun = Refresher::begin(source, Keyring::new().0, bench.begun);
        assert!(matches!(begun, Err(KeySourceError::Keys(KeySetError::NoneUsable(_)))));
    }

    #[test]
    fn a_source_that_fails_is_tried_less_and_less_often() {
        let mut bench = Bench::new();
        fs::remove_file(bench.path()).expect("it is there");
        bench.keyring.refresh();
        let mut at = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            bench.turn_at(at);
            let pause = bench.refresher.due.saturating_duration_since(bench.begun + Duration::from_secs(at)).as_secs();
            pauses.push(pause);
            at += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_missing_key_has_the_keys_read_at_once_and_then_not_for_ten_seconds() {
        let mut bench = Bench::new();
        write_unnoticed(&bench.path(), "other");
        bench.turn_at(1);
        assert!(!bench.has("other"));
        bench.miss();
        bench.turn_at(2);
        assert!(bench.has("other"));
        write_unnoticed(&bench.path(), "third");
        for second in 3..12 {
            bench.miss();
            bench.turn_at(second);
            assert!(!bench.has("third"), "after {second} s");
        }
        let generation = bench.keyring.generation();
        bench.turn_at(12);
        assert!(bench.has("third"), "what was asked meanwhile is not forgotten");
        bench.keyring.miss(generation);
        assert!(!bench.keyring.is_missed(), "who has looked at the keys before asks for what is here already");
        write_unnoticed(&bench.path(), "forth");
        bench.keyring.refresh();
        bench.turn_at(13);
        assert!(bench.has("forth"), "an administrator need not wait");
    }
}
