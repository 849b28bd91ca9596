//! What an engine is told of the earlier turns of its thread.

use crate::domain::Run;
use crate::engine::Turn;

/// How many bytes of a question, and how many of an answer: what is asked and found stands at their beginning, and no single
/// turn keeps the others away.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// How many bytes of all turns together: some 8,000 tokens, a quarter of the smallest context that language models are used
/// with, so that the question itself and what it is about have room beside it.
const HISTORY_BYTES_MAX: usize = 32 * 1024;
/// How many bytes of questions and answers are read for that, however long each is: no more runs are read then.
pub(super) const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The newest of these runs' questions and answers that fit, oldest first as they are given. What is too long is cut at the
/// end of a character, what is too old is left out whole.
pub(super) fn turns(runs: Vec<Run>) -> Vec<Turn> {
    let mut left = HISTORY_BYTES_MAX;
    let mut turns: Vec<Turn> = runs
        .into_iter()
        .rev()
        .filter_map(|run| Some(Turn { prompt: cut(run.prompt), result: cut(run.answer?.result) }))
        .map_while(|turn| {
            left = left.checked_sub(turn.prompt.len() + turn.result.len())?;
            Some(turn)
        })
        .collect();
    turns.reverse();
    turns
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::domain::{Answer, RunId, Status, ThreadKey};

    fn run(prompt: &str, result: &str) -> Run {
        Run {
            id: RunId::new(),
            owner: "ann".into(),
            thread_id: "thread".into(),
            thread_key: ThreadKey::new(),
            number: 1,
            prompt: prompt.into(),
            engine: "analyst".into(),
            status: Status::Succeeded,
            attempt: 1,
            step: 1,
            checkpoint_id: None,
            spent_ms: 0,
            submitted_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            answer: Some(Answer { result: result.into(), ..Answer::default() }),
            error: None,
        }
    }

    #[test]
    fn what_fits_is_told_whole_and_in_order() {
        let told = turns(vec![run("a", "1"), run("b", "2"), Run { answer: None, ..run("c", "") }]);
        let turn = |prompt: &str, result: &str| Turn { prompt: prompt.into(), result: result.into() };
        assert_eq!(told, [turn("a", "1"), turn("b", "2")]);
    }

    #[test]
    fn the_oldest_are_left_out_whole() {
        let long = "x".repeat(TEXT_BYTES_MAX);
        let runs: Vec<Run> = (0..10).map(|n| run(&n.to_string(), &long)).collect();
        let told = turns(runs);
        let prompts: Vec<&str> = told.iter().map(|turn| turn.prompt.as_str()).collect();
        assert_eq!(prompts, ["3", "4", "5", "6", "7", "8", "9"], "an eighth one would be a few bytes too much");
        assert!(told.iter().all(|turn| turn.result == long));
        // One that does not fit ends the telling: nothing is told past a gap.
        let runs = vec![
            run("short", ""),
            run(&long, &long),
            run(&long, &long),
            run(&long, &long),
            run(&long, &long),
            run("", "x"),
        ];
        assert_eq!(turns(runs).len(), 4);
    }

    #[test]
    fn a_long_text_is_cut_at_the_end_of_a_character() {
        let told = turns(vec![run(&format!("x{}", "ä".repeat(5000)), &"€".repeat(5000))]);
        assert_eq!(told[0].prompt, format!("x{}", "ä".repeat(2047)));
        assert_eq!(told[0].result, "€".repeat(1365));
    }
}
