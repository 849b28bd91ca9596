//! Values of SQLite as JSON.

use std::fmt::Write;

use rusqlite::types::ValueRef;
use serde_json::Value;

/// Bytes of a blob that are shown.
const BLOB_BYTES_SHOWN_MAX: usize = 64;

/// The value as JSON: what JSON has no form for (blobs, infinities) becomes text.
pub(super) fn json(value: ValueRef) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(n) => serde_json::Number::from_f64(n).map_or_else(|| n.to_string().into(), Value::Number),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => {
            let mut hex = String::from("x'");
            for byte in bytes.iter().take(BLOB_BYTES_SHOWN_MAX) {
                let _ = write!(hex, "{byte:02X}");
            }
            hex.push('\'');
            if bytes.len() > BLOB_BYTES_SHOWN_MAX {
                let _ = write!(hex, "… ({} bytes)", bytes.len());
            }
            hex.into()
        }
    }
}

/// How many bytes the value takes in JSON, roughly and never less than it does as text.
pub(super) fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        _ => 24,
    }
}
