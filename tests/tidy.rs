//! What a machine can hold of the house rules: it reads the sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use holdfast::{config, event, metrics};

use crate::util::written;

/// Longer than this, a file has more than one noun, unless it is listed with its reason.
const FILE_LINES_MAX: usize = 600;
/// Files that may be longer.
const LONG_FILES: &[(&str, &str)] =
    &[("src/config/mod.rs", "one table of variables with its reader: apart, the two could disagree")];
/// Imports between modules of the same floor. Those of floor 1 never know one another.
const NEIGHBOURS: &[(&str, &str)] = &[("runner", "engine"), ("runner", "streams"), ("doctor", "app")];
/// A variable of the TLS library that users have to know.
const TLS_AUTHORITIES: &str = "SSL_CERT_FILE";
/// And one each of Rust's own and of glibc's.
const BACKTRACE: &str = "RUST_BACKTRACE";
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Those with which a service manager and its services speak to each other.
const SERVICE_PROTOCOL: &[&str] = &[
    "EXTEND_TIMEOUT_USEC",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a directory whose names end so, with their paths from the root.
fn files(directory: &str, ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        // A directory that does not exist has no files.
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("the sources can be read").path();
            if path.is_dir() {
                open.push(path);
            } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                let text = fs::read_to_string(&path).expect("the sources are UTF-8");
                found.push((relative(&path), text));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("every file is below the root").to_string_lossy().into_owned()
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.starts_with("//"))
}

/// The name that begins here.
fn name(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The modules that a file declares.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    code_lines(text).filter_map(|(_, line)| {
        let at = if line.starts_with("mod ") { 0 } else { line.find(" mod ").filter(|_| line.starts_with("pub"))? + 1 };
        line[at + 4..].strip_suffix(';')
    })
}

/// The floor of each module, as `src/lib.rs` says it.
fn floors() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("the sources can be read");
    let mut floor = None;
    let mut floors = BTreeMap::new();
    for line in lib.lines() {
        if let Some(heading) = line.strip_prefix("// Floor ") {
            floor = heading.split(':').next().and_then(|number| number.parse().ok());
        }
        for module in declared(line) {
            floors
                .insert(module.to_owned(), floor.expect("every module of src/lib.rs stands below the name of a floor"));
        }
    }
    assert_eq!(floors.get("datasets"), Some(&2));
    assert_eq!(floors.values().max(), Some(&5));
    floors
}

#[test]
fn modules_import_only_from_the_floors_below() {
    let floors = floors();
    let mut faults = Vec::new();
    let mut imports = 0;
    for (path, text) in files("src", &[".rs"]) {
        let module = name(path.strip_prefix("src/").expect("it is below src"));
        let Some(floor) = floors.get(module) else { continue };
        for (number, line) in code_lines(&text) {
            for used in line.split("crate::").skip(1).map(name).filter(|used| *used != module) {
                imports += 1;
                let is_below = floors.get(used).is_some_and(|used| used < floor);
                if !is_below && !NEIGHBOURS.contains(&(module, used)) {
                    faults.push(format!("{path}:{number}: {module} is on floor {floor} and imports {used}"));
                }
            }
        }
    }
    assert!(imports > 100, "the imports are not recognised any more: {imports}");
    assert!(faults.is_empty(), "{faults:#?}");
    for (module, neighbour) in NEIGHBOURS {
        assert!(floors[*module] == floors[*neighbour] && floors[*module] != 1, "{module} and {neighbour}");
    }
}

#[test]
fn every_source_file_is_part_of_the_program() {
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = ["src/lib.rs", "src/main.rs", "tests/tests.rs"].map(|path| root().join(path)).into();
    while let Some(path) = open.pop() {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", relative(&path)));
        let directory = path.parent().expect("a file is in a directory");
        let is_root = ["src/lib.rs", "src/main.rs", "tests/tests.rs"].contains(&&*relative(&path));
        let directory =
            if is_root || path.ends_with("mod.rs") { directory.to_owned() } else { path.with_extension("") };
        for module in declared(&text) {
            let candidates = [directory.join(format!("{module}.rs")), directory.join(module).join("mod.rs")];
            let found = candidates.into_iter().find(|candidate| candidate.exists());
            open.push(found.unwrap_or_else(|| panic!("{} declares {module}", relative(&path))));
        }
        reached.insert(relative(&path));
    }
    let all: BTreeSet<String> =
        [files("src", &[".rs"]), files("tests", &[".rs"])].concat().into_iter().map(|(path, _)| path).collect();
    assert_eq!(all.difference(&reached).collect::<Vec<_>>(), Vec::<&String>::new(), "nobody declares these");
}

