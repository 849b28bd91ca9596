//! `holdfast migrate-store`: the store moves from SQLite to PostgreSQL. The protocol is in ARCHITECTURE.md, "Moving from SQLite to
//! PostgreSQL".

mod comparison;
mod mark;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use uuid::Uuid;

use self::comparison::{Content, Difference};
use self::mark::Mark;
pub(crate) use self::mark::refuse_moved;
use super::{CLOSE_RESERVE, STORE_FILE, StateDirectory, StateDirectoryError, backend};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::ownership;
use crate::store::postgres::{ImportState, PostgresStore};
use crate::store::sqlite::Export;
use crate::store::transfer::{Position, TABLES};
use crate::store::{Store, StoreError};

/// Why the store has not moved. The one in the state directory holds everything that it held.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Nobody has said where to.
    #[error("DATABASE_URL is not set: set it to the PostgreSQL database that the store is to move to")]
    NoTarget,
    /// There is nothing to move.
    #[error("there is no SQLite store in {0}: run this with the server's STATE_DIRECTORY")]
    NoSource(String),
    /// The state directory cannot be used, or a server uses it.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The SQLite store cannot be read.
    #[error("the SQLite store cannot be moved: {0}")]
    Source(#[from] StoreError),
    /// The database cannot be used.
    #[error(
        "the database of DATABASE_URL: {0}. What is in the state directory is as it was; once that is mended, run this again, and it goes on where it was"
    )]
    Target(StoreError),
    /// The mark beside the store cannot be read or written.
    #[error("{0}, which marks that the store moves, cannot be used: {1}")]
    Mark(String, io::Error),
    /// Servers are there.
    #[error(
        "another Holdfast is connected to the database of DATABASE_URL, or somebody else as its user, if only a PgBouncer with an \
         idle connection: have them leave until the store has moved"
    )]
    TargetInUse,
    /// There is something already.
    #[error(
        "the database of DATABASE_URL is not empty, it has {0}: name an empty one, since two stores are never merged"
    )]
    TargetNotEmpty(&'static str),
    /// Another store is on its way there.
    #[error(
        "the database of DATABASE_URL holds another store that has not moved there entirely: finish that from where it was begun, \
         or create the database anew"
    )]
    OtherMove,
    /// It is somewhere else already.
    #[error(
        "the store moved to another database at {at}: set DATABASE_URL to that, or remove {file} to move it once more"
    )]
    MovedElsewhere {
        /// When.
        at: String,
        /// The mark.
        file: String,
    },
    /// Nothing has moved that could be compared.
    #[error("there is nothing to compare, since the store has not begun to move to the database of DATABASE_URL")]
    NotBegun,
    /// PostgreSQL cannot hold it.
    #[error(
        "a row of {table}, {key}, has U+0000 in its {column}, which PostgreSQL cannot hold: delete its conversation, and run this again"
    )]
    Unfit {
        /// What the row is.
        table: &'static str,
        /// Its key.
        key: String,
        /// The column.
        column: &'static str,
    },
    /// The two stores are not the same.
    #[error(
        "the database of DATABASE_URL does not hold what the SQLite store does ({}): the SQLite store is the one that counts; create \
         the database anew, and run this again",
        listed(.0)
    )]
    Different(Vec<Difference>),
    /// They no longer are, as is to be expected.
    #[error(
        "the database of DATABASE_URL is the store since {at}, and has changed since ({}): change nothing, the SQLite store is what it \
         was before",
        listed(.differences)
    )]
    Outdated {
        /// When the store had moved.
        at: Timestamp,
        /// What is different by now.
        differences: Vec<Difference>,
    },
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl MigrationError {
    /// 2 for what the configuration has to mend, 3 for what has to be mended elsewhere.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoTarget | Self::StateDirectory(StateDirectoryError::Unusable { .. }) => 2,
            _ => 3,
        }
    }
}

/// A move: where from, where to, and what is shown of it.
struct Migration {
    state: StateDirectory,
    source: Export,
    target: PostgresStore,
    bar: ProgressBar,
}

