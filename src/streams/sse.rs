//! Server-Sent Events, as the HTML standard describes them.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::domain::RunEvent;

/// A line that clients skip.
pub(super) const COMMENT: &[u8] = b": the stream is alive\n\n";

/// An event's `data`.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    payload: &'a Value,
    at: Timestamp,
}

/// Events as a stream carries them.
pub(crate) fn events(events: &[RunEvent]) -> String {
    let mut text = String::with_capacity(events.len() * EVENT_BYTES_USUAL);
    for event in events {
        let data = Data { payload: &event.payload, at: event.at };
        // In one line: line breaks within JSON texts are escaped.
        let data = serde_json::to_string(&data).expect("a payload is an object with text keys");
        write!(text, "id: {}\nevent: {}\ndata: {data}\n\n", event.sequence, event.kind.as_str())
            .expect("writing to memory cannot fail");
    }
    text
}

/// Room for most events.
const EVENT_BYTES_USUAL: usize = 160;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::EventKind;

    #[test]
    fn an_event_is_its_number_its_kind_and_one_line_of_json() {
        let at = Timestamp(1_700_000_000_007);
        let event = |sequence, kind, payload| RunEvent { sequence, kind, payload, at };
        let log = [
            event(1, EventKind::Queued, json!({})),
            event(2, EventKind::Retrying, json!({"reason": "a\nb: \"c\"\r", "attempt": 2})),
        ];
        assert_eq!(
            events(&log),
            "id: 1\nevent: queued\ndata: {\"at\":\"2023-11-14T22:13:20.007Z\"}\n\n\
             id: 2\nevent: retrying\ndata: {\"reason\":\"a\\nb: \\\"c\\\"\\r\",\"attempt\":2,\"at\":\"2023-11-14T22:13:20.007Z\"}\n\n"
        );
        assert_eq!(events(&[]), "");
    }
}
