//! The outside of an SQL statement: where its words are, where it ends, and how often its common table expressions use
//! one another. What it means is for SQLite to say.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Common table expressions that are looked at; a statement with more counts as boundless.
const EXPRESSIONS_MAX: usize = 100;

/// The words of the statement from its beginning, outside strings, quoted names and comments, in the case they have.
pub fn words(sql: &str) -> impl Iterator<Item = &str> {
    // To SQLite the odd space of a pasted text is a letter like any other.
    tokens(sql).filter(|token| token.is_word).flat_map(|token| token.text.split_whitespace())
}

/// What comes after the first word.
pub fn after_first_word(sql: &str) -> &str {
    tokens(sql).find(|token| token.is_word).map_or("", |word| &sql[word.start + word.text.len()..])
}

/// Whether a value is to be put in somewhere. Where such a place ends, only SQLite knows (`$a(')` is one), so nothing that
/// follows can be looked at.
pub(super) fn has_parameters(sql: &str) -> bool {
    tokens(sql).any(|token| ["?", ":", "@", "$", "#"].contains(&token.text))
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

/// The most SELECTs that one compound of the statement combines. SQLite, which works through them by recursion, has a limit
/// of its own that does not hold where the last of them is VALUES.
pub(super) fn compound(sql: &str) -> usize {
    let mut levels = vec![1];
    let mut most = 1;
    for token in tokens(sql) {
        match token.text {
            "(" => levels.push(1),
            ")" if levels.len() > 1 => drop(levels.pop()),
            _ if ["UNION", "EXCEPT", "INTERSECT"].iter().any(|word| token.is(word)) => {
                let level = levels.last_mut().expect("the outermost stays");
                *level += 1;
                most = most.max(*level);
            }
            _ => {}
        }
    }
    most
}

/// How many common table expressions SQLite has before it once each use of one has been replaced by what it stands for.
///
/// It does that while it compiles, where no interrupt reaches it: thirty expressions that use their predecessor twice are a
/// billion. Counted on the safe side: a column may pass for a use.
pub(super) fn expansion(sql: &str) -> u64 {
    let tokens: Vec<_> = tokens(sql).collect();
    let mut expansion = Expansion { definitions: HashMap::new(), counts: HashMap::new(), tokens: &tokens };
    let mut outside = vec![true; tokens.len()];
    let Some(definitions) = definitions(&tokens) else { return u64::MAX };
    for (name, body) in definitions {
        outside[body.clone()].fill(false);
        expansion.definitions.entry(name).or_default().push(body);
    }
    let uses = (0..tokens.len()).filter(|index| outside[*index]);
    uses.fold(0, |sum, index| sum.saturating_add(expansion.of_use(index)))
}

/// The names of the common table expressions.
pub(super) fn expressions(sql: &str) -> BTreeSet<String> {
    let tokens: Vec<_> = tokens(sql).collect();
    definitions(&tokens).unwrap_or_default().into_iter().map(|(name, _)| name).collect()
}

/// The common table expressions; `None` if there are too many to look at.
pub(super) fn definitions(tokens: &[Token]) -> Option<Vec<(String, Range<usize>)>> {
    let names = (0..tokens.len()).filter(|index| tokens[*index].is("AS"));
    let found: Vec<_> = names.filter_map(|index| definition(tokens, index)).take(EXPRESSIONS_MAX + 1).collect();
    (found.len() <= EXPRESSIONS_MAX).then_some(found)
}

/// The common table expression that this `AS` belongs to: its name, and where it is from there to the end of its body.
fn definition(tokens: &[Token], at: usize) -> Option<(String, Range<usize>)> {
    let mut name = at.checked_sub(1)?;
    if tokens[name].text == ")" {
        // Its columns are listed, and a list of names nests nothing.
        name = tokens[..name].iter().rposition(|token| token.text == "(")?.checked_sub(1)?;
    }
    let skipped = tokens[at + 1..].iter().take_while(|token| token.is("NOT") || token.is("MATERIALIZED")).count();
    let open = at + 1 + skipped;
    if tokens.get(open)?.text != "(" {
        return None;
    }
    let mut depth = 0_usize;
    let length = tokens[open..].iter().position(|token| {
        depth += usize::from(token.text == "(");
        depth -= usize::from(token.text == ")");
        depth == 0
    });
    Some((tokens[name].name(), name..length.map_or(tokens.len(), |length| open + length)))
}

struct Expansion<'a> {
    /// Where each is, by name; a name may be defined again inside another body.
    definitions: HashMap<String, Vec<Range<usize>>>,
    /// What a use of the name counts; 0 while it is being counted, so that recursion ends.
    counts: HashMap<String, u64>,
    tokens: &'a [Token<'a>],
}

