// Documents that are made of the program and kept in the tree: compared with what they are to be, or written anew. The tests of
// the program (`src/manual.rs`) include this file.

use std::fs;
use std::path::Path;

/// The variable that has all of them written; the tests that do so have names by which they can be chosen.
const WRITE: &str = "HOLDFAST_TEST_WRITE";

pub(crate) fn is_writing() -> bool {
    std::env::var_os(WRITE).is_some()
}

/// Holds a file, by its path from the root, to be this text; with a name, what stands between the marks of that name.
#[track_caller]
pub(crate) fn written(path: &str, between: Option<&str>, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    // One that is not there is another than it has to be.
    let found = fs::read_to_string(&file).unwrap_or_default();
    let expected = between.map_or_else(
        || text.to_owned(),
        |name| {
            let (begin, end) = (format!("<!-- {name}: written by a test -->\n"), format!("<!-- end of {name} -->\n"));
            let (before, rest) = found.split_once(&begin).unwrap_or_else(|| panic!("{path} has no {begin}"));
            let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{path} has no {end}"));
            format!("{before}{begin}{text}{end}{after}")
        },
    );
    if is_writing() {
        fs::write(file, expected).unwrap();
    } else {
        let line = 1 + found.lines().zip(expected.lines()).take_while(|(found, expected)| found == expected).count();
        assert!(found == expected, "{path}:{line} is out of date; `{WRITE}=1 cargo test written_of` writes it anew");
    }
}
