//! The directory of data.

use std::ffi::OsStr;
use std::fs;

use super::Patient;
use super::finding::{Finding, counted};

const SUBJECT: &str = "data";

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let Some(directory) = &patient.config.data_dir else {
        return vec![Finding::ok(SUBJECT, "the sample data (DATA_DIR is not set)")];
    };
    let shown = directory.display();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let advice = "set DATA_DIR to a directory of CSV files that the server's user may read";
            return vec![Finding::misconfigured(
                SUBJECT,
                format!("DATA_DIR is {shown}, which cannot be read: {error}"),
                advice,
            )];
        }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files: Vec<_> = paths.filter(|path| path.extension() == Some(OsStr::new("csv"))).collect();
    if let Some((file, error)) = files.iter().find_map(|file| Some((file, fs::File::open(file).err()?))) {
        let said = format!("{} cannot be read: {error}", file.display());
        return vec![Finding::fault(SUBJECT, said, "let the server's user read it: a start loads every file or none")];
    }
    vec![match files.len() {
        0 => Finding::warning(
            SUBJECT,
            format!("no CSV file is in {shown}"),
            "put some there: nobody has anything to ask about",
        ),
        n => Finding::ok(SUBJECT, format!("{} in {shown}", counted(n, "CSV file"))),
    }]
}
