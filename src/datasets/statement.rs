//! The outside of an SQL statement: where its words are, and where it ends. What it means is for SQLite to say.

/// The words of the statement from its beginning, outside strings, quoted names and comments, in the case they have.
pub fn words(sql: &str) -> impl Iterator<Item = &str> {
    tokens(sql).filter_map(|token| if token.is_word { Some(token.text) } else { None })
}

/// Where a second statement begins, in bytes.
pub(super) fn second(sql: &str) -> Option<usize> {
    let mut ended = false;
    tokens(sql).find_map(|token| {
        if token.text == ";" {
            ended = true;
            return None;
        }
        ended.then_some(token.start)
    })
}

struct Token<'a> {
    start: usize,
    text: &'a str,
    is_word: bool,
}

/// Everything but white space and comments. What is opened and never closed extends to the end, as in SQLite.
fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &sql[start..];
            let first = rest.chars().next()?;
            let is_word = first.is_alphabetic() || first == '_';
            let length = match first {
                '\'' | '"' | '`' => closing(rest, first),
                '[' => closing(rest, ']'),
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
                _ if is_word => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
                _ => first.len_utf8(),
            };
            let token = Token { start, text: &rest[..length], is_word };
            start += length;
            let is_comment = token.text.starts_with("--") || token.text.starts_with("/*");
            if !is_comment && !first.is_whitespace() {
                return Some(token);
            }
        }
    })
}

/// The length of the quoted text at the beginning. A doubled quote is two quoted texts in a row, which is as good here.
fn closing(rest: &str, quote: char) -> usize {
    rest[1..].find(quote).map_or(rest.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::{second, words};

    #[test]
    fn words_are_found_outside_strings_names_and_comments() {
        let sql = "-- DROP\n/* DELETE */ SELECT 'a;b' AS \"x;y\", [z;z] from t -- ; end";
        assert_eq!(words(sql).collect::<Vec<_>>(), ["SELECT", "AS", "from", "t"]);
        assert_eq!(words("/* never closed").count(), 0);
        assert_eq!(words("").count(), 0);
    }

    #[test]
    fn a_second_statement_is_found_and_a_trailing_semicolon_is_none() {
        for one in ["SELECT 1", "SELECT 1;", "SELECT 1; -- done", "SELECT ';' ;;\n;/* x */", "SELECT 'it''s; fine'"] {
            assert_eq!(second(one), None, "{one:?}");
        }
        assert_eq!(second("SELECT 1; DROP TABLE x"), Some(10));
        assert_eq!(second("SELECT ';'; SELECT 2"), Some(12));
    }
}
