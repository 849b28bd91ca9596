//! One CSV file, read twice: first to learn its columns, then for its rows. Memory stays constant, whatever the file.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};

use super::field::{Candidate, Field, Kind};
use super::{Fault, name};

/// Columns that a table may have: beyond it a statement over all of them meets SQLite's own limits.
pub(super) const COLUMNS_MAX: usize = 500;
/// Bytes that a field may have: longer ones are documents, not data.
pub(super) const FIELD_BYTES_MAX: usize = 64 << 10;
/// Bytes that a row may have; also what a quote that is never closed can make us hold.
pub(super) const ROW_BYTES_MAX: usize = 512 << 10;

/// Where a file's bytes come from.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A file on disk.
    File(PathBuf),
    /// A file inside this program, by its name.
    Embedded(&'static str, &'static str),
}

impl Input {
    /// The name by which faults call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Embedded(name, _) => (*name).to_owned(),
        }
    }

    /// The file name without directory and extension.
    pub(super) fn stem(&self) -> String {
        let path = match self {
            Self::File(path) => path.as_path(),
            Self::Embedded(name, _) => Path::new(name),
        };
        path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// How long it is; only a regular file has a length, and only such can be read twice.
    pub(super) fn bytes(&self) -> Result<u64, Fault> {
        match self {
            Self::Embedded(_, text) => Ok(text.len() as u64),
            Self::File(path) => match std::fs::metadata(path) {
                Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
                Ok(metadata) if metadata.is_dir() => Err(self.fault(None, "this is a directory, not a file")),
                Ok(_) => Err(self.fault(None, "this is not a regular file")),
                Err(error) => Err(self.fault(None, format!("cannot be read: {error}"))),
            },
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::File(path) => Box::new(File::open(path)?),
            Self::Embedded(_, text) => Box::new(text.as_bytes()),
        })
    }

    pub(super) fn fault(&self, line: Option<u64>, reason: impl Into<String>) -> Fault {
        Fault { file: self.name(), line, reason: reason.into() }
    }
}

/// A column as it will be in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A CSV file whose columns are known.
pub(super) struct CsvFile<'a> {
    input: &'a Input,
    pub(super) columns: Vec<Column>,
}

impl<'a> CsvFile<'a> {
    /// Reads the whole file to learn its columns and to find what is wrong with it; `on_bytes` hears how many bytes
    /// were read since it was last called.
    pub(super) fn inspect(input: &'a Input, on_bytes: &mut dyn FnMut(u64)) -> Result<Self, Fault> {
        let mut rows = Rows::open(input)?;
        let Some((line, header)) = rows.next(on_bytes)? else {
            return Err(input.fault(None, "the file is empty"));
        };
        let names = column_names(input, line, header)?;
        rows.columns = Some(names.len());
        let mut candidates = vec![Candidate::default(); names.len()];
        while let Some((line, row)) = rows.next(on_bytes)? {
            for (candidate, field) in candidates.iter_mut().zip(row) {
                candidate.see(text(input, line, field)?);
            }
        }
        let columns =
            names.into_iter().zip(candidates).map(|(name, seen)| Column { name, kind: seen.kind() }).collect();
        Ok(Self { input, columns })
    }

    /// Calls `each` with every row; a fault that it returns gets the row's line.
    pub(super) fn for_each(
        &self,
        on_bytes: &mut dyn FnMut(u64),
        each: &mut dyn FnMut(&[Field]) -> Result<(), String>,
    ) -> Result<u64, Fault> {
        let mut rows = Rows::open(self.input)?;
        rows.columns = Some(self.columns.len());
        rows.next(on_bytes)?;
        let mut count = 0;
        while let Some((line, row)) = rows.next(on_bytes)? {
            let mut fields = Vec::with_capacity(self.columns.len());
            for (column, field) in self.columns.iter().zip(row) {
                let field = text(self.input, line, field)?;
                let changed = || self.input.fault(Some(line), "the file changed while it was read");
                fields.push(column.kind.parse(field).ok_or_else(changed)?);
            }
            each(&fields).map_err(|reason| self.input.fault(Some(line), reason))?;
            count += 1;
        }
        Ok(count)
    }
}

