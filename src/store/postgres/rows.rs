//! Rows as the types of the domain.

use postgres::Row;
use postgres::types::{FromSql, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{Answer, Run, RunEvent};
use crate::store::StoreError;

/// A row, read from left to right.
pub(super) struct Fields<'a> {
    row: &'a Row,
    next: usize,
}

/// What an answer has beside its words, as it is read.
#[derive(Deserialize)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

/// The same, as it is written.
#[derive(Debug, Serialize)]
pub(super) struct TableOf<'a> {
    columns: &'a [String],
    rows: &'a [Vec<Value>],
}

/// An answer in its two parts, as they are stored.
pub(super) fn parts(answer: &Answer) -> (Answer, TableOf<'_>) {
    let words = Answer {
        result: answer.result.clone(),
        sql: answer.sql.clone(),
        queries_and_results: answer.queries_and_results.clone(),
        datasets_used: answer.datasets_used.clone(),
        iteration: answer.iteration,
        columns: Vec::new(),
        rows: Vec::new(),
        row_count: answer.row_count,
        truncated: answer.truncated,
    };
    (words, TableOf { columns: &answer.columns, rows: &answer.rows })
}

impl<'a> Fields<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        Self { row, next: 0 }
    }

    /// The next field.
    pub(super) fn take<T: FromSql<'a>>(&mut self) -> Result<T, StoreError> {
        let column = self.next;
        self.next += 1;
        // The crate's own text names the column and the type, never a value.
        self.row.try_get(column).map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// The next field, a number that is never negative.
    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        let column = self.next;
        T::try_from(self.take()?).map_err(|_| StoreError::Failed(format!("column {column} is out of range")))
    }

    fn json<T: for<'b> Deserialize<'b> + 'a>(&mut self) -> Result<Option<T>, StoreError> {
        Ok(self.take::<Option<Json<T>>>()?.map(|Json(value)| value))
    }

    /// A run: the columns of `run!()` and the two of its answer.
    pub(super) fn run(&mut self) -> Result<Run, StoreError> {
        Ok(Run {
            id: self.take()?,
            owner: self.take()?,
            thread_id: self.take()?,
            thread_key: self.take()?,
            prompt: self.take()?,
            engine: self.take()?,
            status: self.take()?,
            attempt: self.number()?,
            step: self.number()?,
            checkpoint_id: self.take()?,
            spent_ms: self.number()?,
            submitted_at: self.take()?,
            started_at: self.take()?,
            finished_at: self.take()?,
            error: self.json()?,
            number: self.number()?,
            answer: self.answer()?,
        })
    }

    fn answer(&mut self) -> Result<Option<Answer>, StoreError> {
        let (words, table) = (self.json::<Answer>()?, self.json::<Table>()?);
        Ok(words.map(|words| match table {
            Some(Table { columns, rows }) => Answer { columns, rows, ..words },
            None => words,
        }))
    }

    /// An event: sequence, kind, payload, time.
    pub(super) fn event(&mut self) -> Result<RunEvent, StoreError> {
        Ok(RunEvent {
            sequence: self.number()?,
            kind: self.take()?,
            payload: self.json()?.unwrap_or_default(),
            at: self.take()?,
        })
    }
}

/// Every row as a run.
pub(super) fn runs(rows: &[Row]) -> Result<Vec<Run>, StoreError> {
    rows.iter().map(|row| Fields::of(row).run()).collect()
}

/// The one row of a statement that always gives one.
pub(super) fn only(rows: &[Row]) -> Result<Fields<'_>, StoreError> {
    rows.first().map(Fields::of).ok_or_else(|| StoreError::Failed("a statement that gives a row gave none".into()))
}
