//! Where settings are written: the environment of the process, and a `.env` file beside it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::Fault;

/// Variables by name, as the system has them.
pub type Environment = HashMap<String, OsString>;

/// The file in the current directory, over which the environment goes.
pub(super) const DOTENV: &str = ".env";

/// Stands for `$` while the file is read. Unicode keeps it out of all text that is interchanged.
const DOLLAR: &str = "\u{ffff}";

/// That of this process.
pub(super) fn environment() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
}

/// The entries of the file, or none if there is no such file; or the first fault in it. No `$` stands for another variable: a secret
/// that has one is meant as it is written, and systemd reads it so.
pub(super) fn dotenv(path: &Path) -> Result<HashMap<String, String>, Fault> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text.replace('$', DOLLAR),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(Fault(format!("the .env file cannot be read: {error}"))),
    };
    let entries = dotenvy::from_read_iter(text.as_bytes());
    entries
        .map(|entry| {
            entry.map(|(name, value)| (name, value.replace(DOLLAR, "$"))).map_err(|error| fault(&error, &text))
        })
        .collect()
}

/// What is wrong, and in which line; its text may hold a secret, so it is not repeated.
fn fault(error: &dotenvy::Error, text: &str) -> Fault {
    let dotenvy::Error::LineParse(wrong, _) = error else {
        return Fault(format!("the .env file cannot be read: {error}"));
    };
    // The whole line, or its value; of several lines, which quotes may make one, the first.
    let wrong = wrong.lines().next().unwrap_or_default().trim_end();
    let number = text.lines().position(|line| !wrong.is_empty() && line.trim_end().ends_with(wrong));
    let place = number.map_or_else(String::new, |n| format!(" {}", n + 1));
    Fault(format!(
        "line{place} of the .env file is not NAME=VALUE; a value with a space, a quote or a backslash has to be in single quotes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(DOTENV);
        fs::write(&file, text).unwrap();
        let mut entries: Vec<_> = dotenv(&file).map_err(|fault| fault.0)?.into_iter().collect();
        entries.sort();
        Ok(entries)
    }

    #[test]
    fn a_dollar_is_a_dollar() {
        for (written, value) in
            [("0123$x7Qz-more", "0123$x7Qz-more"), ("'a $b'", "a $b"), ("\"${A} $\"", "${A} $"), ("$", "$")]
        {
            assert_eq!(read(&format!("A=1\nB={written}\n")).unwrap()[1].1, value, "{written}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_and_not_repeated() {
        for (text, number) in [
            ("A=1\nsecret\n", 2),
            ("A=1\n\n# B\nTRUSTED_PROXIES=127.0.0.1, 10.0.0.0/8\nB=2\n", 4),
            ("A='secret\n", 1),
            ("A=1\nB=sec\\ret", 2),
            ("A=1\n  B = $secret more  \n", 2),
        ] {
            let fault = read(text).unwrap_err();
            assert!(
                fault.starts_with(&format!("line {number} of the .env file is not NAME=VALUE;")),
                "{text}: {fault}"
            );
            assert!(!fault.contains("sec") && !fault.contains("127"), "{fault}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(dotenv(&directory.path().join(DOTENV)), Ok(HashMap::new()));
        assert!(dotenv(directory.path()).unwrap_err().0.starts_with("the .env file cannot be read"));
    }
}