/// Moves the store of the state directory to the database of `DATABASE_URL`, or goes on with that; with `only_compare` says whether
/// both hold the same, as they do until a server has started on the database. Prints what it did; gives the process's exit code.
pub fn migrate_store(config: &Config, only_compare: bool) -> u8 {
    match run(config, only_compare) {
        Ok(()) => 0,
        Err(error) => {
            super::complain(&error);
            error.exit_code()
        }
    }
}

fn run(config: &Config, only_compare: bool) -> Result<(), MigrationError> {
    crate::memory::bound_arenas();
    crate::memory::keep_no_large_blocks();
    let path = config.state_directory.join(STORE_FILE);
    if config.database_url.is_none() {
        return Err(MigrationError::NoTarget);
    }
    let unusable = |cause| StateDirectoryError::Unusable { path: config.state_directory.display().to_string(), cause };
    if !path.try_exists().map_err(unusable)? {
        return Err(MigrationError::NoSource(config.state_directory.display().to_string()));
    }
    ownership::refuse_link(&path).map_err(unusable)?;
    let state = StateDirectory::open(&config.state_directory)?;
    let target = backend::import_target(config, state.instance()).ok_or(MigrationError::NoTarget)?;
    let migration = Migration { source: Export::open(&path)?, state, target, bar: bar() };
    let outcome = migration.run(only_compare);
    migration.bar.finish_and_clear();
    migration.target.close(CLOSE_RESERVE);
    outcome
}

impl Migration {
    fn run(&self, only_compare: bool) -> Result<(), MigrationError> {
        self.target.open_for_import().map_err(MigrationError::Target)?;
        let mark = self.mark()?;
        let id = match &mark {
            Some(Mark::Begun(id) | Mark::Ended(id, _)) => *id,
            None => Uuid::now_v7(),
        };
        let state = self.target.import_state(id).map_err(MigrationError::Target)?;
        let position = match (state, mark) {
            (state @ (ImportState::Unfinished(_) | ImportState::Finished(_)), _) if only_compare => {
                let rows = self.compare().map_err(|error| match (error, state) {
                    (MigrationError::Different(differences), ImportState::Finished(at)) => {
                        MigrationError::Outdated { at, differences }
                    }
                    (error, _) => error,
                })?;
                say(&format!("Both stores hold the same {rows} rows."));
                return Ok(());
            }
            _ if only_compare => return Err(MigrationError::NotBegun),
            (ImportState::Finished(at), mark) => {
                if !matches!(mark, Some(Mark::Ended(..))) {
                    self.write_mark(&Mark::Ended(id, at.to_string()))?;
                }
                say(&format!("The store has moved already, at {at}: start the server with DATABASE_URL set."));
                return Ok(());
            }
            (_, Some(Mark::Ended(_, at))) => {
                return Err(MigrationError::MovedElsewhere { at, file: self.mark_file().display().to_string() });
            }
            _ if self.is_target_in_use()? => return Err(MigrationError::TargetInUse),
            (ImportState::Unfinished(position), _) => {
                self.target.migrate().map_err(MigrationError::Target)?;
                position
            }
            (ImportState::Other, _) => return Err(MigrationError::OtherMove),
            (ImportState::Absent, _) => self.begin(id)?,
        };
        self.copy(id, position)?;
        let rows = self.compare()?;
        let at = self.target.finish_import(id).map_err(MigrationError::Target)?;
        self.write_mark(&Mark::Ended(id, at.to_string()))?;
        say(&format!(
            "The store has moved: {rows} rows, each of them read back and compared. Start the server with DATABASE_URL set; the \
             SQLite file is as it was."
        ));
        Ok(())
    }

    /// Changes nothing on either side until nothing on either side is in the way. Then it marks the source, and then the target: a
    /// server that began on the target in between is seen now; one that begins later sees the mark.
    fn begin(&self, id: Uuid) -> Result<Position, MigrationError> {
        self.require_free_target()?;
        self.require_fit_source()?;
        // That took its time.
        self.require_free_target()?;
        self.target.migrate().map_err(MigrationError::Target)?;
        self.write_mark(&Mark::Begun(id))?;
        self.target.begin_import(id).map_err(MigrationError::Target)?;
        match self.target.import_state(id).map_err(MigrationError::Target)? {
            ImportState::Unfinished(_) if self.is_target_in_use()? => Err(MigrationError::TargetInUse),
            ImportState::Unfinished(position) => Ok(position),
            ImportState::Other => Err(MigrationError::OtherMove),
            _ => self.require_free_target().and(Err(MigrationError::TargetNotEmpty("rows"))),
        }
    }

