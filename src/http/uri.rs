//! The encoded parts of a request's address.

use thiserror::Error;

/// Decoded `name=value` pairs of a query, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// A `%` without two hexadecimal digits, a NUL, or bytes that are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the address holds a wrong percent-encoding")]
pub struct BadEncoding;

impl Query {
    /// Decodes a query as browsers and forms encode it: `+` is a space, a name without `=` has an empty value. The length of
    /// a request's target bounds it.
    ///
    /// # Errors
    /// The encoding of a name or a value is wrong.
    pub fn parse(raw: Option<&str>) -> Result<Query, BadEncoding> {
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name, true)?, decode(value, true)?))
        });
        Ok(Query(decoded.collect::<Result<_, _>>()?))
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// All pairs, so that a caller can refuse those it does not know and those that are given twice.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Decodes what stands between two slashes. An encoded slash becomes part of the segment and separates nothing.
pub(super) fn decode_path_segment(segment: &str) -> Result<String, BadEncoding> {
    decode(segment, false)
}

fn decode(text: &str, plus_is_space: bool) -> Result<String, BadEncoding> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    if decoded.contains(&0) {
        return Err(BadEncoding);
    }
    String::from_utf8(decoded).map_err(|_| BadEncoding)
}

fn hex(digit: Option<u8>) -> Result<u8, BadEncoding> {
    digit.and_then(|digit| char::from(digit).to_digit(16)).map(|value| value as u8).ok_or(BadEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_forms_encode_it() {
        let query = Query::parse(Some("a=1&b=x+y%2Bz&&c&a=2&%C3%A4=%F0%9F%A6%80&d==")).expect("well encoded");
        assert_eq!((query.get("a"), query.get("b"), query.get("c")), (Some("1"), Some("x y+z"), Some("")));
        assert_eq!((query.get("\u{e4}"), query.get("d"), query.get("e")), (Some("\u{1f980}"), Some("="), None));
        assert_eq!(query.iter().filter(|(name, _)| *name == "a").count(), 2);
        assert_eq!(Query::parse(None), Ok(Query::default()));
    }

    #[test]
    fn a_wrong_encoding_is_an_error() {
        for raw in ["a=%", "a=%1", "a=%g1", "%=a", "a=%ff", "a=%00", "a=%+1"] {
            assert_eq!(Query::parse(Some(raw)), Err(BadEncoding), "{raw}");
        }
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(decode_path_segment("a+b%2B"), Ok("a+b+".into()));
    }
}
