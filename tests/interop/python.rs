//! Python with what others made, in virtual environments of their own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::util::{Database, PATIENCE, require};

/// Where the programs and what they require are.
pub(super) const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// The programs of a virtual environment that has what this file pins, unless an earlier run of the tests made it of the same.
///
/// # Errors
/// What is missing: Python, `venv`, or a package index.
pub(super) fn environment(name: &str, requirements: &str, what: &str) -> Result<PathBuf, String> {
    // Beside what cargo builds: whoever cleans that up has this made anew.
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let lock = File::create(home.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = fs::read_to_string(Path::new(HERE).join(requirements)).unwrap();
    let made_of = home.join("made-of.txt");
    if fs::read_to_string(&made_of).ok().as_ref() != Some(&wanted) {
        drop(fs::remove_dir_all(&home));
        done("Python with venv", Command::new("python3").args(["-m", "venv"]).arg(&home))?;
        done(
            &format!("{what} from the Python Package Index"),
            Command::new(home.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--requirement", requirements])
                .current_dir(HERE),
        )?;
        fs::write(&made_of, &wanted).unwrap();
    }
    Ok(home.join("bin"))
}

/// An interpreter that has what `requirements.txt` pins.
pub(super) struct Python {
    interpreter: PathBuf,
    /// One process for all tests, since loading the library takes a second.
    talk: Mutex<Talk>,
}

/// `interop.py` at work; it ends with its standard input, when the tests do.
struct Talk {
    questions: ChildStdin,
    /// Line by line; nobody has to wait for one that does not come.
    answers: Receiver<String>,
}

impl Python {
    /// The one that all tests share. Without Python, `venv` or a package index it says so loudly, and fails where `CI` is set.
    #[must_use]
    pub(super) fn require() -> Option<&'static Self> {
        static MADE: OnceLock<Result<Python, String>> = OnceLock::new();
        let made = MADE.get_or_init(Self::make);
        let what = made.as_ref().err().map_or("Python", |missing| missing);
        require(what, made.is_ok()).then(|| made.as_ref().ok()).flatten()
    }

    #[allow(clippy::zombie_processes, reason = "it ends when the tests do, and nobody is left to wait for it")]
    fn make() -> Result<Self, String> {
        let interpreter = environment("interop-venv", "requirements.txt", "LangGraph's library")?.join("python");
        let mut process = Command::new(&interpreter)
            .arg("interop.py")
            .current_dir(HERE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (questions, said) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| answer.send(line)));
        Ok(Self { interpreter, talk: Mutex::new(Talk { questions, answers }) })
    }

    /// What a verb of `interop.py` saw.
    #[track_caller]
    pub(super) fn call(&self, verb: &str, database: &Database, arguments: &[&str]) -> Value {
        let question = json!([&[verb, &*database.url()], arguments].concat());
        let line = {
            let mut talk = self.talk.lock();
            writeln!(talk.questions, "{question}").unwrap();
            talk.answers.recv_timeout(2 * PATIENCE).unwrap()
        };
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("ok").is_some(), "{}", answer["error"].as_str().unwrap());
        answer["ok"].take()
    }

    /// What a whole program prints, with these variables in its environment.
    #[track_caller]
    pub(super) fn run(&self, program: &str, variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(&self.interpreter);
        let Output { status, stdout, stderr } =
            command.args(["-c", program]).envs(variables.iter().copied()).output().unwrap();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

/// Runs a command that fails when this is missing.
fn done(what: &str, command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => Err(format!("{what} ({})", String::from_utf8_lossy(&stderr).trim())),
        Err(error) => Err(format!("{what} ({error})")),
    }
}
