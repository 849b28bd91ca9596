//! Request bodies: strict JSON, and its faults all at once, as far as they are told.

use std::cell::RefCell;
use std::{fmt, iter};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::parameter::Parameters;
use super::problem::{Fault, Faults, Problem, loc_part};
use crate::domain::RunId;
use crate::http::Request;

/// How deep a body may nest: far deeper than any request of this API, far less than what would cost stack.
pub(super) const NESTING_MAX: usize = 64;

/// The fields of the object that is the request's body; a key given twice and a NUL in a string are faults already.
///
/// # Errors
/// 415 for another content type, 400 for what is not JSON in UTF-8 or nests too deeply, 422 for anything but an object.
pub(super) fn fields(request: &Request) -> Result<Fields, Problem> {
    let content_type = request.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(not_json());
    }
    let (value, mut faults) = parse(&request.body)?;
    let Value::Object(object) = value else {
        faults.push(Fault { loc: vec!["body".into()], msg: "must be an object".into(), kind: "object_type" });
        return Err(Problem::validation(faults.as_slice()));
    };
    Ok(Fields { object, faults })
}

/// What is said of a body that is not declared to be JSON.
pub(super) fn not_json() -> Problem {
    Problem::new(415, "The body must be JSON, with Content-Type: application/json.")
}

/// The value, and what is wrong with it though it is JSON.
pub(super) fn parse(body: &[u8]) -> Result<(Value, Faults), Problem> {
    let reading = Reading { faults: RefCell::default(), too_deep: RefCell::new(false) };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Strict { reading: &reading, path: Path::Root, depth: 0 };
    let outcome = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match outcome {
        Ok(value) => Ok((value, reading.faults.into_inner())),
        Err(_) if *reading.too_deep.borrow() => {
            Err(Problem::new(400, format!("The body nests deeper than {NESTING_MAX} levels.")))
        }
        Err(error) => {
            Err(Problem::new(400, format!("The body is not JSON: line {}, column {}.", error.line(), error.column())))
        }
    }
}

struct Reading {
    faults: RefCell<Faults>,
    too_deep: RefCell<bool>,
}

/// Where in the body a value stands; a chain on the stack.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn loc(&self) -> Vec<String> {
        match self {
            Path::Root => vec!["body".into()],
            Path::Key(parent, key) => {
                let mut loc = parent.loc();
                loc.push(loc_part(key));
                loc
            }
            Path::Index(parent, index) => {
                let mut loc = parent.loc();
                loc.push(index.to_string());
                loc
            }
        }
    }
}

/// Reads one value, as `serde_json` does, but sees what `serde_json` lets pass.
struct Strict<'a> {
    reading: &'a Reading,
    path: Path<'a>,
    depth: usize,
}

