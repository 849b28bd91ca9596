//! What no server may say to anybody: secrets, tokens, DSNs, paths, SQL of ours, and in its log neither prompts nor statements.
//!
//! Everything that the tests make servers say comes by here: [`Heard`] is between every client and its socket, and a process's
//! output is judged when it ends or is dropped ([`judge`]). What is secret is noted as it is made: by `Launch` the secrets, by
//! whoever makes or sends a token the token, by `Client` the prompts.
//!
//! | said | to whom | what it may not tell |
//! | --- | --- | --- |
//! | an answer | whoever is on the network | anything of [`Matter`] but users' own prompts |
//! | the log: standard error | whoever keeps logs | anything |
//! | a line `holdfast: …` there, standard output | whoever starts the program, and has named the paths | secrets, tokens, DSNs, SQL |
//!
//! A test in which somebody is told more on purpose says so with its reason: `Launch::tells`.

use std::collections::HashSet;
use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use aho_corasick::AhoCorasick;
use parking_lot::RwLock;

/// What can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matter {
    /// What tokens are signed with, a database's password.
    Secret,
    /// The claims or the signature of one.
    Token,
    /// The address of a database, with or without a password.
    Dsn,
    /// Of a file or a directory of this machine, or of the one on which the program was built.
    Path,
    /// A part of a statement of the store, or the name of what executes it.
    Statement,
    /// A panic in Rust's own words.
    Panic,
    /// A question or a remark of a user, or any statement.
    Prompt,
}

/// Where it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Answer,
    Log,
    /// To whoever has started the program.
    Output,
}

/// Told although it should not be, with what is around it.
#[derive(Debug)]
pub(crate) struct Leak {
    pub(crate) matter: Matter,
    around: String,
}

/// A matter that a process may tell after all, and why.
pub(crate) type Exception = (Matter, &'static str);

/// What is looked for as it stands here, everywhere that its matter is not to be told.
const TELLING: &[(Matter, &str)] = &[
    (Matter::Dsn, "postgres://"),
    (Matter::Dsn, "postgresql://"),
    (Matter::Path, "holdfast.sqlite"),
    (Matter::Path, "datasets.sqlite"),
    (Matter::Path, "jwt-secret"),
    (Matter::Path, "/.cargo/"),
    (Matter::Path, "/rustc/"),
    (Matter::Path, "/proc/self"),
    (Matter::Path, env!("CARGO_MANIFEST_DIR")),
    (Matter::Path, ".rs:"),
    (Matter::Panic, "panicked at"),
    (Matter::Panic, "stack backtrace"),
    (Matter::Statement, "run_events"),
    (Matter::Statement, "claim_token"),
    (Matter::Statement, "claim_expires"),
    (Matter::Statement, "holdfast_schema_history"),
    (Matter::Statement, "ON CONFLICT"),
    (Matter::Statement, "FOR UPDATE"),
    (Matter::Statement, "SKIP LOCKED"),
    (Matter::Prompt, "BEGIN IMMEDIATE"),
    (Matter::Statement, "FROM runs WHERE"),
    (Matter::Statement, "rusqlite"),
    (Matter::Statement, "r2d2"),
    (Matter::Prompt, "SELECT "),
    (Matter::Prompt, "INSERT INTO"),
    (Matter::Prompt, "DELETE FROM"),
    (Matter::Prompt, "WITH RECURSIVE"),
    (Matter::Prompt, "{\"prompt\""),
];

/// Where files are; in an answer a user may have named one.
const DIRECTORIES: [&str; 9] = ["dev", "etc", "home", "opt", "proc", "root", "tmp", "usr", "var"];

/// A shorter part of a token is no secret, and a shorter prompt may be a word of the log.
const TOKEN_PART_BYTES_MIN: usize = 20;
const PROMPT_BYTES_MIN: usize = 20;
/// What is kept of what was read before, so that nothing is missed where two reads meet.
const TAIL_BYTES: usize = 512;

/// What is not to be told because of what the tests do.
#[derive(Default)]
struct Noted {
    secrets: HashSet<String>,
    /// The claims and the signatures of tokens.
    token_parts: HashSet<String>,
    /// How prompts begin.
    prompts: HashSet<[u8; PROMPT_BYTES_MIN]>,
    /// Finds the telling texts and the secrets; made anew with every secret.
    finder: Option<Arc<Finder>>,
}

struct Finder {
    texts: AhoCorasick,
    matters: Vec<Matter>,
}

static NOTED: LazyLock<RwLock<Noted>> = LazyLock::new(RwLock::default);

/// Notes what may be told nowhere.
pub(super) fn note_secret(secret: &str) {
    let is_new = !NOTED.read().secrets.contains(secret);
    if is_new {
        let mut noted = NOTED.write();
        noted.secrets.insert(secret.to_owned());
        noted.finder = None;
    }
}

/// Notes the password of a database's URL, if it has one.
pub(super) fn note_dsn(url: &str) {
    let user = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
        note_secret(password);
    }
}