/// The records of a file, each checked against the limits.
struct Rows<'a> {
    input: &'a Input,
    reader: csv::Reader<Watch>,
    record: ByteRecord,
    /// How many fields each record must have, once the header is known.
    columns: Option<usize>,
    reported: u64,
}

impl<'a> Rows<'a> {
    fn open(input: &'a Input) -> Result<Self, Fault> {
        input.bytes()?;
        let unreadable = |error: io::Error| input.fault(None, format!("cannot be read: {error}"));
        let mut source = input.open().map_err(unreadable)?;
        let mut head = Vec::new();
        source.by_ref().take(512).read_to_end(&mut head).map_err(unreadable)?;
        if let Some(other) = not_csv(&head) {
            return Err(input.fault(None, format!("this is not a CSV file: it looks like {other}")));
        }
        let bom = if head.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        head.drain(..bom);
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(Watch::new(Box::new(Cursor::new(head).chain(source))));
        Ok(Self { input, reader, record: ByteRecord::new(), columns: None, reported: 0 })
    }

    /// The next record with the line on which it begins.
    fn next(&mut self, on_bytes: &mut dyn FnMut(u64)) -> Result<Option<(u64, &ByteRecord)>, Fault> {
        let more = self.reader.read_byte_record(&mut self.record);
        let watch = self.reader.get_mut();
        if let Some((line, reason)) = watch.fault.take() {
            return Err(self.input.fault(Some(line), reason));
        }
        watch.since_record = 0;
        let read = watch.bytes;
        if read - self.reported >= 64 << 10 || !matches!(more, Ok(true)) {
            on_bytes(read - self.reported);
            self.reported = read;
        }
        match more {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => return Err(self.input.fault(None, format!("cannot be read: {error}"))),
        }
        let line = self.reader.get_mut().record_lines.pop_front().unwrap_or_default();
        if let Some(expected) = self.columns
            && self.record.len() != expected
        {
            let reason = format!("{} where the header has {expected}", count(self.record.len(), "field"));
            return Err(self.input.fault(Some(line), reason));
        }
        if self.record.iter().any(|field| field.len() > FIELD_BYTES_MAX) {
            let reason = format!("a field is longer than {FIELD_BYTES_MAX} bytes");
            return Err(self.input.fault(Some(line), reason));
        }
        if self.record.as_slice().len() > ROW_BYTES_MAX {
            return Err(self.input.fault(Some(line), format!("the row is longer than {ROW_BYTES_MAX} bytes")));
        }
        Ok(Some((line, &self.record)))
    }
}

/// Looks at the bytes on their way to the parser, which forgives what would import rubbish: a quote that is never
/// closed, text after a closing quote, NUL, and a record that does not end.
struct Watch {
    source: Box<dyn Read>,
    bytes: u64,
    since_record: usize,
    line: u64,
    quoting: Quoting,
    /// Whether the next byte that is no line end begins a record; the parser skips empty lines as well.
    between_records: bool,
    /// The lines on which the records begin that the parser has not given out yet: at most one for each byte that it
    /// buffers. The parser's own count is off after empty lines.
    record_lines: VecDeque<u64>,
    fault: Option<(u64, String)>,
}

#[derive(Clone, Copy)]
enum Quoting {
    FieldStart,
    Plain,
    /// Inside quotes that were opened on this line.
    Quoted(u64),
    /// After a quote inside quotes: the end of the field, or half of an escaped quote.
    QuoteSeen(u64),
}

