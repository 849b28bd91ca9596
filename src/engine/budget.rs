//! How many bytes an analysis may keep, leave behind in a step, and answer with, so that one of them does not take from the others.
//!
//! What is kept is counted as it is held in memory, which is more than its JSON has: a number takes as much as seventy characters.
//! An answer is counted as the JSON that clients read.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::State;
use crate::domain::{Answer, ErrorKind, RunError};

/// How much of an error's text is kept: a sentence or two, and what the engine quotes in them.
const ERROR_BYTES_MAX: usize = 4 * 1024;
/// An entry of an object beside its key's text and its value: the key, its hash and its place in the table.
const ENTRY_BYTES: usize = 40;
/// What stands where a text was cut.
const CUT: char = '…';

/// The limits of one analysis, all of them in proportion to `MAX_RESULT_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What an answer may have; more is cut off.
    pub result_bytes_max: usize,
}

impl Budget {
    /// All channels of the state together, which a run that resumes reads at once: an answer, what it was made of, and what that
    /// was made of.
    pub fn state_bytes_max(self) -> usize {
        self.result_bytes_max.saturating_mul(4)
    }

    /// The channels that one step changes: they are stored in one transaction, in memory as values, as JSON and on their way to
    /// the store.
    pub fn step_bytes_max(self) -> usize {
        self.result_bytes_max.saturating_mul(2)
    }

    /// How much of both is left for the step that is at this state.
    pub fn bytes_left(self, state: &State) -> usize {
        let of_state = self.state_bytes_max().saturating_sub(state.bytes());
        of_state.min(self.step_bytes_max().saturating_sub(state.changed_bytes()))
    }

    /// Whether the state may be stored.
    ///
    /// # Errors
    /// What the run ends with if not.
    pub(crate) fn check(self, state: &State) -> Result<(), RunError> {
        let too_large = |what: &str, bytes: usize, bytes_max: usize, times: u8| {
            let message = format!(
                "The analysis {what} {} MB, and {} MB are allowed, {times} times MAX_RESULT_BYTES.",
                megabytes(bytes),
                megabytes(bytes_max)
            );
            Err(RunError { kind: ErrorKind::TooLarge, message })
        };
        if state.bytes() > self.state_bytes_max() {
            return too_large("keeps", state.bytes(), self.state_bytes_max(), 4);
        }
        if state.changed_bytes() > self.step_bytes_max() {
            return too_large("made in one step", state.changed_bytes(), self.step_bytes_max(), 2);
        }
        Ok(())
    }

    /// Cuts off what an answer has too much, rows first, and has it say so.
    pub(crate) fn fit(self, answer: &mut Answer) {
        let mut excess = json_bytes(answer).saturating_sub(self.result_bytes_max);
        if excess == 0 {
            return;
        }
        answer.truncated = true;
        while excess > 0
            && let Some(row) = answer.rows.pop()
        {
            excess = excess.saturating_sub(json_bytes(&row));
        }
        for (_, text) in answer.queries_and_results.iter_mut().rev() {
            cut(text, &mut excess);
        }
        cut(&mut answer.result, &mut excess);
        // What is left now are names and statements, which only a strange engine gives so many of.
        while excess > 0
            && let Some(pair) = answer.queries_and_results.pop()
        {
            excess = excess.saturating_sub(json_bytes(&pair));
        }
        if excess > 0 {
            let Answer { result, iteration, row_count, .. } = std::mem::take(answer);
            *answer = Answer { result, iteration, row_count, truncated: true, ..Answer::default() };
        }
    }

    /// An error whose text is no longer than anybody reads.
    pub(crate) fn error(kind: ErrorKind, mut message: String) -> RunError {
        let mut excess = message.len().saturating_sub(ERROR_BYTES_MAX);
        cut(&mut message, &mut excess);
        RunError { kind, message }
    }
}

/// Takes `excess` bytes of JSON off the end of the text, as far as it has them, and says how many are still too many.
fn cut(text: &mut String, excess: &mut usize) {
    if *excess == 0 || text.is_empty() {
        return;
    }
    let wanted = *excess + CUT.len_utf8();
    let mut taken = 0;
    let kept = text.char_indices().rev().find_map(|(at, character)| {
        taken += escaped_bytes(character);
        (taken >= wanted).then_some(at)
    });
    text.truncate(kept.unwrap_or(0));
    if kept.is_some() {
        text.push(CUT);
        *excess = 0;
    } else {
        *excess = excess.saturating_sub(taken);
    }
}

/// How long a character is within a text of JSON.
fn escaped_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..'\u{20}' => 6,
        other => other.len_utf8(),
    }
}

/// What a channel's value takes in memory, about.
pub(super) fn bytes(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
        Value::String(text) => own + text.len(),
        Value::Array(values) => own + values.iter().map(bytes).sum::<usize>(),
        Value::Object(entries) => {
            own + entries.iter().map(|(key, value)| ENTRY_BYTES + key.len() + bytes(value)).sum::<usize>()
        }
    }
}

