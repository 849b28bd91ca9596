//! Bodies that come in chunks (RFC 9112 §7.1).

use super::refusal::Refusal;
use super::scan::Scan;

/// Decodes a chunked body wherever the stream is cut; chunk extensions and trailers are bounded and thrown away.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    body_bytes_max: usize,
    /// What extensions and trailers may still take, together.
    spare_bytes: usize,
}

#[derive(Debug)]
enum At {
    /// In the digits of a chunk's size; `None` before the first.
    Size(Option<usize>),
    /// In the blanks after a size, which only an extension or the end of the line may follow (RFC 9112 §7.1.1).
    Blanks(usize),
    Extension(usize),
    /// After the CR of a chunk's first line.
    SizeEnd(usize),
    Data(usize),
    DataEnd,
    DataEndLf,
    Trailers(Scan),
}

const BAD_SIZE: Refusal = Refusal::Malformed("A chunk's size is not a hexadecimal number.");
const BAD_LINE: Refusal = Refusal::Malformed("A chunk's first line is malformed.");
const BAD_END: Refusal = Refusal::Malformed("A chunk does not end where its size says.");
const LONG_EXTENSION: Refusal = Refusal::Malformed("The chunk extensions are too long.");

impl Chunked {
    pub(super) fn new(body_bytes_max: usize, spare_bytes_max: usize) -> Chunked {
        Chunked { at: At::Size(None), body_bytes_max, spare_bytes: spare_bytes_max }
    }

    /// Appends what `input` holds of the body and says after how many of its bytes the body ends, if it does.
    pub(super) fn advance(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Refusal> {
        let mut index = 0;
        while index < input.len() {
            if let At::Data(left) = self.at {
                let taken = left.min(input.len() - index);
                body.extend_from_slice(&input[index..index + taken]);
                index += taken;
                self.at = if taken == left { At::DataEnd } else { At::Data(left - taken) };
                continue;
            }
            if let At::Trailers(scan) = &mut self.at {
                let rest = &input[index..];
                let part = &rest[..rest.len().min(self.spare_bytes)];
                let end = scan.advance(part).map_err(|(refusal, _)| refusal)?;
                if end.is_none() && part.len() < rest.len() {
                    return Err(Refusal::HeadTooLarge);
                }
                self.spare_bytes -= part.len();
                return Ok(end.map(|end| index + end));
            }
            self.line(input[index], body.len())?;
            index += 1;
        }
        Ok(None)
    }

    fn line(&mut self, byte: u8, body_bytes: usize) -> Result<(), Refusal> {
        self.at = match (&self.at, byte) {
            (&At::Size(size), digit) if digit.is_ascii_hexdigit() => {
                // Leading zeros could be as endless as an extension; any other number is refused before it can overflow.
                if size == Some(0) {
                    self.spend_one()?;
                }
                let size = size.unwrap_or(0) * 16 + (digit as char).to_digit(16).map_or(0, |digit| digit as usize);
                if size > self.body_bytes_max - body_bytes {
                    return Err(Refusal::BodyTooLarge(self.body_bytes_max));
                }
                At::Size(Some(size))
            }
            (&At::Size(Some(size)) | &At::Blanks(size) | &At::Extension(size), b'\r') => At::SizeEnd(size),
            (&At::Size(Some(size)) | &At::Blanks(size), b';') => At::Extension(size),
            (&At::Size(Some(size)) | &At::Blanks(size), b' ' | b'\t') => {
                self.spend_one()?;
                At::Blanks(size)
            }
            (At::Size(_) | At::Blanks(_), _) => return Err(BAD_SIZE),
            (&At::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => {
                self.spend_one()?;
                At::Extension(size)
            }
            (At::SizeEnd(0), b'\n') => At::Trailers(Scan::trailers()),
            (&At::SizeEnd(size), b'\n') => At::Data(size),
            (At::DataEnd, b'\r') => At::DataEndLf,
            (At::DataEndLf, b'\n') => At::Size(None),
            (At::DataEnd | At::DataEndLf, _) => return Err(BAD_END),
            _ => return Err(BAD_LINE),
        };
        Ok(())
    }

    fn spend_one(&mut self) -> Result<(), Refusal> {
        self.spare_bytes = self.spare_bytes.checked_sub(1).ok_or(LONG_EXTENSION)?;
        Ok(())
    }
}
