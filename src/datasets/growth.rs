//! How large a statement's expressions become while it is compiled.
//!
//! SQLite puts the expressions of a subquery in place of its columns wherever they are used. Forty subqueries that use
//! the column of the next twice are a few hundred bytes, and 2^40 columns when that is done, where no interrupt reaches it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::statement::{Token, definitions, tokens};

/// Subqueries in one another that are looked at; a statement with more counts as boundless.
const DEPTH_MAX: usize = 60;

/// Words that are looked at, again for each query that they are part of; a fraction of a second's work.
const LOOKS_MAX: usize = 1_000_000;

/// About how many columns the largest part of the statement names once they have been replaced by what they stand for.
/// Counted on the safe side: every word may name a column, and the largest column may be meant by each.
pub(super) fn growth(sql: &str) -> u64 {
    let tokens: Vec<_> = tokens(sql).collect();
    let Some(definitions) = definitions(&tokens) else { return u64::MAX };
    let mut growth = Growth { tokens: &tokens, bodies: HashMap::new(), columns: HashMap::new(), looks: 0, largest: 0 };
    for (name, body) in definitions {
        growth.bodies.entry(name).or_default().push(body);
    }
    growth.column(0..tokens.len(), 0);
    growth.largest
}

struct Growth<'a> {
    tokens: &'a [Token<'a>],
    /// The common table expressions by name.
    bodies: HashMap<String, Vec<Range<usize>>>,
    /// The largest column of each; 1 while it is being counted, so that recursion ends.
    columns: HashMap<String, u64>,
    looks: usize,
    largest: u64,
}

impl Growth<'_> {
    /// How much the largest column of the query becomes; notes how much all of it does.
    fn column(&mut self, query: Range<usize>, depth: usize) -> u64 {
        self.looks += query.len();
        if depth > DEPTH_MAX || self.looks > LOOKS_MAX {
            self.largest = u64::MAX;
            return u64::MAX;
        }
        let tokens = self.tokens;
        let (mut level, mut looked_at, mut in_columns, mut is_grouped) = (0_usize, query.start, false, false);
        // The largest column of what it reads, the words of the column at hand, and of the longest.
        let (mut inner, mut words, mut words_max) = (1, 0, 1);
        let mut names = Vec::new();
        let mut aliases = HashSet::new();
        for index in query.clone() {
            let token = &tokens[index];
            match token.text {
                "(" => {
                    level += 1;
                    let is_query = ["SELECT", "WITH", "VALUES"].iter().any(|word| self.is(index + 1, word));
                    if is_query && index >= looked_at {
                        looked_at = self.closing(index).min(query.end);
                        inner = inner.max(self.column(index + 1..looked_at, depth + 1));
                    }
                }
                ")" => level = level.saturating_sub(1),
                "," if level == 0 && in_columns => {
                    aliases.extend(names.last().cloned());
                    words = 0;
                }
                _ if level == 0 && token.is("SELECT") => (in_columns, words) = (true, 0),
                _ if level == 0 && token.is("FROM") => {
                    aliases.extend(names.last().cloned());
                    in_columns = false;
                }
                _ if level == 0 && token.is("GROUP") => is_grouped = true,
                _ if self.may_be_column(index) => {
                    let name = token.name();
                    if index.checked_sub(1).is_some_and(|before| self.is(before, "AS")) {
                        aliases.insert(name);
                        continue;
                    }
                    inner = inner.max(self.defined(&name, depth));
                    names.push(name);
                    words += u64::from(in_columns);
                    words_max = words_max.max(words);
                }
                _ => {}
            }
        }
        let own = inner.saturating_mul(words_max);
        let sizes = names.iter().map(|name| if aliases.contains(name) { own } else { inner });
        self.largest = self.largest.max(sizes.fold(0, u64::saturating_add));
        // What is grouped is computed for itself, and nothing is put in its place.
        if is_grouped { 1 } else { own }
    }

    /// The largest column of the common table expressions of that name.
    fn defined(&mut self, name: &str, depth: usize) -> u64 {
        let Some(bodies) = self.bodies.get(name).cloned() else { return 1 };
        if let Some(column) = self.columns.get(name) {
            return *column;
        }
        self.columns.insert(name.to_owned(), 1);
        let inside = |body: Range<usize>| {
            let start = (body.start..body.end).find(|index| self.is(*index, "AS")).unwrap_or(body.start);
            let open = (start..body.end).find(|index| self.is(*index, "(")).unwrap_or(start);
            self.column(open + 1..body.end.max(open + 1).min(self.tokens.len()), depth + 1)
        };
        let column = bodies.into_iter().map(inside).max().unwrap_or(1);
        self.columns.insert(name.to_owned(), column);
        column
    }

    /// Whether it is a name, and neither a function's nor what a column's name is qualified with.
    fn may_be_column(&self, index: usize) -> bool {
        let token = &self.tokens[index];
        let is_name = token.is_word || token.text.starts_with(['"', '[', '`']);
        is_name && !KEYWORDS.iter().any(|word| token.is(word)) && !self.is(index + 1, "(") && !self.is(index + 1, ".")
    }

    fn is(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|token| token.is(word))
    }

    /// Where the parenthesis is closed that opens here.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        let length = self.tokens[open..].iter().position(|token| {
            depth += usize::from(token.text == "(");
            depth -= usize::from(token.text == ")");
            depth == 0
        });
        length.map_or(self.tokens.len(), |length| open + length)
    }
}

/// The commonest words that are no names; the others count, which is on the safe side.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "FROM",
    "GROUP",
    "HAVING",
    "IN",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "OVER",
    "PARTITION",
    "SELECT",
    "THEN",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn columns_are_counted_through_one_another() {
        for (sql, count) in [
            ("SELECT 1", 0),
            ("SELECT name, city FROM airports", 3),
            ("SELECT x + x AS y FROM (SELECT a + b + c AS x FROM t) WHERE y > 0", 2 * 6 + 4 * 3 + 6),
            ("SELECT x FROM (SELECT max(a, b) AS x FROM t GROUP BY c)", 5),
            ("WITH a AS (SELECT b + b AS x FROM t) SELECT x + x FROM a", 5 * 2 + 2 * 4),
        ] {
            assert_eq!(growth(sql), count, "{sql}");
        }
        let nested = |levels: usize, column: &str| {
            (0..levels).fold("SELECT 1 AS x, 2 AS y".to_owned(), |inner, _| format!("SELECT {column} FROM ({inner})"))
        };
        for column in ["x + x AS x", "x + y AS x, x - y AS y", "\"x\" + [x] x", "max(x, x) AS x", "(SELECT x + x) AS x"]
        {
            assert!(growth(&nested(40, column)) > 1 << 40, "{column}");
        }
        assert!(growth(&nested(40, "x AS x, y AS y, x AS z")) < 10_000, "nothing is used twice in a column");
        assert!(growth(&nested(40, "x + x AS x, count(*) AS y").replace("FROM (", "FROM t GROUP BY z, (")) < 10_000);
        assert_eq!(growth(&"(SELECT ".repeat(5000)), u64::MAX);
        let inside = (0..90).fold("SELECT 1".to_owned(), |inner, n| {
            format!("SELECT 1 WHERE 1 IN (WITH a{n} AS ({inner}) SELECT a{n}, 1)")
        });
        growth(&format!("{inside}{}", ", x".repeat(15_000)));
        for odd in ["AS", "AS (", ")", "(SELECT", "SELECT x FROM a AS (", "WITH a AS", "a AS ( ) , (", "WITH a AS NOT"]
        {
            growth(odd);
        }
    }
}
