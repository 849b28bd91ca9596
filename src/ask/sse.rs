//! Server-Sent Events as they are read, in whatever pieces the network makes of them.

/// One event's text may have so many bytes: a thousand times what a run's events have.
const EVENT_BYTES_MAX: usize = 256 << 10;

/// An event as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) data: String,
}

/// The stream holds an event that is longer than any of a run's: it is something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes a stream apart as the HTML standard says. What is incomplete when a stream breaks was never an event.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// A line feed now belongs to the line that has just ended.
    after_return: bool,
    event: Event,
}

impl Parser {
    /// Takes the next piece, and gives the events that it completes.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            let ends_return = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
            match byte {
                b'\n' if ends_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() + self.event.data.len() >= EVENT_BYTES_MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    /// The event that an empty line ends.
    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            // Without data it is none, such as what surrounds a comment.
            return Some(std::mem::take(&mut self.event)).filter(|event| !event.data.is_empty());
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.kind),
            "data" if self.event.data.is_empty() => value.clone_into(&mut self.event.data),
            "data" => self.event.data.extend(["\n", value]),
            // A comment has no name; other fields are not ours.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(id: &str, kind: &str, data: &str) -> Event {
        Event { id: id.into(), kind: kind.into(), data: data.into() }
    }

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        pieces.iter().flat_map(|piece| parser.take(piece).expect("they are short")).collect()
    }

    #[test]
    fn events_are_read_and_comments_are_not() {
        let stream = b": the stream is alive\n\nid: 1\nevent: queued\ndata: {\"a\": 1}\n\n: again\n\nretry: 5\nid\ndata:x\ndata: y\n\n";
        assert_eq!(parse(&[stream]), [event("1", "queued", "{\"a\": 1}"), event("", "", "x\ny")]);
    }

    #[test]
    fn what_is_incomplete_is_no_event() {
        let stream = b"id: 1\nevent: queued\ndata: {}\n\nid: 2\nevent: started\ndata: {}\n";
        assert_eq!(parse(&[stream]), [event("1", "queued", "{}")]);
    }

    #[test]
    fn what_never_ends_is_refused() {
        let mut parser = Parser::default();
        let endless = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(parser.take(&endless), Ok(Vec::new()));
        assert_eq!(parser.take(b"x"), Err(TooLong));
        let mut parser = Parser::default();
        let lines = b"data: 12345678\n".repeat(EVENT_BYTES_MAX / 8);
        assert_eq!(parser.take(&lines), Err(TooLong));
    }

    proptest! {
        /// However the stream is cut and whichever line end it uses, the events are the same.
        #[test]
        fn pieces_make_no_difference(
            events in prop::collection::vec(("[0-9]{0,9}", "[a-z]{0,9}", "[ -~é語]{1,40}", any::<bool>()), 0..8),
            line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(1..30usize, 1..40),
        ) {
            let mut lines = Vec::new();
            for (id, kind, data, after_comment) in &events {
                if *after_comment {
                    lines.extend([": a comment".to_owned(), String::new()]);
                }
                lines.extend([format!("id: {id}"), format!("event: {kind}"), format!("data: {data}"), String::new()]);
            }
            let stream: String = lines.iter().flat_map(|line| [line, line_end]).collect();
            let expected: Vec<Event> = events.iter().map(|(id, kind, data, _)| event(id, kind, data)).collect();
            prop_assert_eq!(&parse(&[stream.as_bytes()]), &expected);

            let mut rest = stream.as_bytes();
            let mut pieces = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(parse(&pieces), expected);
        }
    }
}
