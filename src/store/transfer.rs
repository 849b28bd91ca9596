//! What moves from one store into another: the tables with their columns, and rows as they travel.
//!
//! The list here is the only one: what is read, what is written and what is compared are made of it, and tests hold it against both
//! schemas.

use std::fmt::Write;

use serde_json::Value as Json;
use uuid::Uuid;

/// How deep JSON is looked into; what a store has written nests no deeper.
const JSON_DEPTH_MAX: u32 = 256;

/// A table that moves.
#[derive(Debug)]
pub struct Table {
    /// Its name in both stores.
    pub name: &'static str,
    /// What its rows are, in words.
    pub title: &'static str,
    /// How many of its columns, from the first on, are its key.
    pub key: usize,
    /// Its columns, in the order in which rows have them.
    pub columns: &'static [Column],
}

/// A column that moves.
#[derive(Debug)]
pub struct Column {
    /// Its name in PostgreSQL.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sixteen bytes.
    Uuid,
    /// A text.
    Text,
    /// A whole number.
    Int,
    /// 0 or 1.
    Bool,
    /// A point in time; travels as microseconds since 1970.
    Time,
    /// JSON that is kept as it is written.
    Json,
    /// JSON of which only the meaning is kept.
    Jsonb,
    /// Bytes.
    Bytes,
}

/// A value on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// None.
    Null,
    /// A number, a truth or a point in time.
    Int(i64),
    /// A text or JSON.
    Text(String),
    /// Bytes or an id.
    Bytes(Vec<u8>),
}

/// A row: a value for each column of its table.
pub type Row = Vec<Value>;

/// How far a move has come: so many rows of this table, and all of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The place of the table in [`TABLES`].
    pub table: usize,
    /// How many of its rows have arrived, in the order of their keys.
    pub rows: u64,
}

impl Position {
    /// Before the first row.
    pub const START: Self = Self { table: 0, rows: 0 };
}

macro_rules! tables {
    ($($name:literal $title:literal $key:literal { $($column:literal $kind:ident),+ })+) => {
        /// Everything that moves, in the order in which it does.
        pub static TABLES: &[Table] = &[$(Table {
            name: $name,
            title: $title,
            key: $key,
            columns: &[$(Column { name: $column, kind: Kind::$kind }),+],
        }),+];
    };
}

tables! {
    "threads" "conversations" 1 {
        "thread_key" Uuid, "owner" Text, "thread_id" Text, "run_count" Int, "last_number" Int, "latest_at" Time,
        "first_prompt" Text
    }
    "runs" "runs" 1 {
        "run_id" Uuid, "owner" Text, "thread_key" Uuid, "thread_id" Text, "number" Int, "engine" Text, "status" Text,
        "attempt" Int, "step" Int, "checkpoint_id" Text, "spent_ms" Int, "submitted_at" Time, "started_at" Time,
        "finished_at" Time, "claim_token" Uuid, "claim_holder" Uuid, "claim_expires_at" Time, "progressed" Bool,
        "last_event" Int, "idempotency_key" Text, "idempotency_fingerprint" Bytes, "prompt" Text, "error" Json,
        "answer_words" Json, "answer_rows" Json
    }
    "run_events" "events" 2 { "run_id" Uuid, "sequence" Int, "kind" Text, "payload" Json, "at" Time }
    "feedback" "feedback" 1 {
        "run_id" Uuid, "thread_key" Uuid, "sentiment" Bool, "feedback" Int, "comment" Text, "updated_at" Time
    }
    "checkpoints" "checkpoints" 3 {
        "thread_id" Text, "checkpoint_ns" Text, "checkpoint_id" Text, "parent_checkpoint_id" Text, "type" Text,
        "checkpoint" Jsonb, "metadata" Jsonb
    }
    "checkpoint_blobs" "channels" 4 {
        "thread_id" Text, "checkpoint_ns" Text, "channel" Text, "version" Text, "type" Text, "blob" Bytes
    }
    "checkpoint_writes" "pending writes" 5 {
        "thread_id" Text, "checkpoint_ns" Text, "checkpoint_id" Text, "task_id" Text, "idx" Int, "channel" Text,
        "type" Text, "blob" Bytes, "task_path" Text
    }
}