#[test]
fn every_log_event_has_one_name_and_is_logged_somewhere() {
    let sources = files("src", &[".rs"]);
    let (table, others): (Vec<_>, Vec<_>) = sources.iter().partition(|(path, _)| path == "src/event.rs");
    let constants: Vec<&str> = code_lines(&table[0].1)
        .filter_map(|(_, line)| line.split_once(" = \"").map(|(constant, _)| constant))
        .filter(|constant| constant.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        .collect();
    assert_eq!(constants.len(), event::ALL.len());
    for constant in constants {
        let used = format!("event::{constant}");
        let is_used = |text: &str| text.match_indices(&used).any(|(at, _)| name(&text[at + 7..]) == constant);
        assert!(others.iter().any(|(_, text)| is_used(text)), "nothing logs {constant}");
    }
    let names: BTreeSet<&str> = event::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), event::ALL.len(), "two events have the same name");
    for (name, meaning) in event::ALL {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
        assert!(is_plain && name.contains('.'), "{name} is not noun.phase");
        assert!(meaning.trim().ends_with('.'), "{name} means {meaning:?}");
    }
    for (path, text) in others {
        let literal = concat!("event", " = \"");
        assert!(!code_lines(text).any(|(_, line)| line.contains(literal)), "{path} names an event by itself");
    }
}

/// At which levels an event is logged, as far as the sources say.
fn levels(sources: &[(String, String)], constant: &str) -> BTreeSet<String> {
    let used = format!("event::{constant}");
    let logged = sources.iter().flat_map(|(_, text)| {
        let found = text.match_indices(&used).filter(|(at, _)| name(&text[at + 7..]) == constant);
        found.filter_map(|(at, _)| text[..at].rsplit_once("tracing::")?.1.split_once('!').map(|(level, _)| level))
    });
    logged.filter(|level| ["error", "warn", "info", "debug"].contains(level)).map(str::to_owned).collect()
}

#[test]
fn the_table_of_log_events_is_written_of_the_sources() {
    let sources = files("src", &[".rs"]);
    let table = &sources.iter().find(|(path, _)| path == "src/event.rs").expect("it exists").1;
    let constants = code_lines(table).filter_map(|(_, line)| line.split_once(" = \"").map(|(constant, _)| constant));
    let mut rows = String::from("| event | level | meaning |\n| --- | --- | --- |\n");
    for (constant, (event, meaning)) in constants.zip(event::ALL) {
        let levels = levels(&sources, constant).into_iter().collect::<Vec<_>>();
        assert!(!levels.is_empty(), "nobody can tell at which level {event} is logged");
        rows.push_str(&format!("| `{event}` | {} | {} |\n", levels.join(", "), meaning.trim()));
    }
    written("docs/operations.md", Some("log events"), &rows);
}

#[test]
fn every_metric_has_a_meaning_and_is_counted() {
    let sources = files("src", &[".rs"]);
    for metrics::Described { field: metric, meaning, .. } in metrics::ALL {
        let is_plain = metric.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(is_plain && meaning.trim().ends_with('.'), "{metric} means {meaning:?}");
        let is_counted = |text: &str| {
            let found = text.match_indices("metrics.").map(|(at, found)| name(&text[at + found.len()..]));
            found.into_iter().any(|counted| counted == *metric)
        };
        let others = sources.iter().filter(|(path, _)| path != "src/metrics.rs");
        assert!(others.into_iter().any(|(_, text)| is_counted(text)), "nothing counts {metric}");
    }
}

#[test]
fn every_variable_is_documented_and_read() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let is_documented = |name: &&str| readme.contains(&format!("`{name}`"));
    let names = config::VARIABLES.iter().chain(config::CLIENT_VARIABLES).map(|variable| variable.name);
    let missing: Vec<&str> = names.filter(|name| !is_documented(name)).collect();
    assert!(missing.is_empty(), "README.md does not mention {missing:?}");

    let sources = files("src", &[".rs"]);
    let text = |wanted: &str| &sources.iter().find(|(path, _)| path == wanted).expect("it exists").1;
    let fields = text("src/config/mod.rs").split_once("pub struct Config {").expect("the table ends in a structure").1;
    let fields: Vec<&str> = fields
        .lines()
        .take_while(|line| *line != "}")
        .filter_map(|line| line.trim().strip_prefix("pub "))
        .map(name)
        .collect();
    assert_eq!(fields.len(), config::VARIABLES.len());
    for field in fields {
        let read = format!("config.{field}");
        let is_read = |text: &str| text.match_indices(&read).any(|(at, _)| name(&text[at + 7..]) == field);
        let others = sources.iter().filter(|(path, _)| path != "src/config/mod.rs");
        assert!(others.into_iter().any(|(_, text)| is_read(text)), "nothing reads config.{field}");
    }
}

