//! What others have written, made safe for a terminal: nothing in it can move the cursor, colour the screen or turn
//! the direction of what is read.

use std::fmt::Write;

/// On one line, every character of which can be seen.
pub(super) fn cell(text: &str) -> String {
    shown(text, |_| false)
}

/// The same, with its lines as they are.
pub(super) fn prose(text: &str) -> String {
    shown(text, |character| character == '\n')
}

/// On one line, as the middle of a sentence.
pub(super) fn clause(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    cell(words.join(" ").trim_end_matches('.'))
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_kept(character) || !(character.is_control() || turns_the_text(character)) {
            shown.push(character);
        } else {
            write!(shown, "{}", character.escape_default()).expect("writing to memory cannot fail");
        }
    }
    shown
}

/// The marks of Unicode's bidirectional algorithm, and its two line ends that are no control characters.
fn turns_the_text(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_is_shown_instead() {
        assert_eq!(cell("a\u{1b}[2Jb\nc\td\u{9b}e\u{7f}"), "a\\u{1b}[2Jb\\nc\\td\\u{9b}e\\u{7f}");
        assert_eq!(cell("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        assert_eq!(cell("naïve 東京 🌧 \\n"), "naïve 東京 🌧 \\n");
        assert_eq!(prose("one\ntwo\r\u{7}"), "one\ntwo\\r\\u{7}");
        assert_eq!(clause(" no such\n  table: x. "), "no such table: x");
    }
}
