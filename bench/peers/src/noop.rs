//! Holdfast with one more engine, `noop`: three steps that do nothing, the same as those of `python/analyze_app.py`.

use std::process::ExitCode;
use std::sync::Arc;

use holdfast::domain::Answer;
use holdfast::engine::{Engine, EngineError, Next, State, StepContext, Turn};
use serde_json::{Value, json};

struct Noop;

impl Engine for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn start(&self, prompt: &str, _history: &[Turn]) -> State {
        let mut state = State::default();
        state.set("prompt", prompt);
        state
    }

    fn step(&self, state: &mut State, _context: &StepContext) -> Result<Next, EngineError> {
        let Some(lengths) = state.get("lengths").and_then(Value::as_array) else {
            let lengths: Vec<usize> = state.text("prompt").split_whitespace().map(str::len).collect();
            state.set("lengths", json!(lengths));
            return Ok(Next::Step("collect"));
        };
        let words = lengths.len();
        let Some(score) = state.get("score").and_then(Value::as_f64) else {
            let sum: f64 = lengths.iter().filter_map(Value::as_f64).sum();
            state.set("score", sum / words.max(1) as f64);
            return Ok(Next::Step("score"));
        };
        let text = format!("score {score:.2}");
        state.set("report", json!({"text": text, "words": words}));
        Ok(Next::Done("write", Answer { result: text, ..Answer::default() }))
    }
}

/// Serves as `holdfast serve` does.
pub fn serve() -> ExitCode {
    bound_by_environment();
    match holdfast::config::load() {
        Ok((config, _)) => holdfast::app::serve(&config, vec![Arc::new(Noop)]).into(),
        Err(faults) => panic!("{faults:?}"),
    }
}

/// Has glibc heed `MALLOC_ARENA_MAX`, if that is set, and not the number that the server asks for: it decides when it needs the
/// second arena, which is when a second thread allocates, and never again.
fn bound_by_environment() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        let allocated = std::thread::spawn(|| std::hint::black_box(vec![1_u8; 64]).len()).join();
        assert!(allocated.is_ok(), "a thread can be started");
    }
}
