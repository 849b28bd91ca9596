//! Adding CSV files as tables, for good.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::catalog::Entry;
use super::csv_file::{CsvFile, Input, count};
use super::schema::{self, LoadError, Origin, TABLES_MAX};
use super::{DatasetsError, Fault, name};

/// How long an import that is done waits for readers before it leaves its log to the next writer.
const TRUNCATE_WAIT: Duration = Duration::from_secs(1);

/// A file that became a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The table's name in SQL.
    pub table: String,
    /// Its rows.
    pub row_count: u64,
    /// Its columns with their types, in order.
    pub columns: Vec<(String, &'static str)>,
}

/// Makes a table out of each CSV file, in place of one of the same name, and returns what became of each.
///
/// A file is imported as a whole, in one transaction, or not at all; one that is at fault does not keep the others from
/// being imported. `database` is the file that a server may have open meanwhile. Each file is read twice, in constant
/// memory; `on_progress` hears how many bytes of how many are done.
pub fn import(
    database: &Path,
    files: &[PathBuf],
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Result<Imported, Fault>>, DatasetsError> {
    let inputs: Vec<_> = files.iter().cloned().map(Input::File).collect();
    let total = inputs.iter().filter_map(|input| input.bytes().ok()).sum::<u64>() * 2;
    let mut connection = schema::open(database)?;
    let mut begun = 0;
    let mut outcomes = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let mut done = begun;
        let mut on_bytes = |bytes| {
            done += bytes;
            on_progress(done.min(total), total);
        };
        let outcome = import_one(&mut connection, input, &mut on_bytes);
        outcomes.push(match outcome {
            Ok(imported) => Ok(imported),
            Err(LoadError::Fault(fault)) => Err(fault),
            Err(LoadError::Database(error)) => return Err(error.into()),
        });
        begun += input.bytes().unwrap_or(0) * 2;
        on_progress(begun.min(total), total);
    }
    // So that the log of a large import does not stay on disk. A server that reads at this moment stands in the way of
    // that; then the log stays until the next time.
    connection.busy_timeout(TRUNCATE_WAIT)?;
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    Ok(outcomes)
}

pub(super) fn import_one(
    connection: &mut rusqlite::Connection,
    input: &Input,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Imported, LoadError> {
    let table = name::table(&input.stem()).map_err(|reason| input.fault(None, reason))?;
    let file = CsvFile::inspect(input, on_bytes)?;
    let transaction = schema::begin(connection)?;
    if !schema::has_room_for(&transaction, &table)? {
        return Err(input.fault(None, format!("there are {TABLES_MAX} tables already")).into());
    }
    let row_count = schema::load(&transaction, &table, &file, &Entry::default(), Origin::Import, on_bytes)?;
    transaction.commit()?;
    let columns = file.columns.into_iter().map(|column| (column.name, column.kind.sql())).collect();
    Ok(Imported { table, row_count, columns })
}

/// Runs `holdfast import`: a progress bar, then a line for each file; returns the process's exit code, 0 when every file
/// was imported.
pub fn run_import(database: &Path, files: &[PathBuf]) -> u8 {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.expect("the template is one of ours"));
    let outcomes = import(database, files, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match outcomes {
        Ok(outcomes) => {
            let failed = outcomes.iter().any(Result::is_err);
            for outcome in outcomes {
                say(outcome);
            }
            u8::from(failed)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            1
        }
    }
}

/// Writes the line; a closed pipe is no reason to fail an import that is done.
fn say(outcome: Result<Imported, Fault>) {
    let _ = match outcome {
        Ok(Imported { table, row_count, columns }) => {
            let columns: Vec<_> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
            let rows = count(row_count as usize, "row");
            writeln!(io::stdout(), "imported {table}: {rows}, {}", columns.join(", "))
        }
        Err(fault) => writeln!(io::stderr(), "{fault}"),
    };
}
