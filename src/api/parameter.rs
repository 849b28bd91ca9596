//! Parameters: each is defined once, and the handler that reads it and the OpenAPI document that tells of it both use that.

use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::call::Call;
use super::problem::{Fault, Problem};
use crate::domain::RunId;
use crate::http::Query;

/// A parameter of a route that is read as a `T`.
#[derive(Clone, Copy)]
pub(super) struct Parameter<T: 'static> {
    /// What is told of it: what a route lists.
    pub(super) told: Told,
    parse: fn(&str) -> Option<T>,
}

/// What is told of a parameter, whatever it is read as.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// Its name.
    pub(super) name: &'static str,
    /// Where it stands.
    pub(super) place: Place,
    /// What it is for.
    pub(super) meaning: &'static str,
    /// A value that will do.
    pub(super) example: Option<&'static str>,
    form: Form,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A placeholder of the path.
    Path,
    /// The query.
    Query,
    /// The head.
    Header,
}

#[derive(Clone, Copy)]
enum Form {
    /// A whole number within bounds, and what holds when it is not given.
    Number { min: u64, max: u64, default: u64 },
    /// What `allowed` says in words and the schema to programs.
    Other { schema: fn(&mut SchemaGenerator) -> Schema, allowed: fn() -> String },
}

impl Place {
    /// The name in the document, and in the `loc` of a fault.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        }
    }
}

impl Parameter<u64> {
    /// A number of the query; without it, `default` holds.
    pub(super) const fn number(
        name: &'static str,
        default: u64,
        bounds: RangeInclusive<u64>,
        meaning: &'static str,
    ) -> Self {
        let form = Form::Number { min: *bounds.start(), max: *bounds.end(), default };
        Self { told: Told::new(Place::Query, name, form, meaning), parse: digits }
    }
}

impl Parameter<String> {
    /// Any text of the query, as long as a target may be.
    pub(super) const fn words(name: &'static str, meaning: &'static str) -> Self {
        let schema = |_: &mut SchemaGenerator| json_schema!({"type": "string", "pattern": NO_NUL});
        Self::of(Place::Query, name, schema, || "a text".into(), |text| Some(text.to_owned()), meaning)
    }
}

impl Parameter<RunId> {
    /// The placeholder of a run.
    pub(super) const RUN: Self =
        Self::of(Place::Path, "run_id", RunId::json_schema, || "a UUID".into(), |text| text.parse().ok(), "the run")
            .such_as("019a1b2c-3d4e-7f60-8a1b-2c3d4e5f6071");
}

impl Parameter<()> {
    /// The placeholder of a thread; `Call::thread_id` reads it.
    pub(super) const THREAD: Self = Self::of(
        Place::Path,
        "thread_id",
        |_| text_schema(THREAD_ID_CHARS_MAX),
        || format!("a text of at most {THREAD_ID_CHARS_MAX} characters"),
        |_| Some(()),
        "the user's name for the thread",
    )
    .such_as("first");
}

impl<T> Parameter<T> {
    /// Whatever `parse` accepts, which is what the schema says and `allowed` words.
    pub(super) const fn of(
        place: Place,
        name: &'static str,
        schema: fn(&mut SchemaGenerator) -> Schema,
        allowed: fn() -> String,
        parse: fn(&str) -> Option<T>,
        meaning: &'static str,
    ) -> Self {
        Self { told: Told::new(place, name, Form::Other { schema, allowed }, meaning), parse }
    }

    /// The same with an example.
    pub(super) const fn such_as(mut self, example: &'static str) -> Self {
        self.told.example = Some(example);
        self
    }
}

impl Told {
    const fn new(place: Place, name: &'static str, form: Form, meaning: &'static str) -> Self {
        Self { name, place, meaning, example: None, form }
    }

