//! The built-in engine: answers SQL with its result, and a question in words with the tables that fit it.
//!
//! Two steps. `draft` decides what to run: the prompt itself when it is SQL, else a query to start from over the table
//! that fits best. `answer` runs it and puts the result into words. A step costs a commit, so running and wording are one:
//! wording takes microseconds, and a crash between the two would have lost nothing that the commit of the answer keeps.

mod draft;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Engine, EngineError, Next, State, StepContext, Turn};
use crate::datasets::{Datasets, DatasetsError, QueryError, QueryResult, Table};
use crate::domain::{Answer, ErrorKind};
use draft::Prompt;

/// Tables that a question in words is answered with.
const TABLES_MAX: usize = 3;
/// Rows of the query to start from.
const STARTING_ROWS: usize = 10;
/// Columns of the query to start from; beyond it, all of them by a star.
const STARTING_COLUMNS_MAX: usize = 12;

/// How long is waited before the tables are asked again that could not be read: somebody else had the memory, the disk
/// or all connections, and has it for a moment or for long.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];
/// How often a waiting step looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The channels of its state. `prompt` is the question, `sql` what is to be run, `tables` what it was drafted from (only
/// for a question in words), `result` the answer in words.
mod channel {
    pub(super) const PROMPT: &str = "prompt";
    pub(super) const SQL: &str = "sql";
    pub(super) const TABLES: &str = "tables";
    pub(super) const RESULT: &str = "result";
}

/// Answers over the tables of data.
pub struct Analyst {
    datasets: Arc<Datasets>,
}

impl Analyst {
    /// An analyst of these tables.
    pub fn new(datasets: Arc<Datasets>) -> Self {
        Self { datasets }
    }

    fn draft(&self, state: &mut State, context: &StepContext) -> Result<Next, EngineError> {
        let sql = match Prompt::read(state.text(channel::PROMPT)) {
            Prompt::Sql(sql) => sql,
            Prompt::Words(question) => {
                let mut tables = look_up(context, || self.datasets.search(&question, TABLES_MAX))?;
                let sql = tables.first().map(starting_query).unwrap_or_default();
                let names: Vec<String> = tables.drain(..).map(|table| table.name).collect();
                state.set(channel::TABLES, names);
                sql
            }
        };
        state.set(channel::SQL, sql);
        Ok(Next::Step("draft"))
    }

    fn answer(&self, state: &mut State, context: &StepContext) -> Result<Next, EngineError> {
        let sql = state.text(channel::SQL).to_owned();
        let names: Option<Vec<&str>> = state
            .get(channel::TABLES)
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect());
        let answer = match names {
            None => {
                let result = self.execute(&sql, context)?;
                let text = words::of_statement(&sql, &result);
                answer(sql, result, text)
            }
            Some(names) if names.is_empty() => {
                let tables = look_up(context, || self.datasets.tables(""))?;
                Answer { result: words::no_match(&tables), iteration: 1, ..Answer::default() }
            }
            Some(names) => {
                let profile = |name| look_up(context, || self.datasets.profile(name));
                let found = names.into_iter().map(profile).collect::<Result<Vec<_>, _>>()?;
                let tables: Vec<Table> = found.into_iter().flatten().collect();
                let result = self.execute(&sql, context)?;
                let text = words::of_question(&tables, &sql, &result);
                answer(sql, result, text)
            }
        };
        state.set(channel::RESULT, answer.result.clone());
        Ok(Next::Done("answer", answer))
    }

    fn execute(&self, sql: &str, context: &StepContext) -> Result<QueryResult, EngineError> {
        // The other half is for the text, which has limits of its own, and for what JSON adds by escaping.
        let bytes_max = context.result_bytes_max() / 2;
        patiently(context, || {
            let until = context.clone();
            let result = self.datasets.query(sql, bytes_max, move || until.should_stop());
            // Whatever the statement says about being stopped, the runner knows why it was.
            context.check()?;
            match result {
                Ok(result) => Ok(Some(result)),
                Err(QueryError::Unavailable(_)) => Ok(None),
                Err(QueryError::Interrupted) => Err(EngineError::Interrupted),
                Err(QueryError::Invalid(reason) | QueryError::TooMuch(reason)) => {
                    Err(EngineError::Failed(ErrorKind::InvalidQuery, reason))
                }
            }
        })
    }
}

/// Reads what is known of the tables.
fn look_up<T>(context: &StepContext, read: impl Fn() -> Result<T, DatasetsError>) -> Result<T, EngineError> {
    patiently(context, || match read() {
        Ok(found) => Ok(Some(found)),
        Err(DatasetsError::Closing) => Err(EngineError::Interrupted),
        Err(_) => Ok(None),
    })
}

/// Repeats what gives nothing because the tables cannot be had at the moment, a few times and until the step is to stop.
fn patiently<T>(context: &StepContext, attempt: impl Fn() -> Result<Option<T>, EngineError>) -> Result<T, EngineError> {
    for pause in PAUSES {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        let until = Instant::now() + pause;
        while Instant::now() < until {
            context.check()?;
            std::thread::sleep(LOOK_EVERY);
        }
    }
    attempt()?.ok_or_else(|| {
        EngineError::Failed(ErrorKind::Engine, "The tables of data cannot be read at the moment.".into())
    })
}

impl Engine for Analyst {
    fn name(&self) -> &'static str {
        "analyst"
    }

    /// Each question stands for itself: earlier ones are not looked at.
    fn start(&self, prompt: &str, _history: &[Turn]) -> State {
        let mut state = State::default();
        state.set(channel::PROMPT, prompt);
        state
    }

    fn step(&self, state: &mut State, context: &StepContext) -> Result<Next, EngineError> {
        context.check()?;
        if state.get(channel::SQL).is_none() { self.draft(state, context) } else { self.answer(state, context) }
    }
}

/// A few rows of the table, with its columns by name so that they can be chosen from.
fn starting_query(table: &Table) -> String {
    let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let columns = if columns.len() > STARTING_COLUMNS_MAX { "*".to_owned() } else { columns.join(", ") };
    format!("SELECT {columns} FROM {} LIMIT {STARTING_ROWS}", table.name)
}

fn answer(sql: String, result: QueryResult, text: String) -> Answer {
    Answer {
        result: text,
        queries_and_results: vec![(sql.clone(), words::table(&result))],
        sql: Some(sql),
        datasets_used: result.tables.into_iter().collect(),
        iteration: 1,
        columns: result.columns,
        rows: result.rows,
        row_count: result.row_count,
        truncated: result.truncated,
    }
}

#[cfg(test)]
mod tests;