impl Table {
    /// The columns of its key.
    pub fn key_columns(&self) -> &'static [Column] {
        &self.columns[..self.key]
    }

    /// Names a row to whoever is to look for it.
    pub fn describe_key(&self, row: &[Value]) -> String {
        let part = |value: &Value| match value {
            Value::Null => "NULL".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::Bytes(bytes) => Uuid::from_slice(bytes).map_or_else(|_| "?".into(), |id| id.to_string()),
        };
        row.iter().take(self.key).map(part).collect::<Vec<_>>().join(" ")
    }

    /// The column of a row that PostgreSQL cannot hold: a text with U+0000 in it, or JSONB with one.
    pub fn unfit_column(&self, row: &[Value]) -> Option<&'static str> {
        let is_unfit = |kind: Kind, value: &Value| match (kind, value) {
            (Kind::Jsonb, Value::Text(text)) => text.contains('\0') || has_escaped_nul(text),
            (_, Value::Text(text)) => text.contains('\0'),
            _ => false,
        };
        self.columns.iter().zip(row).find_map(|(column, value)| is_unfit(column.kind, value).then_some(column.name))
    }

    /// Tells the row as every store that holds the same would have it told, piece by piece: what each column means, and not how it is
    /// kept.
    pub fn render(&self, row: &[Value], tell: &mut dyn FnMut(&[u8])) {
        let mut field = |tag: u8, bytes: &[u8]| {
            tell(&[tag]);
            tell(&(bytes.len() as u64).to_be_bytes());
            tell(bytes);
        };
        for (column, value) in self.columns.iter().zip(row) {
            match value {
                Value::Null => field(b'0', &[]),
                Value::Int(number) => field(b'i', &number.to_be_bytes()),
                Value::Text(text) if column.kind == Kind::Jsonb => field(b'j', meaning(text).as_bytes()),
                Value::Text(text) => field(b't', text.as_bytes()),
                Value::Bytes(bytes) => field(b'b', bytes),
            }
        }
    }
}

impl Value {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Value::Null | Value::Int(_) => 0,
                Value::Text(text) => text.len(),
                Value::Bytes(bytes) => bytes.len(),
            }
    }
}

/// Whether a text of JSON has U+0000 in one of its strings.
fn has_escaped_nul(text: &str) -> bool {
    // An even number of backslashes are themselves, escaped.
    text.match_indices("u0000")
        .any(|(at, _)| text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1)
}

/// What JSON means, in one way of writing it: names sorted, of two of the same name the last one, numbers as digits and a power of
/// ten, whatever way they were written in. A text that is no JSON means itself.
fn meaning(text: &str) -> String {
    let mut reader = Reader { text, at: 0 };
    let meaning = reader.value(0).filter(|_| {
        reader.skip_blanks();
        reader.at == text.len()
    });
    meaning.unwrap_or_else(|| text.to_owned())
}

/// Reads JSON without turning numbers into floats, which could make two that differ the same, or the same one two.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: u32) -> Option<String> {
        if depth > JSON_DEPTH_MAX {
            return None;
        }
        self.skip_blanks();
        match self.peek()? {
            b'{' => {
                let mut fields = std::collections::BTreeMap::new();
                self.list(b'}', |reader| {
                    reader.skip_blanks();
                    let name = reader.string()?;
                    reader.skip_blanks();
                    reader.expect(b':')?;
                    fields.insert(name, reader.value(depth + 1)?);
                    Some(())
                })?;
                let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
                Some(format!("{{{}}}", fields.join(",")))
            }
            b'[' => {
                let mut elements = Vec::new();
                self.list(b']', |reader| {
                    elements.push(reader.value(depth + 1)?);
                    Some(())
                })?;
                Some(format!("[{}]", elements.join(",")))
            }
            b'"' => self.string(),
            b't' | b'f' | b'n' => {
                let word = self.word();
                ["true", "false", "null"].contains(&word).then(|| word.to_owned())
            }
            _ => {
                let word = self.word();
                number(word)
            }
        }
    }

    /// Everything between a bracket that is next and the one that closes it.
    fn list(&mut self, close: u8, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.skip_blanks();
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            self.skip_blanks();
            if self.peek()? == close {
                self.at += 1;
                return Some(());
            }
            self.expect(b',')?;
        }
    }

    /// A string, escaped as serde_json does it.
    fn string(&mut self) -> Option<String> {
        let bytes = self.text.as_bytes();
        let begin = self.at;
        self.expect(b'"')?;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let token = bytes.get(begin..self.at)?;
        let string: String = serde_json::from_slice(token).ok()?;
        Some(Json::String(string).to_string())
    }

    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c))).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }
}

