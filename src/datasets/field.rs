//! What a field of a CSV file is: a whole number, a real one, text, or nothing.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Real,
    Text,
}

impl Kind {
    /// The type in SQL.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
        }
    }

    /// The value that a field of this kind is; `None` if it is of another.
    pub(super) fn parse(self, field: &str) -> Option<Field<'_>> {
        if field.is_empty() {
            return Some(Field::Null);
        }
        match self {
            Self::Integer => integer(field).map(Field::Integer),
            Self::Real => real(field).map(Field::Real),
            Self::Text => Some(Field::Text(field)),
        }
    }
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
}

/// What a column's values so far allow it to be.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    empty: bool,
    integer: bool,
    real: bool,
}

impl Default for Candidate {
    fn default() -> Self {
        Self { empty: true, integer: true, real: true }
    }
}

impl Candidate {
    pub(super) fn see(&mut self, field: &str) {
        if field.is_empty() || !(self.integer || self.real) {
            return;
        }
        self.empty = false;
        self.integer = self.integer && integer(field).is_some();
        self.real = self.real && real(field).is_some();
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self { empty: true, .. } => Kind::Text,
            Self { integer: true, .. } => Kind::Integer,
            Self { real: true, .. } => Kind::Real,
            _ => Kind::Text,
        }
    }
}

/// The whole number that this is. Leading zeros and a plus sign mark codes and telephone numbers, which are text.
fn integer(field: &str) -> Option<i64> {
    let field = field.trim_matches(' ');
    let digits = field.strip_prefix('-').unwrap_or(field);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !(digits.starts_with('0') && field != "0");
    if plain { field.parse().ok() } else { None }
}

/// The number that this is, if a double holds it: whole numbers beyond 64 bits are identifiers and stay text.
fn real(field: &str) -> Option<f64> {
    let field = field.trim_matches(' ');
    let unsigned = field.strip_prefix('-').unwrap_or(field);
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let whole = mantissa.split('.').next().unwrap_or_default();
    let starts_like_one = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_code = whole.len() > 1 && whole.starts_with('0');
    let too_long = mantissa == unsigned && whole == mantissa && field.parse::<i64>().is_err();
    if !starts_like_one || is_code || too_long {
        return None;
    }
    field.parse().ok().filter(|value: &f64| value.is_finite())
}
