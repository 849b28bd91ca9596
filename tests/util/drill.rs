//! An engine whose steps do what the prompt asks for, so that a test decides what happens in which step.
//!
//! [`Drill`] is the plan of one run. The engine writes `enter K` and `leave K` to the plan's journal as it enters and
//! leaves step K, whatever process it is in; a test waits for these lines, counts them, and opens the gates at which
//! steps wait.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast::app::Pace;
use holdfast::domain::{Answer, ErrorKind};
use holdfast::engine::{Engine, EngineError, Next, State, StepContext, Turn};
use holdfast::memory;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Server, wait_until};

/// The variable that names the directory of journals and gates; without it [`server_process`] does nothing.
pub(super) const DIRECTORY: &str = "HOLDFAST_DRILL";

/// The variable with which the server looks at its memory as often as it can, takes each look for growth, and expects of a job of its
/// lane that it takes no time but the wait for a connection.
pub(super) const HURRY: &str = "HOLDFAST_DRILL_HURRY";

/// What makes this test binary a server.
pub(super) const ARGUMENTS: [&str; 4] = ["--exact", "util::drill::server_process", "--ignored", "--nocapture"];

/// What a step does beside being journalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Waits until the test opens the step's gate; stops when it is asked to.
    Wait,
    /// Waits until the test opens the step's gate, and does not listen meanwhile.
    WaitDeaf,
    /// Waits until the test opens the step's gate, with so many bytes of memory in use.
    WaitHolding(usize),
    Panic,
    /// Ends the run as failed.
    Fail,
    /// Takes so many milliseconds; stops when it is asked to.
    Last(u64),
    /// Kills its process, every time.
    Die,
    /// Kills its process the first time.
    DieOnce,
    /// Answers with so many bytes.
    Answer(usize),
    /// Leaves U+0000 in a channel, which few stores of text can hold.
    SetNul,
    /// Leaves so many bytes in a channel of the step's own.
    Keep(usize),
    /// Loses so many bytes of memory for good.
    Leak(usize),
    /// Answers with how many bytes are left for the state, and how many of the process's memory.
    TellHeadroom,
    /// Answers with the names of the variables of the process that a service manager gave it.
    TellInherited,
}

/// How many earlier turns a run is told that remembers.
pub(crate) const REMEMBERED: usize = 12;

/// The name of the engine that is told nothing of earlier turns, and of the one that is.
const NAMES: [&str; 2] = ["drill", "drill-that-remembers"];

/// The plan of one run. Its answer is `NAME: N steps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drill {
    name: String,
    steps: u32,
    /// Whether it answers with what it was told of earlier turns.
    remembers: bool,
    /// By step; the number 0 is `start`, which can only panic.
    acts: BTreeMap<u32, Act>,
}

impl Drill {
    /// A run of so many steps that do nothing; the name is the journal's, so it is unique on a server.
    pub(crate) fn new(name: &str, steps: u32) -> Self {
        Self { name: name.into(), steps, remembers: false, acts: BTreeMap::new() }
    }

    /// Answers with what it was told of earlier turns when it began: an array of questions with their answers.
    #[must_use]
    pub(crate) fn remembering(self) -> Self {
        Self { remembers: true, ..self }
    }

    /// What step `k` does.
    #[must_use]
    pub(crate) fn on(mut self, k: u32, act: Act) -> Self {
        self.acts.insert(k, act);
        self
    }

    /// The body of the question.
    pub(crate) fn question(&self, thread_id: &str) -> Value {
        let plan = serde_json::to_string(self).unwrap();
        json!({"thread_id": thread_id, "prompt": plan, "engine": NAMES[usize::from(self.remembers)]})
    }

    /// What the run answers when nothing else was asked for.
    pub(crate) fn answer(&self) -> String {
        format!("{}: {} steps", self.name, self.steps)
    }

