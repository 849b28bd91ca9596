//! The HTTP contract from outside: programs that know nothing of Holdfast but its OpenAPI document.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::python::{HERE, environment};
use crate::util::{Launch, endurance, require, sql};

/// Examples for each operation and phase; with those of the coverage phase, which are as many as it takes, some 1,000 requests.
const EXAMPLES: u32 = 10;
/// The same requests each time, so that what fails once fails again.
const SEED: &str = "1";

/// The program of that name, unless something is missing here.
fn program(name: &str) -> Option<Command> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| environment("contract-venv", "contract-requirements.txt", "schemathesis"));
    let what = made.as_ref().err().map_or("Python", |missing| missing);
    let directory = require(what, made.is_ok()).then(|| made.as_ref().ok()).flatten()?;
    Some(Command::new(directory.join(name)))
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let Output { status, stdout, stderr } = command.current_dir(HERE).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
}

/// By the schema of OpenAPI 3.1 itself.
#[test]
fn the_document_is_openapi() {
    let Some(mut validator) = program("openapi-spec-validator") else { return };
    let server = Launch::holdfast().start();
    let file = server.launch().home().join("openapi.json");
    std::fs::write(&file, server.anonymous().get("/openapi.json").body).unwrap();
    succeeds(validator.args(["--schema", "3.1"]).arg(&file));
}

/// Goal: whatever a client makes of the document, right or wrong, is answered as the document says, also when one call follows the
/// other. All checks are on but for two, each on a few paths; `schemathesis.toml` says which, and why.
#[test]
fn whatever_the_document_allows_is_answered_as_it_says() {
    let Some(mut schemathesis) = program("st") else { return };
    // Questions that nobody waits for must not fill the queue.
    let server = Launch::holdfast().env("MAX_QUEUED_PER_USER", "1000").start();
    let mut ann = server.client("ann@example.org");
    let run_id = ann.post("/analyze", &sql("first", "SELECT 1")).run_id();
    let document = ann.get("/openapi.json").json();
    let example = &document["paths"]["/runs/{run_id}"]["get"]["parameters"][0]["example"];
    succeeds(
        schemathesis
            .args(["run", &format!("http://{}/openapi.json", server.address())])
            .args(["--seed", SEED, "--max-examples", &(EXAMPLES * endurance()).to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HOLDFAST_TOKEN", Launch::token("ann@example.org"))
            .env("HOLDFAST_EXAMPLE_RUN_ID", example.as_str().unwrap())
            .env("HOLDFAST_RUN_ID", run_id),
    );
}