#[test]
fn documents_name_only_variables_and_events_that_exist() {
    let variables = config::VARIABLES.iter().chain(config::CLIENT_VARIABLES);
    let variables: BTreeSet<&str> = variables.map(|variable| variable.name).collect();
    let is_variable = |quoted: &str| {
        variables.contains(quoted.trim_end_matches("_FILE"))
            || [TLS_AUTHORITIES, BACKTRACE, TUNABLES].contains(&quoted)
            || SERVICE_PROTOCOL.contains(&quoted)
    };
    let events: BTreeSet<&str> = event::ALL.iter().map(|(name, _)| *name).collect();
    let nouns: BTreeSet<&str> = events.iter().filter_map(|event| event.split('.').next()).collect();
    let is_file = |quoted: &str| [".rs", ".sqlite", ".csv", ".toml"].iter().any(|end| quoted.ends_with(end));
    let is_made_of = |quoted: &str, is_letter: fn(&u8) -> bool, joint: u8| {
        let bytes = quoted.as_bytes();
        let is_name = bytes.first().is_some_and(is_letter) && bytes.contains(&joint);
        is_name && bytes.iter().all(|byte| is_letter(byte) || [joint, b'_'].contains(byte))
    };
    let mut documents = files("docs", &[".md"]);
    for file in ["README.md", "ARCHITECTURE.md", "SECURITY.md"] {
        documents.push((file.to_owned(), fs::read_to_string(root().join(file)).unwrap_or_default()));
    }
    for (path, text) in documents {
        for quoted in text.split('`').skip(1).step_by(2) {
            if is_made_of(quoted, u8::is_ascii_uppercase, b'_') {
                assert!(is_variable(quoted), "{path} names the variable {quoted}");
            }
            let noun = quoted.split('.').next().unwrap_or_default();
            if is_made_of(quoted, u8::is_ascii_lowercase, b'.') && nouns.contains(noun) && !is_file(quoted) {
                assert!(events.contains(quoted), "{path} names the event {quoted}");
            }
        }
    }
}

#[test]
fn each_requirement_of_http_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/http.md")).expect("the page exists");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| section") && !line.starts_with("| ---"));
    let mut named = 0;
    for row in rows {
        let [section, required, here, proof] = row.trim_matches('|').split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row} has not four cells")
        };
        assert!(section.trim().starts_with(|digit: char| digit.is_ascii_digit()) && !required.is_empty(), "{row}");
        assert!(!here.trim().is_empty(), "{row}");
        let tests: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row} names no test");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is no test"));
            let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(
                text.contains(&format!("#[test]\nfn {name}()")) || text.contains(&format!("#[test]\n    fn {name}()")),
                "{test}"
            );
            named += 1;
        }
    }
    assert!(named > 80, "the table is not recognised any more: {named}");
}