    /// The lines of its journal so far.
    pub(crate) fn journal(&self, server: &Server) -> Vec<String> {
        let text = std::fs::read_to_string(directory(server).join(&self.name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What a run that remembers was told, each time that it was started.
    pub(crate) fn told(&self, server: &Server) -> Vec<String> {
        self.journal(server).iter().filter_map(|entry| entry.strip_prefix("start ").map(str::to_owned)).collect()
    }

    /// The steps in the order in which they were entered.
    pub(crate) fn entries(&self, server: &Server) -> Vec<u32> {
        let journal = self.journal(server);
        journal.iter().filter_map(|entry| entry.strip_prefix("enter ")?.parse().ok()).collect()
    }

    /// How often step `k` has been entered.
    pub(crate) fn entered(&self, server: &Server, k: u32) -> usize {
        self.entries(server).iter().filter(|entered| **entered == k).count()
    }

    /// Waits until step `k` has been entered for the `times`th time.
    #[track_caller]
    pub(crate) fn wait_for_step(&self, server: &Server, k: u32, times: usize) {
        wait_until(&format!("step {k} of {}", self.name), || self.entered(server, k) >= times);
    }

    /// Lets step `k` go on, now and whenever it is repeated.
    pub(crate) fn open(&self, server: &Server, k: u32) {
        std::fs::write(directory(server).join(self.gate(k)), "").unwrap();
    }

    fn gate(&self, k: u32) -> String {
        format!("{}.{k}.open", self.name)
    }
}

/// The file that makes a thread of the store lane stand still with the next question, and the one that tells that it does.
const LANE_BLOCKED: &str = "lane.blocked";
const LANE_STUCK: &str = "lane.stuck";

/// Has whichever thread of the store lane takes the next question stand still.
pub(crate) fn block_lane(server: &Server) {
    std::fs::write(directory(server).join(LANE_BLOCKED), "").unwrap();
}

/// Waits until one does.
#[track_caller]
pub(crate) fn wait_for_stuck_lane(server: &Server) {
    wait_until("the lane to be stuck", || directory(server).join(LANE_STUCK).exists());
}

/// Lets it go on.
pub(crate) fn unblock_lane(server: &Server) {
    std::fs::remove_file(directory(server).join(LANE_BLOCKED)).unwrap();
}

fn directory(server: &Server) -> PathBuf {
    server.launch().home().join("drill")
}

struct DrillEngine {
    directory: PathBuf,
    remembers: bool,
}

impl DrillEngine {
    fn journal(&self, plan: &Drill, entry: &str) {
        let path = self.directory.join(&plan.name);
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        // One write, so that lines of several processes never mix.
        file.write_all(format!("{entry}\n").as_bytes()).unwrap();
    }

    fn first_time(&self, plan: &Drill, k: u32) -> bool {
        let text = std::fs::read_to_string(self.directory.join(&plan.name)).unwrap();
        text.lines().filter(|line| *line == format!("enter {k}")).count() == 1
    }

    fn wait_at_gate(
        &self,
        plan: &Drill,
        k: u32,
        stop: impl Fn() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let gate = self.directory.join(plan.gate(k));
        while !gate.exists() {
            stop()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Engine for DrillEngine {
    /// The store lane asks for it with each question, and waits there while the lane is blocked.
    fn name(&self) -> &'static str {
        while self.directory.join(LANE_BLOCKED).exists() {
            std::fs::write(self.directory.join(LANE_STUCK), "").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        NAMES[usize::from(self.remembers)]
    }

    fn history_turns(&self) -> usize {
        if self.remembers { REMEMBERED } else { 0 }
    }

    fn start(&self, prompt: &str, history: &[Turn]) -> State {
        let plan: Drill = serde_json::from_str(prompt).expect("the prompt is a plan");
        assert_ne!(plan.acts.get(&0), Some(&Act::Panic), "asked to panic before the first step");
        let mut state = State::default();
        state.set("plan", prompt);
        state.set("done", 0);
        if self.remembers {
            let told: Vec<[&str; 2]> = history.iter().map(|turn| [&*turn.prompt, &*turn.result]).collect();
            let told = json!(told).to_string();
            self.journal(&plan, &format!("start {told}"));
            state.set("told", told);
        }
        state
    }

    fn step(&self, state: &mut State, context: &StepContext) -> Result<Next, EngineError> {
        let plan: Drill = serde_json::from_str(state.text("plan")).unwrap();
        let k = state.get("done").and_then(Value::as_u64).unwrap() as u32 + 1;
        self.journal(&plan, &format!("enter {k}"));
        let mut answer = if plan.remembers { state.text("told").to_owned() } else { plan.answer() };
        match plan.acts.get(&k) {
            None => {}
            Some(Act::Wait) => self.wait_at_gate(&plan, k, || context.check())?,
            Some(Act::WaitDeaf) => self.wait_at_gate(&plan, k, || Ok(()))?,
            Some(Act::WaitHolding(bytes)) => {
                let held = std::hint::black_box(vec![1_u8; *bytes]);
                self.wait_at_gate(&plan, k, || context.check())?;
                drop(held);
            }
            Some(Act::Last(ms)) => wait_out(Duration::from_millis(*ms), context)?,
            Some(Act::Panic) => panic!("asked to panic in step {k}"),
            Some(Act::Fail) => return Err(EngineError::Failed(ErrorKind::Engine, "it was asked to fail".into())),
            Some(Act::DieOnce) if !self.first_time(&plan, k) => {}
            Some(Act::Die | Act::DieOnce) => {
                kill_process(getpid(), Signal::KILL).unwrap();
                loop {
                    std::thread::park();
                }
            }
            Some(Act::SetNul) => state.set("nul", "a\0b"),
            Some(Act::Keep(bytes)) => state.set(&format!("kept {k}"), "x".repeat(*bytes)),
            Some(Act::Leak(bytes)) => std::mem::forget(std::hint::black_box(vec![1_u8; *bytes])),
            Some(Act::TellHeadroom) => {
                answer = json!([context.state_bytes_left(state), context.memory_bytes_left()]).to_string();
            }
            Some(Act::TellInherited) => {
                let is_inherited =
                    |name: &String| ["LISTEN_", "NOTIFY_", "WATCHDOG_"].iter().any(|begin| name.starts_with(begin));
                let names: Vec<String> = std::env::vars().map(|(name, _)| name).filter(is_inherited).collect();
                answer = json!(names).to_string();
            }
            Some(Act::Answer(bytes)) => answer = "x".repeat(*bytes),
        }
        self.journal(&plan, &format!("leave {k}"));
        state.set("done", k);
        if k < plan.steps {
            return Ok(Next::Step("drill"));
        }
        Ok(Next::Done("drill", Answer { result: answer, ..Answer::default() }))
    }
}

fn wait_out(time: Duration, context: &StepContext) -> Result<(), EngineError> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        context.check()?;
        std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(2)));
    }
    Ok(())
}

/// Not a test: what the harness starts as the drill server. Without its variable, as in `cargo test -- --ignored`, it
/// does nothing.
#[test]
#[ignore = "the harness starts it as a server"]
fn server_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = PathBuf::from(directory);
    let engine = |remembers| -> Arc<dyn Engine> { Arc::new(DrillEngine { directory: directory.clone(), remembers }) };
    let pace = if std::env::var_os(HURRY).is_some() {
        let memory = memory::Pace { sample_every: Duration::ZERO, samples_per_growth: 1 };
        Pace { memory, job_margin: Duration::ZERO }
    } else {
        Pace::default()
    };
    let code = match holdfast::config::load() {
        Ok((config, _)) => holdfast::app::serve_at(&config, vec![engine(false), engine(true)], pace),
        Err(faults) => panic!("{faults:?}"),
    };
    std::process::exit(code.into());
}
