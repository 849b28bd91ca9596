//! The built-in engine: answers SQL with its result, and a question in words with the tables that fit it.
//!
//! Two steps. `draft` decides what to run: the prompt itself when it is SQL, else a query to start from over the table
//! that fits best. `answer` runs it and puts the result into words. A step costs a commit, so running and wording are one:
//! wording takes microseconds, and a crash between the two would have lost nothing that the commit of the answer keeps.

mod draft;
mod words;

use std::sync::Arc;

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

    fn draft(&self, state: &mut State) -> Result<Next, EngineError> {
        let sql = match Prompt::read(state.text(channel::PROMPT)) {
            Prompt::Sql(sql) => sql,
            Prompt::Words(question) => {
                let mut tables = self.datasets.search(&question, TABLES_MAX).map_err(unavailable)?;
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
                let tables = self.datasets.all().map_err(unavailable)?;
                Answer { result: words::no_match(&tables), iteration: 1, ..Answer::default() }
            }
            Some(names) => {
                let found = names.iter().map(|name| self.datasets.profile(name)).collect::<Result<Vec<_>, _>>();
                let tables: Vec<Table> = found.map_err(unavailable)?.into_iter().flatten().collect();
                let result = self.execute(&sql, context)?;
                let text = words::of_question(&tables, &sql, &result);
                answer(sql, result, text)
            }
        };
        state.set(channel::RESULT, answer.result.clone());
        Ok(Next::Done("answer", answer))
    }

    fn execute(&self, sql: &str, context: &StepContext) -> Result<QueryResult, EngineError> {
        let until = context.clone();
        // The other half is for the text, which has limits of its own, and for what JSON adds by escaping.
        let bytes_max = context.result_bytes_max() / 2;
        let result = self.datasets.query(sql, bytes_max, move || until.should_stop());
        // Whatever the statement says about being stopped, the runner knows why it was.
        context.check()?;
        result.map_err(|error| match error {
            QueryError::Invalid(reason) | QueryError::TooMuch(reason) => {
                EngineError::Failed(ErrorKind::InvalidQuery, reason)
            }
            QueryError::Interrupted => EngineError::Interrupted,
            QueryError::Unavailable(reason) => EngineError::Failed(ErrorKind::Engine, reason),
        })
    }
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
        if state.get(channel::SQL).is_none() { self.draft(state) } else { self.answer(state, context) }
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

#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn unavailable(error: DatasetsError) -> EngineError {
    match error {
        DatasetsError::Closing => EngineError::Interrupted,
        _ => EngineError::Failed(ErrorKind::Engine, "The tables of data cannot be read at the moment.".into()),
    }
}

#[cfg(test)]
mod tests;