/// Notes a token that was made or is going to be sent; its first part says nothing but the algorithm.
pub(super) fn note_token(token: &str) {
    let parts = || token.split('.').skip(1).filter(|part| part.len() >= TOKEN_PART_BYTES_MIN);
    let is_known = {
        let noted = NOTED.read();
        parts().all(|part| noted.token_parts.contains(part))
    };
    if !is_known {
        NOTED.write().token_parts.extend(parts().map(str::to_owned));
    }
}

/// Notes a question or a remark of a user.
pub(super) fn note_prompt(prompt: &str) {
    if let Some(beginning) = prompt.trim().as_bytes().first_chunk() {
        NOTED.write().prompts.insert(*beginning);
    }
}

fn finder() -> Arc<Finder> {
    if let Some(finder) = &NOTED.read().finder {
        return Arc::clone(finder);
    }
    let mut noted = NOTED.write();
    let temporary = std::env::temp_dir();
    let homes = ["holdfast-", ".tmp"].map(|begins| format!("{}/{begins}", temporary.display()));
    let texts = TELLING.iter().map(|(matter, text)| (*matter, (*text).to_owned()));
    let texts = texts.chain(homes.map(|home| (Matter::Path, home)));
    let texts = texts.chain(noted.secrets.iter().map(|secret| (Matter::Secret, secret.clone())));
    let (matters, mut texts): (Vec<_>, Vec<_>) = texts.unzip();
    // After the others, and so without a matter of their own.
    texts.extend(DIRECTORIES.map(|directory| format!("/{directory}/")));
    let finder = Arc::new(Finder { texts: AhoCorasick::new(texts).unwrap(), matters });
    noted.finder = Some(Arc::clone(&finder));
    finder
}

impl Matter {
    /// Whether this may not be told there.
    fn is_forbidden(self, place: Place) -> bool {
        match self {
            Matter::Secret | Matter::Token | Matter::Dsn | Matter::Statement | Matter::Panic => true,
            Matter::Path => place != Place::Output,
            Matter::Prompt => place == Place::Log,
        }
    }
}

/// The first thing that this tells there and may not.
pub(crate) fn leak(place: Place, said: &[u8], exceptions: &[Exception]) -> Option<Leak> {
    let is_leak = |matter: Matter| {
        matter.is_forbidden(place) && !exceptions.iter().any(|(excepted, _reason)| *excepted == matter)
    };
    let finder = finder();
    let texts = finder.texts.find_overlapping_iter(said).filter_map(|found| {
        let in_log = (place == Place::Log).then_some(Matter::Path);
        let matter = finder.matters.get(found.pattern().as_usize()).copied().or(in_log)?;
        Some((matter, found.range()))
    });
    let token = is_leak(Matter::Token).then(|| token(said)).flatten().map(|range| (Matter::Token, range));
    let prompt = is_leak(Matter::Prompt).then(|| prompt(said)).flatten().map(|range| (Matter::Prompt, range));
    let mut leaks = texts.chain(token).chain(prompt).filter(|(matter, _)| is_leak(*matter));
    leaks.next().map(|(matter, range)| {
        let around = &said[range.start.saturating_sub(200)..said.len().min(range.end + 200)];
        Leak { matter, around: String::from_utf8_lossy(around).into_owned() }
    })
}

/// The claims or the signature of a token that is known, as a word of its own.
fn token(said: &[u8]) -> Option<std::ops::Range<usize>> {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let noted = NOTED.read();
    let mut at = 0;
    while at < said.len() {
        let word = said[at..].iter().take_while(|byte| is_of_token(byte)).count();
        if word >= TOKEN_PART_BYTES_MIN {
            let text = std::str::from_utf8(&said[at..at + word]).unwrap();
            if noted.token_parts.contains(text) {
                return Some(at..at + word);
            }
        }
        at += word + 1;
    }
    None
}

