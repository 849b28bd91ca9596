//! Every property, held against its corpus and against what is almost like something in it.

#![allow(clippy::print_stdout, reason = "a test says what it was about when it failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{TestError, TestRunner};

use crate::datasets::tests::attempts::{REFUSED, endless, excessive};

/// The fewest inputs that a corpus may have.
const CORPUS_MIN: usize = 40;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory().join("corpus").join(target)).unwrap();
    let mut corpus: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    corpus.sort();
    assert!(corpus.len() >= CORPUS_MIN, "{target} has {} inputs", corpus.len());
    corpus
}

/// The words of a dictionary of libFuzzer's.
fn dictionary(name: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(directory().join("dictionaries").join(name).with_extension("dict")).unwrap();
    let words = text.lines().map(|line| {
        let mut word = Vec::new();
        let mut bytes = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap().bytes();
        while let Some(byte) = bytes.next() {
            word.push(match byte {
                b'\\' => match bytes.next().unwrap() {
                    b'x' => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    escaped => escaped,
                },
                byte => byte,
            });
        }
        word
    });
    words.collect()
}

/// A change to an input: it is cut, grows or has other bytes in it.
#[derive(Clone, Debug)]
enum Change {
    Put(Index, Vec<u8>),
    Replace(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>) {
        let at = |index: &Index| index.index(input.len() + 1);
        match self {
            Self::Put(index, bytes) => {
                let at = at(index);
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Replace(index, byte) => {
                let at = at(index);
                input.splice(at..(at + 1).min(input.len()), [*byte]);
            }
            Self::Remove(index, length) => {
                let at = at(index);
                input.drain(at..(at + length).min(input.len()));
            }
            Self::Repeat(index, length) => {
                let at = at(index);
                let part = input[at..(at + length).min(input.len())].to_vec();
                input.splice(at..at, part);
            }
        }
    }
}

/// What is almost one input of a corpus, or the beginning of one and the end of another.
fn almost(corpus: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        4 => (any::<Index>(), select(words)).prop_map(|(at, word)| Change::Put(at, word)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        2 => (any::<Index>(), 1_usize..8).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Change::Repeat(at, length)),
    ];
    let joint = proptest::option::weighted(0.3, (any::<Index>(), any::<Index>()));
    (select(corpus.clone()), select(corpus), joint, proptest::collection::vec(change, 0..5)).prop_map(
        |(mut input, other, joint, changes)| {
            if let Some((end, begin)) = joint {
                input.truncate(end.index(input.len() + 1));
                input.extend_from_slice(&other[begin.index(other.len() + 1)..]);
            }
            for change in &changes {
                change.apply(&mut input);
            }
            input
        },
    )
}

/// How many times as often as usual to try, as in the other tests that repeat something.
fn endurance() -> u32 {
    std::env::var("HOLDFAST_TEST_ENDURANCE").map_or(1, |text| text.parse().expect("it is a number"))
}

/// Holds a property against the corpus, and so many times against what is almost like it.
fn hold(target: &str, words: &str, cases: u32, property: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        println!("{target}/{name}");
        property(input);
    }
    // What fails belongs into the corpus.
    let config = ProptestConfig { cases: cases * endurance(), failure_persistence: None, ..ProptestConfig::default() };
    let inputs = corpus.into_iter().map(|(_, input)| input).collect();
    let outcome = TestRunner::new(config).run(&almost(inputs, dictionary(words)), |input| {
        property(&input);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => panic!("{target}: \"{}\": {why}", input.escape_ascii()),
        Err(other) => panic!("{target}: {other}"),
    }
}

#[test]
fn a_stream_means_the_same_wherever_it_is_cut_and_keeps_to_the_limits() {
    hold("stream", "http", 20000, super::stream);
}

#[test]
fn what_is_accepted_as_one_request_is_the_same_one_to_every_reader() {
    hold("readings", "http", 30000, super::readings);
}

#[test]
fn a_body_is_the_json_that_others_read_and_nothing_is_taken_of_it_that_is_not_allowed() {
    hold("json", "json", 20000, super::json);
}

#[test]
fn nobody_is_let_in_without_a_signature_a_time_and_a_name() {
    hold("tokens", "tokens", 20000, super::tokens);
}

#[test]
fn a_key_set_has_the_public_keys_that_another_reader_finds_and_lets_nobody_in() {
    hold("key_set", "key_set", 3000, super::key_set);
}

#[test]
fn a_request_comes_from_its_peer_or_from_whom_a_trusted_hop_wrote() {
    hold("forwarded", "forwarded", 20000, super::forwarded);
}

#[test]
fn a_file_is_imported_as_it_is_or_not_at_all() {
    hold("csv", "csv", 800, super::csv);
}

/// Goal: a statement leaves nothing behind in the whole process. So nothing else runs in it.
#[test]
fn a_statement_reads_the_tables_within_its_limits_and_leaves_nothing_behind() {
    let test = "fuzzing::tests::statements_in_this_process";
    let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", "--ignored", test]).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn statements_in_this_process() {
    let refused = REFUSED.iter().flat_map(|(_, statements)| statements.iter().map(|sql| (*sql).to_owned()));
    for sql in refused.chain(excessive().into_iter().map(|(_, sql)| sql)).chain(endless()) {
        println!("{sql:.90}");
        super::sql(sql.as_bytes());
    }
    hold("sql", "sql", 3000, super::sql);
}