impl Expansion<'_> {
    /// What the token counts: nothing, unless it stands where a table does and names one of the expressions.
    fn of_use(&mut self, index: usize) -> u64 {
        let before = index.checked_sub(1).map(|before| &self.tokens[before]);
        if !before.is_some_and(|token| ["FROM", "JOIN", "IN", ",", "("].iter().any(|word| token.is(word))) {
            return 0;
        }
        let name = self.tokens[index].name();
        let Some(bodies) = self.definitions.get(&name).cloned() else { return 0 };
        if let Some(count) = self.counts.get(&name) {
            return *count;
        }
        self.counts.insert(name.clone(), 0);
        let inside = |body: Range<usize>| body.fold(1_u64, |sum, index| sum.saturating_add(self.of_use(index)));
        let count = bodies.into_iter().map(inside).max().unwrap_or(0);
        self.counts.insert(name, count);
        count
    }
}

pub(super) struct Token<'a> {
    start: usize,
    pub(super) text: &'a str,
    pub(super) is_word: bool,
}

impl Token<'_> {
    pub(super) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    /// The name that this is, if it is one, as SQLite compares names.
    pub(super) fn name(&self) -> String {
        let Some(quote) = self.text.chars().next().filter(|first| matches!(first, '"' | '`' | '[' | '\'')) else {
            return self.text.to_lowercase();
        };
        let closing = if quote == '[' { ']' } else { quote };
        let inside = &self.text[1..];
        let inside = inside.strip_suffix(closing).unwrap_or(inside);
        let doubled = [quote, quote].iter().collect::<String>();
        if quote == '[' { inside.to_lowercase() } else { inside.replace(&doubled, &doubled[1..]).to_lowercase() }
    }
}

/// Everything but white space and comments, cut as SQLite cuts it: whoever found a text of which the two make different
/// words could hide a statement from the estimates that are made of them. What is opened and never closed extends to the
/// end.
pub(super) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &sql[start..];
            let first = rest.chars().next()?;
            let is_word = is_in_word(first) && !first.is_ascii_digit() && first != '$' && !is_blank(first);
            let length = match first {
                '\'' | '"' | '`' => closing(rest, first),
                '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
                _ if is_word => rest.find(|c: char| !is_in_word(c)).unwrap_or(rest.len()),
                _ => first.len_utf8(),
            };
            let token = Token { start, text: &rest[..length], is_word };
            start += length;
            let is_comment = token.text.starts_with("--") || token.text.starts_with("/*");
            if !is_comment && !is_blank(first) {
                return Some(token);
            }
        }
    })
}

