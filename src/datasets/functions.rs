//! SQLite's functions that a single call can keep busy for minutes or gigabytes, where no interrupt reaches it.
//!
//! SQLite looks at the interrupt between instructions of its virtual machine, never inside a function. Most functions
//! are linear in values of at most a megabyte; the quadratic ones in common use are replaced here by linear ones that
//! give the same results, the rest is not available.

use std::borrow::Cow;
use std::collections::HashSet;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, ffi};

/// The functions that [`replace_quadratic`] defines.
pub(super) const REPLACED: [&str; 5] = ["instr", "ltrim", "replace", "rtrim", "trim"];

/// Built in, and not for strangers. `json_pretty` and the JSON aggregates collect without looking at the limit on
/// values; `json_patch` and `unhex` are quadratic; the others tell about the program or act on it.
const DENIED: [&str; 10] = [
    "fts3_tokenizer",
    "json_group_array",
    "json_group_object",
    "json_patch",
    "json_pretty",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_patch",
    "load_extension",
    "unhex",
];

/// Whether the function is refused although SQLite has it.
pub(super) fn is_denied(function: &str) -> bool {
    DENIED.contains(&function) || function.starts_with("sqlite_")
}

/// Defines `instr`, `replace` and the two-argument trims anew: SQLite's compare everything with everything.
pub(super) fn replace_quadratic(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("instr", 2, flags, |context| Ok(instr(context)))?;
    connection.create_scalar_function("replace", 3, flags, replace)?;
    for (name, left, right) in [("trim", true, true), ("ltrim", true, false), ("rtrim", false, true)] {
        connection.create_scalar_function(name, 2, flags, move |context| Ok(trim(context, left, right)))?;
    }
    Ok(())
}

fn instr(context: &Context) -> Option<i64> {
    if let (ValueRef::Blob(haystack), ValueRef::Blob(needle)) = (context.get_raw(0), context.get_raw(1)) {
        // One character a byte, so that bytes are found as text is, and counted as characters are.
        let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
        return Some(position(&text(haystack), &text(needle)));
    }
    Some(position(&text(context.get_raw(0))?, &text(context.get_raw(1))?))
}

/// Where the needle begins, in characters from 1; 0 if nowhere.
fn position(haystack: &str, needle: &str) -> i64 {
    let found = haystack.find(needle).map(|start| haystack[..start].chars().count() + 1);
    found.and_then(|position| i64::try_from(position).ok()).unwrap_or(0)
}

fn replace(context: &Context) -> rusqlite::Result<Option<String>> {
    let [Some(subject), Some(pattern), Some(replacement)] = [0, 1, 2].map(|index| text(context.get_raw(index))) else {
        return Ok(None);
    };
    if pattern.is_empty() {
        return Ok(Some(subject.into_owned()));
    }
    let hits = subject.matches(&*pattern).count();
    let bytes = subject.len() - hits * pattern.len() + hits.saturating_mul(replacement.len());
    if bytes > super::guard::VALUE_BYTES_MAX as usize {
        return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None));
    }
    Ok(Some(subject.replace(&*pattern, &replacement)))
}

fn trim(context: &Context, left: bool, right: bool) -> Option<String> {
    let (subject, set) = (text(context.get_raw(0))?, text(context.get_raw(1))?);
    let set: HashSet<char> = set.chars().collect();
    let mut trimmed = &*subject;
    if left {
        trimmed = trimmed.trim_start_matches(|c| set.contains(&c));
    }
    if right {
        trimmed = trimmed.trim_end_matches(|c| set.contains(&c));
    }
    Some(trimmed.to_owned())
}

/// The value as SQLite would cast it to text; `None` for NULL.
fn text(value: ValueRef) -> Option<Cow<str>> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(n) => n.to_string().into(),
        ValueRef::Real(n) => real(n).into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes),
    })
}

/// As few digits as tell it from its neighbours, and always recognisable as a real, as SQLite writes it.
fn real(n: f64) -> String {
    // SQLite knows no negative zero.
    let text = format!("{:?}", n + 0.0);
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let point = if mantissa.contains('.') { "" } else { ".0" };
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}{point}e{sign}{digits:0>2}")
        }
    }
}