/// Where a prompt that is known begins.
fn prompt(said: &[u8]) -> Option<std::ops::Range<usize>> {
    let noted = NOTED.read();
    let windows = said.windows(PROMPT_BYTES_MIN).enumerate();
    // A prompt in a log begins with a word, or after a quotation mark.
    let mut beginnings = windows.filter(|(at, _)| *at == 0 || !said[at - 1].is_ascii_alphanumeric());
    let found = beginnings.find(|(_, window)| noted.prompts.contains(*window))?;
    Some(found.0..found.0 + PROMPT_BYTES_MIN)
}

/// Fails if this tells there what it may not.
#[track_caller]
pub(crate) fn judge(who: &str, place: Place, said: &[u8], exceptions: &[Exception]) {
    if let Some(Leak { matter, around }) = leak(place, said, exceptions) {
        panic!("{place:?} of {who} tells a {matter:?}: …{around}…\n(excepted: {exceptions:?})");
    }
}

/// Judges all that a process has said.
#[track_caller]
pub(super) fn judge_output(who: &str, stdout: &[u8], stderr: &[u8], exceptions: &[Exception]) {
    let lines = |said: &[u8]| said.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    // The line by which a server says where it is brings whoever has started it the token to come in with.
    let (banners, others): (Vec<_>, Vec<_>) = lines(stdout).into_iter().partition(|line| line.starts_with(b"http://"));
    judge(who, Place::Output, &others.concat(), exceptions);
    judge(who, Place::Output, &banners.concat(), &[exceptions, &[(Matter::Token, "it is theirs")]].concat());
    let (complaints, log): (Vec<_>, Vec<_>) = lines(stderr)
        .into_iter()
        .partition(|line| line.strip_prefix(b"<3>").unwrap_or(line).starts_with(b"holdfast: "));
    judge(who, Place::Output, &complaints.concat(), exceptions);
    judge(who, Place::Log, &log.concat(), exceptions);
}

/// A client's side of a connection, where everything that is read is judged.
pub(crate) struct Heard {
    socket: TcpStream,
    tail: Vec<u8>,
}

impl Heard {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, tail: Vec::new() }
    }
}

impl Deref for Heard {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.socket.read(buffer)?;
        self.tail.extend_from_slice(&buffer[..read]);
        judge("a server", Place::Answer, &self.tail, &[]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok(read)
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_planted_is_found_where_it_may_not_be() {
        note_secret("the secret of one test alone");
        note_dsn("postgres://somebody:kept-to-oneself@localhost/database");
        let token = super::super::Launch::token("planted@example.org");
        let (claims, signature) = token.split_once('.').unwrap().1.split_once('.').unwrap();
        note_prompt("how many penguins are there in this log");
        let home = std::env::temp_dir().join("holdfast-1/state");
        let everywhere = [Place::Answer, Place::Log, Place::Output];
        let not_in_outputs = [Place::Answer, Place::Log];
        let cases: [(Matter, &str, &[Place]); 12] = [
            (Matter::Secret, "the secret of one test alone", &everywhere),
            (Matter::Secret, "kept-to-oneself", &everywhere),
            (Matter::Token, claims, &everywhere),
            (Matter::Token, signature, &everywhere),
            (Matter::Dsn, "postgres://localhost/database", &everywhere),
            (Matter::Statement, "SELECT 1 FROM runs WHERE run_id = $1", &[Place::Answer, Place::Output]),
            (Matter::Panic, "thread 'http-1' panicked at somewhere", &everywhere),
            (Matter::Path, "src/runner/worker.rs:12", &not_in_outputs),
            (Matter::Path, home.to_str().unwrap(), &not_in_outputs),
            (Matter::Path, "/etc/passwd", &[Place::Log]),
            (Matter::Prompt, "how many penguins are there in this log", &[Place::Log]),
            (Matter::Prompt, "SELECT 6 * 7", &[Place::Log]),
        ];
        for (matter, text, places) in cases {
            for place in everywhere {
                let said = format!("{{\"detail\":\"something about {text}, and more\"}}");
                let found = leak(place, said.as_bytes(), &[]).map(|leak| leak.matter);
                if places.contains(&place) {
                    assert_eq!(found, Some(matter), "{text:?} in {place:?}");
                    let excepted = leak(place, said.as_bytes(), &[(matter, "it is meant")]).map(|leak| leak.matter);
                    assert_ne!(excepted, Some(matter), "{text:?} in {place:?}");
                } else {
                    assert!(found.is_none_or(|found| found != matter), "{text:?} in {place:?}");
                }
            }
        }
        assert!(leak(Place::Log, b"run.claimed run_id=01a20900-e0ad-7644-91ca-d1a71fefee30 attempt=1", &[]).is_none());
    }
}