    /// What its values look like.
    pub(super) fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        match self.form {
            Form::Number { min, max, default } => {
                json_schema!({"type": "integer", "minimum": min, "maximum": max, "default": default})
            }
            Form::Other { schema, .. } => schema(generator),
        }
    }

    /// A fault of its value.
    pub(super) fn fault(&self, kind: &'static str, msg: impl Into<String>) -> Fault {
        Fault { loc: vec![self.place.as_str().into(), self.name.into()], msg: msg.into(), kind }
    }

    /// What is wrong with a value that is none of those allowed.
    pub(super) fn not_allowed(&self) -> Fault {
        match self.form {
            Form::Number { min, max, .. } => {
                self.fault("out_of_range", format!("must be a whole number from {min} to {max}"))
            }
            Form::Other { allowed, .. } => self.fault("value_error", format!("must be {}", allowed())),
        }
    }

    fn allows(&self, text: &str) -> bool {
        match self.form {
            Form::Number { min, max, .. } => digits(text).is_some_and(|number| (min..=max).contains(&number)),
            Form::Other { .. } => true,
        }
    }
}

/// How many characters a thread's name may have, in a body and in a path.
pub(super) const THREAD_ID_CHARS_MAX: usize = 100;

/// A pattern for texts: a NUL is refused wherever it comes from.
pub(super) const NO_NUL: &str = "^[^\\u0000]*$";
/// A pattern for texts that are not blank, and have no NUL.
pub(super) const NOT_BLANK: &str = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$";

/// A text of 1 to `chars_max` characters after trimming.
pub(super) fn text_schema(chars_max: usize) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": chars_max, "pattern": NOT_BLANK})
}

/// A whole number in decimal digits alone; Rust's own reading takes a sign as well.
pub(super) fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The parameters of a call, to be taken one by one; those that its route does not list are ignored, as is usual for queries.
pub(super) struct Parameters<'c> {
    call: &'c Call,
    query: Query,
    faults: Vec<Fault>,
}

impl<'c> Parameters<'c> {
    /// Those of this call.
    ///
    /// # Errors
    /// 400 if the query's encoding is wrong.
    pub(super) fn of(call: &'c Call) -> Result<Self, Problem> {
        let query = Query::parse(call.request.query())
            .map_err(|error| Problem::new(400, format!("The query cannot be read: {error}.")))?;
        Ok(Self { call, query, faults: Vec::new() })
    }

    /// The parameter, if it is given as it has to be; anything else is a fault.
    pub(super) fn get<T>(&mut self, parameter: &Parameter<T>) -> Option<T> {
        let told = &parameter.told;
        self.call.note(told);
        let Self { call, query, faults } = self;
        let mut values: Box<dyn Iterator<Item = &str>> = match told.place {
            Place::Path => Box::new(call.params.get(told.name).into_iter()),
            Place::Query => Box::new(query.iter().filter(|(name, _)| *name == told.name).map(|(_, value)| value)),
            Place::Header => Box::new(call.request.header_values(told.name)),
        };
        let text = values.next()?.trim();
        if values.next().is_some() {
            faults.push(told.fault("value_error", "must be given once"));
            return None;
        }
        // What a form sends of a field that was left alone.
        if text.is_empty() && told.place == Place::Query {
            return None;
        }
        let value = (parameter.parse)(text);
        if value.is_none() || !told.allows(text) {
            faults.push(told.not_allowed());
            return None;
        }
        value
    }

    /// The number, or its default.
    pub(super) fn number(&mut self, parameter: &Parameter<u64>) -> u64 {
        let Form::Number { default, .. } = parameter.told.form else { unreachable!("a number has a default") };
        self.get(parameter).unwrap_or(default)
    }

    /// The members of a header that is a list (RFC 9110 §5.6.1).
    pub(super) fn list(&mut self, parameter: &Parameter<()>) -> Vec<&'c str> {
        self.call.note(&parameter.told);
        self.call.request.header_values(parameter.told.name).flat_map(|value| value.split(',')).map(str::trim).collect()
    }

    /// One more fault, found by the caller.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// What was found to be wrong.
    pub(super) fn faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every fault there was.
    pub(super) fn end(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::validation(&self.faults)) }
    }
}
