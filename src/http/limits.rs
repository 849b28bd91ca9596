//! Every bound of the HTTP front end, in one place.

use std::time::Duration;

/// What one client, and all of them together, may cost.
///
/// A value and not a set of constants, so that tests can shorten the deadlines and the configuration can set two of them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A request's line and headers. Browsers send under 4 KiB; cookies and tokens fit four times over.
    pub head_bytes_max: usize,
    /// Header lines in a request; `httparse` fills an array of `HEADERS_MAX` on the stack, so it cannot be more.
    pub headers_max: usize,
    /// The request-target; RFC 9110 §4.1 asks for at least 8,000.
    pub target_bytes_max: usize,
    /// A request's body, decoded.
    pub body_bytes_max: usize,
    /// What waits of one stream for a client that does not keep up; a single piece that finds nothing waiting may be longer.
    /// Some 400 events of a run; 500 such clients take half of `buffered_bytes_max`.
    pub stream_bytes_max: usize,
    /// All that is held for all connections: requests that are not whole, requests behind them, answers that are not taken.
    /// An eighth of a 512 MB machine.
    pub buffered_bytes_max: usize,
    /// From the first byte of a request to the end of its head. A slow mobile link needs one or two seconds.
    pub head_deadline: Duration,
    /// From the end of the head to the end of the body: 1 MiB at 280 kbit/s.
    pub body_deadline: Duration,
    /// Between two requests; longer than the 60 s after which most reverse proxies drop their side.
    pub idle_deadline: Duration,
    /// For as long as the client takes nothing of its answer.
    pub write_deadline: Duration,
    /// After the last answer: time for the client to read it before a reset could destroy it (RFC 9112 §9.6).
    pub linger_deadline: Duration,
    /// Open connections. One that is idle costs about 1 KiB here and 2 KiB in the kernel.
    pub connections_max: usize,
}

/// The largest `headers_max`: what `httparse` gets on the stack (32 bytes each).
pub(super) const HEADERS_MAX: usize = 100;

/// Connections over `connections_max` that are only told so: they are answered 503 and linger like any other refusal.
/// One more than that is closed without a word.
pub(super) const REFUSED_CONNECTIONS_MAX: usize = 64;

/// What a thread reads of a body at once: 1 MiB takes 16 turns, between which other connections have theirs.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;

/// What the kernel is asked to hold of one stream; it takes twice as much, and without being asked up to some MiB, which a
/// client that does not read would keep from it for as long as the stream lasts.
pub(super) const STREAM_KERNEL_BYTES: usize = 32 * 1024;

/// Events that a thread takes at once. Measured, 4 save as much as 16 or 64, and no more than 3 others wait behind a slow handler.
pub(super) const EVENTS_MAX: usize = 4;

/// How long a thread that found nothing to do sleeps before it looks again; what a request waits when the first is held up.
pub(super) const NAP_MIN: Duration = Duration::from_millis(2);

/// The longest such sleep, after a quiet time: 20 looks a second cost nothing that could be measured.
pub(super) const NAP_MAX: Duration = Duration::from_millis(50);

/// How long the thread that waits does so at most: so it is known to be there although nobody comes.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(500);

/// How long a connection has to have brought no request to be closed when the server leaves its listeners to another process. Who
/// asks more often than that is told in an answer, instead of meeting the end with its next request.
pub(super) const FAREWELL: Duration = Duration::from_millis(500);

/// Connections accepted in one turn, so that a flood of them does not keep the others waiting.
pub(super) const ACCEPTS_MAX: usize = 16;

/// Empty lines tolerated before a request (RFC 9112 §2.2 asks for one at least).
pub(super) const BLANK_LINES_MAX: usize = 4;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes_max: 16 * 1024,
            headers_max: HEADERS_MAX,
            target_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
            stream_bytes_max: 64 * 1024,
            buffered_bytes_max: 64 * 1024 * 1024,
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(30),
            idle_deadline: Duration::from_secs(75),
            write_deadline: Duration::from_secs(30),
            linger_deadline: Duration::from_secs(2),
            connections_max: 4096,
        }
    }
}