    fn is_target_in_use(&self) -> Result<bool, MigrationError> {
        Ok(self.target.other_servers().map_err(MigrationError::Target)? > 0)
    }

    fn require_free_target(&self) -> Result<(), MigrationError> {
        if self.is_target_in_use()? {
            return Err(MigrationError::TargetInUse);
        }
        match self.target.occupied().map_err(MigrationError::Target)? {
            Some(table) => Err(MigrationError::TargetNotEmpty(table.title)),
            None => Ok(()),
        }
    }

    /// Refuses a store with a row that PostgreSQL cannot hold, as long as a server may start on it to delete that.
    fn require_fit_source(&self) -> Result<(), MigrationError> {
        for (index, table) in TABLES.iter().enumerate() {
            self.show("looking through", index)?;
            self.source.rows(table, 0, &mut |rows| {
                if let Some((row, column)) = rows.iter().find_map(|row| Some((row, table.unfit_column(row)?))) {
                    return Err(MigrationError::Unfit { table: table.title, key: table.describe_key(row), column });
                }
                self.bar.inc(rows.len() as u64);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Copies what the target does not have yet, in the order of tables and keys.
    fn copy(&self, id: Uuid, mut position: Position) -> Result<(), MigrationError> {
        for (index, table) in TABLES.iter().enumerate().skip(position.table) {
            self.show("copying", index)?;
            let mut done = if index == position.table { position.rows } else { 0 };
            let before = done;
            self.bar.set_position(done);
            self.source.rows(table, done, &mut |rows| {
                done += rows.len() as u64;
                let next = Position { table: index, rows: done };
                self.target.copy(id, position, next, &rows).map_err(MigrationError::Target)?;
                position = next;
                self.bar.set_position(done);
                Ok::<_, MigrationError>(())
            })?;
            let resumed = if before > 0 { format!(", {before} of them before") } else { String::new() };
            self.bar.suspend(|| say(&format!("copied {}: {done} rows{resumed}", table.title)));
        }
        Ok(())
    }

    /// Compares everything, and says how many rows that is.
    fn compare(&self) -> Result<u64, MigrationError> {
        let (mut all, mut differences) = (0, Vec::new());
        for (index, table) in TABLES.iter().enumerate() {
            self.show("comparing", index)?;
            let compared =
                comparison::compare(&self.source, &self.target, index, &mut |rows| self.bar.inc(rows as u64))?;
            match compared {
                Ok(Content { rows, checksum }) => {
                    all += rows;
                    let line = format!("compared {}: {rows} rows, sha256 {checksum}", table.title);
                    self.bar.suspend(|| say(&line));
                }
                Err(difference) => differences.push(difference),
            }
        }
        if differences.is_empty() { Ok(all) } else { Err(MigrationError::Different(differences)) }
    }

    /// Begins a table's bar; counting rows for nobody to see would cost a look at every page.
    fn show(&self, what: &'static str, table: usize) -> Result<(), MigrationError> {
        self.bar.reset();
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{what} {}", TABLES[table].title));
            self.bar.set_length(self.source.count(&TABLES[table])?);
        }
        Ok(())
    }

    fn mark(&self) -> Result<Option<Mark>, MigrationError> {
        Mark::read(self.state.path()).map_err(|error| self.mark_failed(error))
    }

    fn write_mark(&self, mark: &Mark) -> Result<(), MigrationError> {
        mark.write(self.state.path()).map_err(|error| self.mark_failed(error))
    }

    fn mark_failed(&self, error: io::Error) -> MigrationError {
        MigrationError::Mark(self.mark_file().display().to_string(), error)
    }

    fn mark_file(&self) -> PathBuf {
        self.state.path().join(mark::FILE)
    }
}

fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{msg:30} {bar:40} {human_pos}/{human_len} rows {eta}");
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(style.expect("the template is one of ours"));
    bar
}

/// Prints a line; a closed pipe is no reason to stop moving.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
