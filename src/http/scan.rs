//! Finds the end of a head, byte by byte, and lets nothing pass that two parsers could read differently.

use super::limits::BLANK_LINES_MAX;
use super::refusal::Refusal;

/// Looks for the empty line that ends a section of header lines, wherever the stream is cut.
///
/// `httparse` accepts bare line feeds and cannot go on where it stopped; this does neither: every line ends in CR LF, there is
/// no other control character than a tab, no line is folded, and each byte is looked at once. A request-line is found first
/// unless the scan begins with [`Scan::trailers`].
#[derive(Debug)]
pub(super) struct Scan {
    at: At,
    blank_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// Before the request-line.
    Beginning,
    /// After the CR of an empty line before the request-line.
    BlankLine,
    Line,
    /// After the CR of a line that is not empty.
    LineEnd,
    LineStart,
    /// After the CR of the empty line that ends the section.
    End,
}

const BARE_LF: Refusal = Refusal::Malformed("A line of the head ends in a line feed alone.");
const BARE_CR: Refusal = Refusal::Malformed("A carriage return in the head does not end a line.");
const CONTROL: Refusal = Refusal::Malformed("The head holds a control character.");
const FOLDED: Refusal = Refusal::Malformed("A header is folded over several lines.");
const BLANK: Refusal = Refusal::Malformed("Too many empty lines before the request.");

impl Scan {
    pub(super) fn head() -> Scan {
        Scan { at: At::Beginning, blank_lines: 0 }
    }

    pub(super) fn trailers() -> Scan {
        Scan { at: At::LineStart, blank_lines: 0 }
    }

    /// Whether nothing but whole empty lines has been seen.
    pub(super) fn at_beginning(&self) -> bool {
        self.at == At::Beginning
    }

    /// The bytes of the empty lines before the request-line.
    pub(super) fn blank_bytes(&self) -> usize {
        self.blank_lines * 2
    }

    /// Goes over `input` and says after how many of its bytes the section ends, if it does.
    ///
    /// # Errors
    /// What is wrong, and how many bytes there are before that.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<Option<usize>, (Refusal, usize)> {
        let mut index = 0;
        while let Some(&byte) = input.get(index) {
            let before = index;
            index += 1;
            self.at = match (self.at, byte) {
                (At::Line, b'\r') => At::LineEnd,
                (At::LineEnd, b'\n') => At::LineStart,
                (At::LineStart, b'\r') => At::End,
                (At::End, b'\n') => return Ok(Some(index)),
                (At::Beginning, b'\r') => At::BlankLine,
                (At::BlankLine, b'\n') if self.blank_lines == BLANK_LINES_MAX => return Err((BLANK, before)),
                (At::BlankLine, b'\n') => {
                    self.blank_lines += 1;
                    At::Beginning
                }
                (At::LineEnd | At::End | At::BlankLine, _) => return Err((BARE_CR, before)),
                (_, b'\n') => return Err((BARE_LF, before)),
                (At::LineStart, b' ' | b'\t') => return Err((FOLDED, before)),
                (_, b'\t' | b' '..=b'~' | 0x80..) => {
                    let plain = input[index..].iter().take_while(|&&byte| is_plain(byte)).count();
                    index += plain;
                    At::Line
                }
                _ => return Err((CONTROL, before)),
            };
        }
        Ok(None)
    }
}

fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}