/// A number as its digits and a power of ten.
fn number(word: &str) -> Option<String> {
    let (sign, unsigned) = word.strip_prefix('-').map_or(("", word), |rest| ("-", rest));
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    let places = i64::try_from(fraction.len()).ok()?;
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let power = exponent.checked_sub(places)?.checked_add(zeros)?;
    let mut text = String::with_capacity(significant.len() + 8);
    write!(text, "{sign}{significant}e{power}").ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_however_it_is_written() {
        for (one, other) in [
            (r#"{"b": 1, "a": [true, null]}"#, r#"{"a":[true,null],"b":1}"#),
            (r#"{"a": 1, "a": 2}"#, r#"{"a":2}"#),
            (r#""\u00e4\/ 😀""#, r#""ä/ \ud83d\ude00""#),
            ("1.50", "15e-1"),
            ("1e300", &format!("1{}", "0".repeat(300))),
            ("-0.0", "0"),
            ("0.30000000000000004", "30000000000000004E-17"),
            ("[ ]", "[]"),
        ] {
            assert_eq!(meaning(one), meaning(other));
        }
        for (one, other) in [
            ("0.3", "0.30000000000000004"),
            ("9007199254740993", "9007199254740992"),
            ("1", "-1"),
            ("\"1\"", "1"),
            ("[1,2]", "[2,1]"),
            ("{}", "[]"),
            ("1 2", "12"),
            ("{\"a\":1", "{\"a\":1}"),
        ] {
            assert_ne!(meaning(one), meaning(other));
        }
    }

    #[test]
    fn what_postgresql_cannot_hold_is_found_and_nothing_else() {
        let checkpoints = TABLES.iter().find(|table| table.name == "checkpoints").expect("it moves");
        let row = |id: &str, body: &str| -> Row {
            let text = |text: &str| Value::Text(text.into());
            vec![text("t"), text(""), text(id), Value::Null, Value::Null, text(body), text("{}")]
        };
        for (id, body, unfit) in [
            ("c", "{\"a\":\"\\\\u0000\"}", None),
            ("c", "{\"a\":\"u0000\"}", None),
            ("c", "{\"a\":\"\\u0000\"}", Some("checkpoint")),
            ("c", "{\"a\":\"\\\\\\u0000\"}", Some("checkpoint")),
            ("c\0", "{}", Some("checkpoint_id")),
        ] {
            assert_eq!(checkpoints.unfit_column(&row(id, body)), unfit, "{body}");
        }
        let events = TABLES.iter().find(|table| table.name == "run_events").expect("it moves");
        let id = Value::Bytes(vec![0; 16]);
        let event = |payload: &str| -> Row {
            vec![id.clone(), Value::Int(1), Value::Text("step".into()), Value::Text(payload.into()), Value::Int(0)]
        };
        assert_eq!(events.unfit_column(&event("\"\\u0000\"")), None, "the type json keeps what is written");
    }

    #[test]
    fn rows_that_differ_are_rendered_differently() {
        let table = &TABLES[4];
        let render = |row: &[Value]| {
            let mut bytes = Vec::new();
            table.render(row, &mut |piece| bytes.extend_from_slice(piece));
            bytes
        };
        let text = |text: &str| Value::Text(text.into());
        let row = [text("a"), text("b"), text("c"), Value::Null, Value::Null, text("{\"a\":1.0}"), text("{}")];
        let same = [text("a"), text("b"), text("c"), Value::Null, Value::Null, text("{ \"a\" : 1 }"), text("{}")];
        let shifted = [text("ab"), text(""), text("c"), Value::Null, Value::Null, text("{\"a\":1.0}"), text("{}")];
        let empty = [text("a"), text("b"), text("c"), text(""), Value::Null, text("{\"a\":1.0}"), text("{}")];
        assert_eq!(render(&row), render(&same));
        assert_ne!(render(&row), render(&shifted));
        assert_ne!(render(&row), render(&empty));
    }
}