/// What SQLite skips where a word could begin. It takes the byte order mark for a letter within one.
fn is_blank(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ' | '\u{feff}')
}

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of the quoted text at the beginning; a doubled quote is one of its characters.
fn closing(rest: &str, quote: char) -> usize {
    let mut end = 1;
    while let Some(length) = rest[end..].find(quote) {
        end += length + 1;
        if !rest[end..].starts_with(quote) {
            return end;
        }
        end += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::{compound, expansion, second, tokens, words};

    #[test]
    fn statements_are_cut_into_words_where_sqlite_cuts_them() {
        let sqlite = rusqlite::Connection::open_in_memory().unwrap();
        let odd = ['\u{a0}', '\u{2003}', '\u{200b}', '\u{3000}', '\u{feff}', '\u{1f600}', '\u{e000}', '\u{10ffff}'];
        for c in ('\u{1}'..'\u{300}').chain(odd) {
            // After a blank: the vertical tab is one in no other place.
            let between = format!("SELECT 1 {c}AS {c}x");
            let is_blank = sqlite.prepare(&between).is_ok_and(|statement| statement.column_names() == ["x"]);
            let cut: Vec<_> = tokens(&between).map(|token| token.text).collect();
            assert_eq!(cut == ["SELECT", "1", "AS", "x"], is_blank, "{c:?} between words");
            let within = format!("SELECT 1 AS x{c}y");
            let is_letter = sqlite.prepare(&within).is_ok_and(|statement| statement.column_names() == [&within[12..]]);
            let last = tokens(&within).last().unwrap();
            assert_eq!(last.is_word && last.text == &within[12..], is_letter, "{c:?} in a word");
            let first = format!("SELECT 1 AS {c}y");
            let begins = sqlite.prepare(&first).is_ok_and(|statement| statement.column_names() == [&first[12..]]);
            let last = tokens(&first).last().unwrap();
            assert_eq!(last.is_word && last.text == &first[12..], begins, "{c:?} begins a word");
        }
        for name in ["\"a\"\"b\"", "`a``b`", "'a''b'", "[a\"b]", "\"]\"", "[[]", "\"\"\"\"", "'--'", "\"/*\"", "[;]"] {
            let sql = format!("SELECT 1 AS {name}");
            let named = tokens(&sql).last().unwrap().name();
            assert_eq!(sqlite.prepare(&sql).unwrap().column_names(), [named], "{name}");
        }
    }

    #[test]
    fn words_are_found_outside_strings_names_and_comments() {
        let sql = "-- DROP\n/* DELETE */ SELECT 'a;b' AS \"x;y\", [z;z] from t -- ; end";
        assert_eq!(words(sql).collect::<Vec<_>>(), ["SELECT", "AS", "from", "t"]);
        assert_eq!(words("/* never closed").count(), 0);
        assert_eq!(words("").count(), 0);
    }

    #[test]
    fn uses_of_common_table_expressions_are_counted_through_one_another() {
        for (sql, count) in [
            ("SELECT * FROM airports", 0),
            ("WITH a AS (SELECT 1) SELECT * FROM a", 1),
            ("WITH a(x, y) AS NOT MATERIALIZED (SELECT 1, 2) SELECT a.x FROM a, a b JOIN \"A\" c", 3),
            ("WITH a AS (SELECT 1), b AS (SELECT * FROM a, a) SELECT * FROM b UNION SELECT * FROM b", 6),
            ("WITH b AS (SELECT * FROM a), a AS (SELECT 1) SELECT * FROM b", 2),
            ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t", 1),
            ("WITH a AS (SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM a", 2),
            ("WITH a AS (WITH b AS (SELECT 1) SELECT * FROM b, b) SELECT 1 WHERE 1 IN a", 3),
            ("SELECT 1 AS (, (((", 0),
            ("AS AS ( ) AS", 0),
        ] {
            assert_eq!(expansion(sql), count, "{sql}");
        }
        let level = |n: usize| format!(", a{n} AS (SELECT l.x FROM a{0} l, a{0} r)", n - 1);
        let bomb = format!("WITH a0 AS (SELECT 1 AS x){} SELECT * FROM a40", (1..=40).map(level).collect::<String>());
        assert_eq!(expansion(&bomb), (1 << 41) - 1);
        let level = |n: usize| format!(", a{n} AS (SELECT * FROM a{})", n - 1);
        let chain = format!("WITH a0 AS (SELECT 1){} SELECT * FROM a999", (1..1000).map(level).collect::<String>());
        assert_eq!(expansion(&chain), u64::MAX);
    }

    #[test]
    fn the_selects_of_a_compound_are_counted_level_by_level() {
        for (sql, count) in [
            ("SELECT 1", 1),
            ("SELECT 1 UNION ALL SELECT 2 EXCEPT VALUES (3) intersect SELECT 4", 4),
            ("SELECT * FROM (SELECT 1 UNION SELECT 2), (SELECT 1 UNION SELECT 2) UNION SELECT 3", 2),
            ("SELECT 'UNION', \"UNION\", [UNION] -- UNION", 1),
            (") UNION ) UNION (", 3),
        ] {
            assert_eq!(compound(sql), count, "{sql}");
        }
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
