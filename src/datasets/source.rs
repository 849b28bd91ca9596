//! The tables that come with the server: the sample data, or a directory of CSV files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rusqlite::{Connection, OptionalExtension};

use super::catalog::Catalog;
use super::csv_file::{CsvFile, Input};
use super::schema::{self, LoadError, Origin, TABLES_MAX};
use super::{DatasetsError, Fault, name};

const CATALOG: &str = "catalog.toml";
/// Bytes that a catalogue may have.
const CATALOG_BYTES_MAX: u64 = 4 << 20;

/// Where the tables come from that are there without an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The sample data, which is inside this program.
    Sample,
    /// The CSV files directly in this directory, with an optional `catalog.toml`.
    Dir(PathBuf),
}

macro_rules! sample {
    ($($file:literal),+) => { [$(Input::Embedded($file, include_str!(concat!("../../sample-data/", $file)))),+] };
}

impl Source {
    fn files(&self) -> Result<Vec<Input>, Fault> {
        match self {
            Self::Sample => Ok(sample![
                "airports.csv",
                "catalog.toml",
                "iowa_electricity.csv",
                "penguins.csv",
                "seattle_weather.csv",
                "us_employment.csv"
            ]
            .into()),
            Self::Dir(directory) => list(directory),
        }
    }
}

/// The directory's CSV files and its catalogue, by name; everything else in it is none of ours.
fn list(directory: &Path) -> Result<Vec<Input>, Fault> {
    let fault = |reason: String| Fault { file: directory.display().to_string(), line: None, reason };
    let unreadable = |error: std::io::Error| fault(format!("the data directory cannot be read: {error}"));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && (is_csv(&path) || path.file_name().is_some_and(|name| name == CATALOG)) {
            paths.push(path);
        }
    }
    let files = paths.iter().filter(|path| is_csv(path)).count();
    if files == 0 {
        return Err(fault("the data directory has no CSV file".into()));
    }
    if files > TABLES_MAX as usize {
        return Err(fault(format!("the data directory has {files} CSV files, {TABLES_MAX} are allowed")));
    }
    paths.sort();
    Ok(paths.into_iter().map(Input::File).collect())
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// Changes whenever the files do: names, sizes and times of files on disk, the content of those in the program.
fn fingerprint(files: &[Input]) -> String {
    let mut text = format!("{} ", env!("CARGO_PKG_VERSION"));
    let mut content = DefaultHasher::new();
    for file in files {
        match file {
            Input::Embedded(_, bytes) => content.write(bytes.as_bytes()),
            Input::File(path) => {
                let metadata = std::fs::metadata(path).ok();
                let modified = metadata.as_ref().and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
                let (bytes, nanos) = (metadata.map(|m| m.len()), modified.map(|m| m.as_nanos()));
                let _ = write!(text, "{} {bytes:?} {nanos:?} ", path.display());
            }
        }
    }
    let _ = write!(text, "{:016x}", content.finish());
    text
}

/// Loads the source's tables, all of them or none, if it has changed since they were last loaded; says how many they
/// are, if it had.
pub(super) fn refresh(connection: &mut Connection, source: &Source) -> Result<Option<usize>, DatasetsError> {
    let files = source.files().map_err(|fault| DatasetsError::Source(vec![fault]))?;
    let fingerprint = fingerprint(&files);
    if stored(connection)?.as_ref() == Some(&fingerprint) {
        return Ok(None);
    }
    let plan = Plan::new(&files).map_err(DatasetsError::Source)?;
    let transaction = schema::begin(connection)?;
    for name in schema::names(&transaction, Origin::Source)? {
        schema::drop_table(&transaction, &name)?;
    }
    let imported = schema::names(&transaction, Origin::Import)?;
    for (name, file) in plan.tables.iter().filter(|(name, _)| !imported.contains(name)) {
        let words = plan.catalog.tables.get(name).map(|entry| entry.get_ref().clone()).unwrap_or_default();
        schema::load(&transaction, name, file, &words, Origin::Source, &mut |_| ()).map_err(|error| match error {
            LoadError::Fault(fault) => DatasetsError::Source(vec![fault]),
            LoadError::Database(error) => error.into(),
        })?;
    }
    transaction.execute("DELETE FROM holdfast_source", [])?;
    transaction.execute("INSERT INTO holdfast_source VALUES (?1)", [&fingerprint])?;
    transaction.commit()?;
    Ok(Some(plan.tables.len()))
}

fn stored(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT fingerprint FROM holdfast_source", [], |row| row.get(0)).optional()
}

/// Files that were read once and found good.
struct Plan<'a> {
    tables: BTreeMap<String, CsvFile<'a>>,
    catalog: Catalog,
}

impl<'a> Plan<'a> {
    /// Everything that is wrong with the files, at once.
    fn new(files: &'a [Input]) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut tables = BTreeMap::new();
        let mut catalogs = Vec::new();
        for input in files {
            if input.name().ends_with(CATALOG) {
                catalogs.push(input);
                continue;
            }
            match inspect(input) {
                Ok((name, file)) => {
                    if tables.insert(name.clone(), file).is_some() {
                        faults.push(input.fault(None, format!("another file names the table {name:?} too")));
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        let mut catalog = Catalog::default();
        for input in catalogs {
            match read_catalog(input) {
                Err(fault) => faults.push(fault),
                // A table whose file is at fault is not missing from the catalogue's point of view.
                Ok((text, parsed)) if faults.is_empty() => {
                    let names = |file: &CsvFile| file.columns.iter().map(|column| column.name.clone()).collect();
                    let columns_of = tables.iter().map(|(name, file)| (name.clone(), names(file))).collect();
                    faults.extend(parsed.strays(&input.name(), &text, &columns_of));
                    catalog = parsed;
                }
                Ok(_) => {}
            }
        }
        if faults.is_empty() { Ok(Self { tables, catalog }) } else { Err(faults) }
    }
}

fn inspect(input: &Input) -> Result<(String, CsvFile<'_>), Fault> {
    let name = name::table(&input.stem()).map_err(|reason| input.fault(None, reason))?;
    Ok((name, CsvFile::inspect(input, &mut |_| ())?))
}

fn read_catalog(input: &Input) -> Result<(String, Catalog), Fault> {
    let text = match input {
        Input::Embedded(_, text) => (*text).to_owned(),
        Input::File(path) => {
            if input.bytes()? > CATALOG_BYTES_MAX {
                return Err(input.fault(None, format!("the catalogue is longer than {CATALOG_BYTES_MAX} bytes")));
            }
            std::fs::read_to_string(path).map_err(|error| input.fault(None, format!("cannot be read: {error}")))?
        }
    };
    let catalog = Catalog::parse(&input.name(), &text)?;
    Ok((text, catalog))
}