impl Watch {
    fn new(source: Box<dyn Read>) -> Self {
        Self {
            source,
            bytes: 0,
            since_record: 0,
            line: 1,
            quoting: Quoting::FieldStart,
            between_records: true,
            record_lines: VecDeque::new(),
            fault: None,
        }
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<(), (u64, String)> {
        for &byte in bytes {
            let is_line_end = matches!(byte, b'\n' | b'\r');
            if self.between_records && !is_line_end {
                self.record_lines.push_back(self.line);
            }
            self.between_records &= is_line_end;
            self.quoting = match (self.quoting, byte) {
                (_, 0) => return Err((self.line, "this is not a CSV file: it contains a NUL byte".into())),
                (Quoting::Quoted(line), b'"') => Quoting::QuoteSeen(line),
                (Quoting::Quoted(line), _) | (Quoting::QuoteSeen(line), b'"') => Quoting::Quoted(line),
                (_, b',' | b'\n' | b'\r') => Quoting::FieldStart,
                (Quoting::FieldStart, b'"') => Quoting::Quoted(self.line),
                (Quoting::FieldStart | Quoting::Plain, _) => Quoting::Plain,
                (Quoting::QuoteSeen(_), _) => return Err((self.line, "text follows a closing quote".into())),
            };
            self.between_records |= is_line_end && matches!(self.quoting, Quoting::FieldStart);
            self.line += u64::from(byte == b'\n');
        }
        Ok(())
    }
}

impl Read for Watch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.bytes += read as u64;
        self.since_record += read;
        let mut seen = self.scan(&buffer[..read]);
        if let (0, Quoting::Quoted(line)) = (read, self.quoting) {
            seen = Err((line, "the quote that opens here is never closed".into()));
        } else if self.since_record > 2 * ROW_BYTES_MAX {
            let line = if let Quoting::Quoted(line) = self.quoting { line } else { self.line };
            seen = seen.and(Err((line, format!("the row is longer than {ROW_BYTES_MAX} bytes"))));
        }
        seen.map(|()| read).map_err(|fault| {
            self.fault = Some(fault);
            io::Error::other("not a CSV file")
        })
    }
}

/// What the file is instead, as far as its first bytes tell.
fn not_csv(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 9] = [
        (b"PK\x03\x04", "a ZIP archive or a spreadsheet (export it as CSV)"),
        (b"\xD0\xCF\x11\xE0", "an old spreadsheet (export it as CSV)"),
        (b"\x1F\x8B", "a gzip file (unpack it first)"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"%PDF", "a PDF document"),
        (b"PAR1", "a Parquet file"),
        (b"\xFF\xFE", "UTF-16 text (save it as UTF-8)"),
        (b"\xFE\xFF", "UTF-16 text (save it as UTF-8)"),
        (b"\x7FELF", "a program"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(what);
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    match text.first()? {
        b'<' => Some("HTML or XML"),
        b'{' | b'[' => Some("JSON"),
        _ => None,
    }
}

/// The header's names as column names; the same name twice is a fault, names that only become the same are numbered.
fn column_names(input: &Input, line: u64, header: &ByteRecord) -> Result<Vec<String>, Fault> {
    let at = |reason: String| input.fault(Some(line), reason);
    if header.len() > COLUMNS_MAX {
        return Err(at(format!("{} columns are more than {COLUMNS_MAX}", header.len())));
    }
    let mut given = BTreeSet::new();
    let mut used = BTreeSet::new();
    let mut names = Vec::new();
    for (index, raw) in header.iter().enumerate() {
        let raw = text(input, line, raw)?.trim();
        if header.len() == 1
            && let Some((sign, what)) =
                [(';', "semicolons"), ('\t', "tabs")].into_iter().find(|(s, _)| raw.contains(*s))
        {
            return Err(at(format!("the fields are separated by {what} ({sign:?}); only commas are read")));
        }
        if !raw.is_empty() && !given.insert(raw) {
            return Err(at(format!("the header has the column {raw:?} twice")));
        }
        let clean = name::column(raw).unwrap_or_else(|| format!("column_{}", index + 1));
        let unused = (2..).map(|n| format!("{clean}_{n}"));
        let name = std::iter::once(clean.clone()).chain(unused).find(|name| !used.contains(name));
        let name = name.expect("the candidates do not end");
        used.insert(name.clone());
        names.push(name);
    }
    Ok(names)
}

fn text<'r>(input: &Input, line: u64, field: &'r [u8]) -> Result<&'r str, Fault> {
    std::str::from_utf8(field).map_err(|_| input.fault(Some(line), "the text is not UTF-8 (save the file as UTF-8)"))
}

pub(super) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
