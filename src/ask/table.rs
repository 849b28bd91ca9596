//! Rows as a table of text.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::plain;

/// Between two columns.
const GAP: &str = "  ";
/// A column of text is cut down to so many places at most; a table that is too wide even then wraps.
const WIDTH_MIN: usize = 8;
/// Where nothing is cut, so many places at most are kept for a column of text: one long cell must not pad all others.
const PADDED_MAX: usize = 80;

/// A table with its header, numbers to the right and everything else to the left; cells of text are cut so that a line
/// has at most `width_max` places, as far as that can be. Without it nothing is cut, and long cells stand out.
pub(super) fn layout(columns: &[String], rows: &[Vec<Value>], width_max: Option<usize>) -> String {
    let is_number: Vec<bool> = (0..columns.len()).map(|column| has_numbers(rows, column)).collect();
    let header = columns.iter().map(|name| plain::cell(name)).collect();
    let cell = |row: &[Value], column| row.get(column).map_or_else(String::new, cell);
    let body = rows.iter().map(|row| (0..columns.len()).map(|column| cell(row, column)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(body).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..columns.len()).map(width).collect();
    match width_max {
        Some(width_max) => fit(&mut widths, &is_number, width_max),
        None => cap(&mut widths, &is_number, PADDED_MAX),
    }
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = String::new();
    for line in lines[..1].iter().chain([&rule]).chain(&lines[1..]) {
        let places = line.iter().zip(&widths).zip(&is_number);
        let padded: Vec<String> =
            places.map(|((cell, width), to_right)| pad(cell, *width, *to_right, width_max.is_some())).collect();
        text += padded.join(GAP).trim_end();
        text.push('\n');
    }
    text
}

/// Whether there are numbers in this column and nothing else but NULL.
fn has_numbers(rows: &[Vec<Value>], column: usize) -> bool {
    let mut values = rows.iter().filter_map(|row| row.get(column)).filter(|value| !value.is_null()).peekable();
    values.peek().is_some() && values.all(Value::is_number)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::String(text) => plain::cell(text),
        other => plain::cell(&other.to_string()),
    }
}

/// Narrows the widest columns of text until a line fits.
fn fit(widths: &mut [usize], is_number: &[bool], width_max: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let too_wide = |widths: &[usize], cap: usize| {
        let capped = widths.iter().zip(is_number).map(|(width, keeps)| if *keeps { *width } else { *width.min(&cap) });
        capped.sum::<usize>() + gaps > width_max
    };
    let mut text_max = widths.iter().copied().max().unwrap_or(0).min(width_max);
    while text_max > WIDTH_MIN && too_wide(widths, text_max) {
        text_max -= 1;
    }
    cap(widths, is_number, text_max);
}

/// Narrows columns of text to so many places.
fn cap(widths: &mut [usize], is_number: &[bool], text_max: usize) {
    for (width, _) in widths.iter_mut().zip(is_number).filter(|(_, keeps)| !**keeps) {
        *width = (*width).min(text_max);
    }
}

/// The cell in so many places, cut where it is wider if it is to be cut.
fn pad(cell: &str, width: usize, to_right: bool, is_cut: bool) -> String {
    let cut;
    let shown = if cell.width() <= width || !is_cut {
        cell
    } else {
        cut = shorten(cell, width);
        &cut
    };
    let space = " ".repeat(width.saturating_sub(shown.width()));
    if to_right { space + shown } else { shown.to_owned() + &space }
}

/// The beginning of the text with an ellipsis, in at most so many places.
fn shorten(text: &str, width: usize) -> String {
    let mut shortened = String::new();
    let mut places = 0;
    for character in text.chars() {
        places += character.width().unwrap_or(0);
        if places >= width {
            break;
        }
        shortened.push(character);
    }
    shortened.push('…');
    shortened
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(columns: &[&str], rows: &Value, width_max: Option<usize>) -> String {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        layout(&columns, &serde_json::from_value::<Vec<Vec<Value>>>(rows.clone()).unwrap(), width_max)
    }

    #[test]
    fn numbers_stand_to_the_right_and_text_to_the_left() {
        let rows = json!([["Köln", 1_000_000, 0.5, null], ["東京", null, -12, "x"], [null, 7, 3, true]]);
        assert_eq!(
            table(&["city", "people", "share_of", "note"], &rows, None),
            "city   people  share_of  note\n\
             ----  -------  --------  ----\n\
             Köln  1000000       0.5  NULL\n\
             東京     NULL       -12  x\n\
             NULL        7         3  true\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(table(&["n", "name"], &json!([]), Some(80)), "n  name\n-  ----\n");
    }

    #[test]
    fn cells_are_cut_only_where_there_is_no_room_and_numbers_never() {
        let rows = json!([
            ["a text that goes on and on", 123_456_789_012_i64, "short"],
            ["日本語のとても長いテキスト", 1, "-"]
        ]);
        let wide = table(&["text", "n", "s"], &rows, None);
        assert!(wide.contains("a text that goes on and on") && wide.contains("日本語のとても長いテキスト"), "{wide}");
        let narrow = table(&["text", "n", "s"], &rows, Some(32));
        assert_eq!(
            narrow,
            "text                    n  s\n\
             -----------  ------------  -----\n\
             a text tha…  123456789012  short\n\
             日本語のと…             1  -\n"
        );
        assert!(narrow.lines().all(|line| line.width() <= 32));
        // So narrow that it cannot be: it wraps.
        assert!(table(&["text", "n", "s"], &rows, Some(10)).contains("a text …  123456789012  short"));
    }

    #[test]
    fn what_could_drive_a_terminal_is_shown_instead() {
        let shown = table(&["a\u{1b}[31m"], &json!([["line\nbreak"], [["\u{7}", 1]]]), None);
        assert_eq!(shown, "a\\u{1b}[31m\n------------\nline\\nbreak\n[\"\\u0007\",1]\n");
    }
}
