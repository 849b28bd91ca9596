//! Other readers of HTTP, written straight down from RFC 9112 over bytes that are all there, and lenient in the ways that
//! servers and proxies are known to be.

use super::{Opinion, Reading};

/// How a reader differs from the others.
#[derive(Clone, Copy)]
struct Habits {
    /// Heads by `httparse`, which refuses much; else by hand, which refuses nothing.
    strict_head: bool,
    /// A line feed ends a line, whatever is before it.
    bare_line_feeds: bool,
    framing: Preference,
}

/// What decides where a body ends.
#[derive(Clone, Copy)]
enum Preference {
    /// A transfer coding, as RFC 9112 §6.3 says; one that is not known is refused.
    Coding,
    /// A length, and a coding only where there is none.
    Length,
    /// A coding, if it is known; any other is overlooked.
    KnownCoding,
}

/// What each of them makes of the stream.
pub(super) fn opinions(stream: &[u8]) -> Vec<Opinion> {
    let mut opinions = Vec::new();
    for strict_head in [true, false] {
        for bare_line_feeds in [true, false] {
            for framing in [Preference::Coding, Preference::Length, Preference::KnownCoding] {
                opinions.push(Habits { strict_head, bare_line_feeds, framing }.read(stream));
            }
        }
    }
    opinions
}

/// Why there is no request to be had.
enum Stop {
    Refused,
    /// The stream ends before the request does.
    Short,
}

struct Head {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Habits {
    fn read(self, mut stream: &[u8]) -> Opinion {
        let mut opinion = Opinion::default();
        while !stream.is_empty() {
            match self.request(&mut stream) {
                Ok(reading) => opinion.requests.push(Some(reading)),
                Err(Stop::Short) => {
                    opinion.requests.push(None);
                    break;
                }
                Err(Stop::Refused) => {
                    opinion.refuses = true;
                    break;
                }
            }
        }
        opinion
    }

    fn request(self, stream: &mut &[u8]) -> Result<Reading, Stop> {
        let mut lines = Vec::new();
        loop {
            match self.line(stream)? {
                [] if lines.is_empty() => {}
                [] => break,
                line => lines.push(line),
            }
        }
        let head = if self.strict_head { strict(&lines)? } else { lenient(&lines)? };
        let body = self.body(&head, stream)?;
        Ok(Reading::new(&head.method, &head.target, head.headers.into_iter(), body))
    }

    fn line<'s>(self, stream: &mut &'s [u8]) -> Result<&'s [u8], Stop> {
        let (length, end) = if self.bare_line_feeds {
            let feed = stream.iter().position(|byte| *byte == b'\n').ok_or(Stop::Short)?;
            (feed - usize::from(stream[..feed].ends_with(b"\r")), feed + 1)
        } else {
            let length = stream.windows(2).position(|pair| pair == b"\r\n").ok_or(Stop::Short)?;
            (length, length + 2)
        };
        let line = &stream[..length];
        *stream = &stream[end..];
        Ok(line)
    }

    fn body(self, head: &Head, stream: &mut &[u8]) -> Result<Vec<u8>, Stop> {
        let all = |name: &str| {
            let of_name = head.headers.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name));
            let values = of_name.flat_map(|(_, value)| value.split(',')).map(|value| value.trim_matches([' ', '\t']));
            values.map(str::to_ascii_lowercase).collect::<Vec<_>>()
        };
        let (codings, lengths) = (all("transfer-encoding"), all("content-length"));
        let is_chunked = match self.framing {
            Preference::Length if !lengths.is_empty() => false,
            Preference::Coding | Preference::Length => match codings.last().map(String::as_str) {
                Some("chunked") => true,
                Some(_) => return Err(Stop::Refused),
                None => false,
            },
            Preference::KnownCoding => codings.iter().any(|coding| coding == "chunked"),
        };
        if is_chunked {
            return self.chunks(stream);
        }
        // As lenient as `strtoul`: a sign, and the same length twice.
        let numbers = lengths.iter().map(|length| length.parse::<usize>().map_err(|_| Stop::Refused));
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let length = numbers.first().copied().unwrap_or(0);
        if numbers.iter().any(|other| *other != length) {
            return Err(Stop::Refused);
        }
        take(stream, length).map(<[u8]>::to_vec)
    }

    fn chunks(self, stream: &mut &[u8]) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let line = self.line(stream)?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let size = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or(Stop::Refused)?;
            if size == 0 {
                while !self.line(stream)?.is_empty() {}
                return Ok(body);
            }
            body.extend_from_slice(take(stream, size)?);
            if !self.line(stream)?.is_empty() {
                return Err(Stop::Refused);
            }
        }
    }
}

fn take<'s>(stream: &mut &'s [u8], length: usize) -> Result<&'s [u8], Stop> {
    let (part, rest) = stream.split_at_checked(length).ok_or(Stop::Short)?;
    *stream = rest;
    Ok(part)
}

fn strict(lines: &[&[u8]]) -> Result<Head, Stop> {
    let text = [lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec()].concat();
    let mut headers = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&text) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        _ => return Err(Stop::Refused),
    }
    let headers = request.headers.iter();
    Ok(Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: headers.map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())).collect(),
    })
}

fn lenient(lines: &[&[u8]]) -> Result<Head, Stop> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (first, rest) = lines.split_first().ok_or(Stop::Refused)?;
    let first = text(first);
    let mut words = first.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(Stop::Refused) };
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in rest {
        let line = text(line);
        match (line.split_once(':'), headers.last_mut()) {
            (_, Some((_, value))) if line.starts_with([' ', '\t']) => *value += &line,
            (Some((name, value)), _) => {
                let value = value.trim_matches([' ', '\t']).to_owned();
                headers.push((name.trim_matches([' ', '\t']).to_owned(), value));
            }
            // A line that is no header is skipped.
            (None, _) => {}
        }
    }
    Ok(Head { method: method.to_owned(), target: target.to_owned(), headers })
}