impl Strict<'_> {
    fn fault(&self, kind: &'static str, msg: &str) {
        let fault = || Fault { loc: self.path.loc(), msg: msg.into(), kind };
        self.reading.faults.borrow_mut().extend(iter::once_with(fault));
    }

    fn enter<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth == NESTING_MAX {
            *self.reading.too_deep.borrow_mut() = true;
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') {
            self.fault("nul", "must not contain NUL");
        }
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut values = Vec::new();
        loop {
            let path = Path::Index(&self.path, values.len());
            match seq.next_element_seed(Strict { reading: self.reading, path, depth })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = self.enter()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = Path::Key(&self.path, &key);
            let strict = Strict { reading: self.reading, path, depth };
            if key.contains('\0') {
                strict.fault("nul", "must not contain NUL");
            }
            if object.contains_key(&key) {
                strict.fault("duplicate_key", "is given twice");
            }
            let value = map.next_value_seed(strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Takes the fields out of a body, one by one, and gathers what is wrong with them and with the rest of the request.
pub(super) struct Fields {
    object: Map<String, Value>,
    faults: Faults,
}

impl Fields {
    /// A text that has to be there: trimmed, and then not empty and at most so many characters.
    pub(super) fn text(&mut self, field: &str, chars_max: usize) -> String {
        let text = match self.object.remove(field) {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(_) => {
                self.faults.push(Fault::body(field, "string_type", "must be a text"));
                return String::new();
            }
            None => {
                self.faults.push(Fault::body(field, "missing", "is missing"));
                return String::new();
            }
        };
        if text.is_empty() {
            self.faults.push(Fault::body(field, "string_too_short", "must not be empty"));
        } else if text.chars().count() > chars_max {
            let msg = format!("must have at most {chars_max} characters");
            self.faults.push(Fault::body(field, "string_too_long", msg));
        }
        text
    }

    /// A text that may be missing or null.
    pub(super) fn optional_text(&mut self, field: &str, chars_max: usize) -> Option<String> {
        if self.object.get(field)?.is_null() {
            self.object.remove(field);
            return None;
        }
        Some(self.text(field, chars_max))
    }

    /// A run's id, which has to be there.
    pub(super) fn run_id(&mut self, field: &str) -> Option<RunId> {
        let text = self.text(field, usize::MAX);
        let id = text.parse().ok();
        // What is no text at all is a fault already.
        if id.is_none() && !text.is_empty() {
            self.faults.push(Fault::body(field, "uuid_parsing", "must be a UUID"));
        }
        id
    }

    /// 0 or 1, which may be missing or null.
    pub(super) fn optional_bit(&mut self, field: &str) -> Option<u8> {
        let value = self.object.remove(field).filter(|value| !value.is_null())?;
        // To JSON Schema, and to languages that have no integers, 1.0 is 1.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64);
        let bit = whole.and_then(|number| u8::try_from(number).ok()).filter(|number| *number <= 1);
        if bit.is_none() {
            self.faults.push(Fault::body(field, "out_of_range", "must be 0 or 1"));
        }
        bit
    }

    /// True, false or null, one of which has to be there.
    pub(super) fn nullable_bool(&mut self, field: &str) -> Option<bool> {
        match self.object.remove(field) {
            Some(Value::Bool(value)) => return Some(value),
            Some(Value::Null) => {}
            Some(_) => self.faults.push(Fault::body(field, "bool_type", "must be true, false or null")),
            None => self.faults.push(Fault::body(field, "missing", "is missing")),
        }
        None
    }

    /// A text that may be missing, null or blank, which is all the same: trimmed, at most so many characters.
    pub(super) fn remark(&mut self, field: &str, chars_max: usize) -> Option<String> {
        let is_none = match self.object.get(field)? {
            Value::Null => true,
            Value::String(text) => text.trim().is_empty(),
            _ => false,
        };
        if is_none {
            self.object.remove(field);
            return None;
        }
        Some(self.text(field, chars_max))
    }

    /// One more fault, found by the caller.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Ends the reading, and that of the call's parameters.
    ///
    /// # Errors
    /// The faults of either.
    pub(super) fn end_with(mut self, parameters: Parameters<'_>) -> Result<(), Problem> {
        self.faults.extend(parameters.faults());
        self.end()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// The faults so far, and one for each field that nobody took.
    pub(super) fn end(mut self) -> Result<(), Problem> {
        let extra = |field: &String| Fault::body(field, "extra_forbidden", "is not a field of this request");
        self.faults.extend(self.object.keys().map(extra));
        self.faults.refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::{FAULTS_MAX, LOC_PART_CHARS_MAX};
    use super::*;

    fn faults(body: &str) -> Vec<(Vec<String>, &'static str)> {
        let faults = parse(body.as_bytes()).unwrap().1;
        faults.as_slice().iter().map(|fault| (fault.loc.clone(), fault.kind)).collect()
    }

    #[test]
    fn a_valid_body_comes_back_as_it_was_sent() {
        let body = r#"{"a":[1,-2,3.5,"x",null,true,{"b":{}}]}"#;
        let (value, faults) = parse(body.as_bytes()).unwrap();
        assert_eq!(value.to_string(), body);
        assert_eq!(faults.as_slice(), []);
    }

    #[test]
    fn what_is_not_json_in_utf8_is_refused() {
        let bodies: [&[u8]; 9] = [
            b"",
            b"{",
            b"{\"a\":1,}",
            b"{\"a\":1} x",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\xff\"}",
            b"{'a':1}",
            b"{\"a\":NaN}",
            b"\xef\xbb\xbf{}",
        ];
        for body in bodies {
            assert!(parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(NESTING_MAX).as_bytes()).is_ok());
        let problem = format!("{:?}", parse(nested(NESTING_MAX + 1).as_bytes()).unwrap_err());
        assert!(problem.contains("nests deeper"), "{problem}");
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn a_key_given_twice_and_a_nul_are_both_named() {
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            faults(r#"{"a":{"b":1,"b":2},"c":["x","\u0000"]}"#),
            [(path(&["body", "a", "b"]), "duplicate_key"), (path(&["body", "c", "1"]), "nul")]
        );
    }

    #[test]
    fn no_more_faults_are_told_than_help_and_no_more_of_a_name() {
        let name = "é".repeat(LOC_PART_CHARS_MAX);
        let body = format!(r#"{{"{name}":{{"{name}x":[{}]}}}}"#, vec![r#""\u0000""#; 50_000].join(","));
        let found = faults(&body);
        assert_eq!(found.len(), FAULTS_MAX);
        let last = ["body", &name, &format!("{name}…"), &(FAULTS_MAX - 1).to_string()].map(str::to_owned);
        assert_eq!(found[FAULTS_MAX - 1], (last.to_vec(), "nul"));
    }

    #[test]
    fn all_faults_of_the_fields_are_reported_together() {
        let (value, faults) = parse(br#"{"prompt":"  ","thread_id":7,"null":null,"extra":"\u0000"}"#).unwrap();
        let Value::Object(object) = value else { unreachable!("it is an object") };
        let mut fields = Fields { object, faults };
        fields.text("prompt", 10);
        fields.text("thread_id", 10);
        fields.text("null", 10);
        fields.text("absent", 10);
        let problem = format!("{:?}", fields.end().unwrap_err());
        for kind in ["nul", "string_too_short", "string_type", "missing", "extra_forbidden"] {
            assert!(problem.contains(kind), "{problem}");
        }
    }
}
