//! PostgreSQL's `@>` for SQLite: LangGraph lists checkpoints by what their metadata contains.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};
use serde_json::Value;

/// Adds the function `json_contains(json, part)`.
pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("json_contains", 2, flags, |arguments| {
        let parse = |index| {
            let text = arguments.get_raw(index).as_str()?;
            serde_json::from_str::<Value>(text).map_err(|error| Error::UserFunctionError(error.into()))
        };
        Ok(contains(&parse(0)?, &parse(1)?))
    })
}

/// Whether everything in `part` is found in `whole`: objects by key, arrays by element in any order, scalars by value.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        (Value::Number(whole), Value::Number(part)) => whole == part || whole.as_f64() == part.as_f64(),
        (whole, part) => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::contains;

    #[test]
    fn containment_is_that_of_postgresql() {
        for (whole, part) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1})),
            (json!({"a": {"b": [1, 2, 3]}}), json!({"a": {"b": [3, 1]}})),
            (json!({"a": 1}), json!({"a": 1.0})),
            (json!({"a": null}), json!({"a": null})),
            (json!({"a": 1}), json!({})),
        ] {
            assert!(contains(&whole, &part), "{whole} contains {part}");
        }
        for (whole, part) in [
            (json!({"a": 1}), json!({"b": 1})),
            (json!({"a": 1}), json!({"a": "1"})),
            (json!({"a": {"b": 1}}), json!({"b": 1})),
            (json!({}), json!({"a": null})),
            (json!({"a": [1]}), json!({"a": [1, 2]})),
            (json!({"a": [1]}), json!({"a": 1})),
        ] {
            assert!(!contains(&whole, &part), "{whole} does not contain {part}");
        }
    }
}