/// How long it is as JSON; nothing of that is kept.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            self.0 += piece.len();
            Ok(piece.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("answers have text keys and counting does not fail");
    count.0
}

fn megabytes(bytes: usize) -> f64 {
    (bytes as f64 / 1_048_576.0 * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BUDGET: Budget = Budget { result_bytes_max: 1000 };

    fn answer() -> Answer {
        Answer {
            result: "r".repeat(100),
            sql: Some("SELECT 1".into()),
            queries_and_results: vec![("SELECT 1".into(), "q".repeat(100))],
            datasets_used: vec!["penguins".into()],
            iteration: 3,
            columns: vec!["a".into()],
            rows: vec![vec![json!("x".repeat(10))]; 10],
            row_count: 10,
            truncated: false,
        }
    }

    #[test]
    fn an_answer_that_fits_is_left_alone() {
        let mut fitting = answer();
        BUDGET.fit(&mut fitting);
        assert_eq!(fitting, answer());
    }

    #[test]
    fn of_an_answer_rows_go_first_then_texts_and_it_says_so_and_fits() {
        let mut many_rows = Answer { rows: vec![vec![json!("x".repeat(10))]; 200], ..answer() };
        BUDGET.fit(&mut many_rows);
        assert!(many_rows.truncated && (20..50).contains(&many_rows.rows.len()), "{}", many_rows.rows.len());
        assert_eq!((many_rows.result.len(), many_rows.row_count), (100, 10));

        let mut long_texts = Answer { result: "ä\"\n\u{1}".repeat(5000), ..answer() };
        BUDGET.fit(&mut long_texts);
        assert!(long_texts.truncated && long_texts.rows.is_empty() && long_texts.queries_and_results[0].1.is_empty());
        let bytes = json_bytes(&long_texts);
        assert!((990..=1000).contains(&bytes), "{bytes}");

        let mut long_word = Answer { result: "ä".repeat(600), rows: Vec::new(), ..answer() };
        BUDGET.fit(&mut long_word);
        let bytes = json_bytes(&long_word);
        assert!(long_word.result.ends_with("ä…") && (990..=1000).contains(&bytes), "{bytes}");

        let strange = Answer { datasets_used: vec!["t".repeat(100); 20], sql: Some("s".repeat(5000)), ..answer() };
        let mut fitted = strange.clone();
        BUDGET.fit(&mut fitted);
        assert!(json_bytes(&fitted) <= 1000 && fitted.truncated && fitted.row_count == 10);
    }

    #[test]
    fn a_state_is_counted_as_it_is_held_and_as_it_changes() {
        let mut state = State::default();
        assert_eq!((state.bytes(), BUDGET.bytes_left(&state)), (0, 2000));
        state.set("text", "x".repeat(1000));
        let text_bytes = 4 + size_of::<Value>() + 1000;
        assert_eq!((state.bytes(), state.changed_bytes()), (text_bytes, text_bytes));
        assert_eq!(BUDGET.bytes_left(&state), 2000 - text_bytes);
        state.take_changed();
        assert_eq!((state.bytes(), state.changed_bytes()), (text_bytes, 0));
        state.set("numbers", vec![1; 10]);
        let numbers_bytes = 7 + 11 * size_of::<Value>();
        assert_eq!((state.bytes(), state.changed_bytes()), (text_bytes + numbers_bytes, numbers_bytes));
        state.set("text", "");
        assert_eq!(state.bytes(), 4 + size_of::<Value>() + numbers_bytes);
        let restored = State::restored(state.channels().clone());
        assert_eq!((restored.bytes(), restored.changed_bytes()), (state.bytes(), 0));
        let object = json!({"key": [null, true]});
        assert_eq!(bytes(&object), 4 * size_of::<Value>() + ENTRY_BYTES + 3);
    }

    #[test]
    fn what_is_too_large_says_by_how_much_and_what_raises_the_limit() {
        let budget = Budget { result_bytes_max: 1 << 20 };
        let mut state = State::default();
        state.set("a", "x".repeat(3 << 20));
        let error = budget.check(&state).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLarge);
        assert_eq!(
            error.message,
            "The analysis made in one step 3 MB, and 2 MB are allowed, 2 times MAX_RESULT_BYTES."
        );
        state.take_changed();
        assert_eq!(budget.check(&state), Ok(()));
        state.set("b", "x".repeat(3 << 19));
        assert_eq!(
            budget.check(&state).unwrap_err().message,
            "The analysis keeps 4.5 MB, and 4 MB are allowed, 4 times MAX_RESULT_BYTES."
        );
        assert_eq!(budget.bytes_left(&state), 0);
    }

    #[test]
    fn an_error_is_short_enough_to_be_read() {
        assert_eq!(Budget::error(ErrorKind::Engine, "short".into()).message, "short");
        let long = Budget::error(ErrorKind::Engine, "ä".repeat(1 << 20)).message;
        assert!(long.len() <= ERROR_BYTES_MAX && long.ends_with("ä…"), "{}", long.len());
    }
}