#[test]
fn each_property_of_any_bytes_is_a_target_with_a_corpus_and_held_by_the_tests() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let between = |text: &str, begin: &str, end: &str| -> BTreeSet<String> {
        text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())).collect()
    };
    let exported = |text: &str| -> BTreeSet<String> {
        let lists = between(text, "pub use ", ";");
        lists
            .iter()
            .filter_map(|list| list.rsplit("::").next())
            .flat_map(|list| list.split([',', '{', '}']))
            .map(|name| name.trim().to_owned())
            .collect()
    };
    let sources = files("src", &[".rs"]);
    let is_property = |name: &String| {
        let begins = format!("pub fn {name}(");
        let takes_bytes = |text: &str| {
            let signature = text.split_once(&begins).and_then(|(_, rest)| rest.split_once('{'));
            signature
                .is_some_and(|(arguments, _)| arguments.trim_end().ends_with(": &[u8])") && !arguments.contains(','))
        };
        sources.iter().any(|(path, text)| path.contains("/fuzzing") && takes_bytes(text))
    };
    let properties: BTreeSet<String> = exported(&read("src/fuzzing.rs")).into_iter().filter(is_property).collect();
    assert!(properties.len() >= 8, "the properties are not recognised any more: {properties:?}");

    let manifest = read("fuzz/Cargo.toml");
    let binaries = between(&manifest, "[[bin]]\nname = \"", "\"");
    let rows = between(&read("fuzz/README.md"), "\n| `", "`");
    let held = between(&read("src/fuzzing/tests.rs"), "    hold(\"", "\"");
    let corpora = fs::read_dir(root().join("fuzz/corpus")).expect("the corpora can be read");
    let corpora =
        corpora.map(|entry| entry.expect("the corpora can be read").file_name().to_string_lossy().into_owned());
    let targets = files("fuzz/fuzz_targets", &[".rs"]);
    let named = targets
        .iter()
        .map(|(path, _)| path.trim_start_matches("fuzz/fuzz_targets/").trim_end_matches(".rs").to_owned());
    for (what, found) in [
        ("[[bin]]", binaries),
        ("row of fuzz/README.md", rows),
        ("test in src/fuzzing/tests.rs", held),
        ("corpus", corpora.collect()),
        ("file in fuzz/fuzz_targets", named.collect()),
    ] {
        assert_eq!(found, properties, "each property has its {what}");
    }
    for (path, text) in &targets {
        let name = path.trim_start_matches("fuzz/fuzz_targets/").trim_end_matches(".rs");
        assert!(text.contains(&format!("holdfast_fuzz::{name}(data)")), "{path} calls another property");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{path} is not built");
    }
    for row in read("fuzz/README.md").lines().filter(|line| line.starts_with("| `")) {
        let dictionary = row.trim_end_matches([' ', '|', '`']).rsplit('`').next().unwrap_or_default();
        assert!(root().join(format!("fuzz/dictionaries/{dictionary}.dict")).exists(), "{row}");
    }
}

/// What people write, and what is made for them to read or installed with the program; not data, drawings and locks.
fn everything() -> Vec<(String, String)> {
    let ends = [
        ".rs", ".md", ".toml", ".sql", ".html", ".js", ".css", ".txt", ".yml", ".json", ".sh", ".py", ".c", ".example",
        ".service", ".socket", ".1", ".bash", ".zsh", ".fish",
    ];
    let mut all = Vec::new();
    for directory in ["src", "tests", "docs", "bench", "fuzz/src", "fuzz/fuzz_targets", "systemd", "sample-data"] {
        all.extend(files(directory, &ends));
    }
    let named =
        "README.md ARCHITECTURE.md SECURITY.md CHANGELOG.md Cargo.toml build.rs fuzz/README.md fuzz/Cargo.toml .ci/run";
    let named = named.split(' ').map(|file| root().join(file));
    // Scripts, and what Debian knows by its name alone.
    let scripts = ["tests", "bench", "systemd/debian"].map(|directory| root().join(directory));
    let scripts = scripts.iter().flat_map(|directory| fs::read_dir(directory).expect("the sources can be read"));
    let scripts = scripts.map(|entry| entry.expect("the sources can be read").path());
    for path in named.chain(scripts.filter(|path| path.is_file() && path.extension().is_none())) {
        all.push((relative(&path), fs::read_to_string(&path).expect("the sources are UTF-8")));
    }
    let is_there = |path: &str| all.iter().any(|(found, _)| found == path);
    for path in ["tests/run", "bench/run", "systemd/debian/postinst", "systemd/holdfast.socket", "docs/man/holdfast.1"]
    {
        assert!(is_there(path), "{path} is not looked at");
    }
    all
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("todo", "!("),
        concat!("dbg", "!("),
        concat!("unimplemented", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    for (path, text) in everything() {
        for mark in marks {
            assert!(!text.contains(mark), "{path} says {mark}");
        }
    }
}

#[test]
fn files_stay_readable() {
    let mut long = BTreeSet::new();
    for (path, text) in [files("src", &[".rs"]), files("tests", &[".rs"])].concat() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            assert!(LONG_FILES.iter().any(|(listed, _)| *listed == path), "{path} has {lines} lines");
            long.insert(path);
        }
    }
    for (listed, _) in LONG_FILES {
        assert!(long.contains(*listed), "{listed} is not long any more");
    }
}

#[test]
fn nothing_names_a_place_on_its_authors_machine() {
    let places = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
    for (path, text) in everything() {
        for place in places {
            assert!(!text.contains(place), "{path} names a place below {place}");
        }
    }
}
