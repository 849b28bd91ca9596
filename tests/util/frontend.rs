//! What a client says in PostgreSQL's protocol, message by message.

/// Codes in the place of a protocol version: what a client may send before it says who it is.
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const PROTOCOL_3: u32 = 3 << 16;
/// PgBouncer, servers and clients all refuse longer ones.
const STARTUP_BYTES_MAX: u32 = 10_000;

/// Finds the messages in one client's bytes, in whatever pieces they come.
#[derive(Default)]
pub(super) struct Frontend {
    phase: Phase,
    /// The beginning of a message: its type and length, or its length and code.
    head: Vec<u8>,
    /// How many bytes of the message's body are still to come.
    body_left: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Messages without a type, until the one that names the user.
    #[default]
    Startup,
    Messages,
    /// Not this protocol, or not in the clear.
    Opaque,
}

impl Frontend {
    /// Takes the next bytes and calls back with the type of every message that they complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut message: impl FnMut(u8)) {
        while !bytes.is_empty() && self.phase != Phase::Opaque {
            let head_bytes = if self.phase == Phase::Startup { 8 } else { 5 };
            if self.head.len() < head_bytes {
                let (some, rest) = bytes.split_at(bytes.len().min(head_bytes - self.head.len()));
                self.head.extend_from_slice(some);
                bytes = rest;
                if self.head.len() == head_bytes {
                    self.read_head();
                }
            } else {
                let (some, rest) = bytes.split_at(bytes.len().min(self.body_left as usize));
                self.body_left -= some.len() as u32;
                bytes = rest;
            }
            if self.head.len() == head_bytes && self.body_left == 0 {
                self.end_message(&mut message);
            }
        }
    }

    fn number(&self, at: usize) -> u32 {
        self.head[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    /// Learns how long the message is; a length counts itself.
    fn read_head(&mut self) {
        let (length, least) = if self.phase == Phase::Startup { (self.number(0), 8) } else { (self.number(1), 4) };
        match length.checked_sub(least) {
            Some(left) if self.phase == Phase::Messages || length <= STARTUP_BYTES_MAX => self.body_left = left,
            _ => self.phase = Phase::Opaque,
        }
    }

    fn end_message(&mut self, message: &mut impl FnMut(u8)) {
        match self.phase {
            Phase::Startup => match self.number(4) {
                // The server answers with a byte; if that means TLS, what follows has an absurd length.
                SSL_REQUEST | GSSENC_REQUEST => {}
                PROTOCOL_3 => self.phase = Phase::Messages,
                // A request to cancel, after which the client closes, or nothing that is known here.
                _ => self.phase = Phase::Opaque,
            },
            Phase::Messages => message(self.head[0]),
            Phase::Opaque => {}
        }
        self.head.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup() -> Vec<u8> {
        let body = b"user\0holdfast\0database\0test\0\0";
        [&(8 + body.len() as u32).to_be_bytes(), &PROTOCOL_3.to_be_bytes(), &body[..]].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind], &(4 + body.len() as u32).to_be_bytes()[..], body].concat()
    }

    /// The types of what is found when the bytes come in pieces of this size.
    fn found(bytes: &[u8], piece: usize) -> String {
        let mut frontend = Frontend::default();
        let mut kinds = String::new();
        for piece in bytes.chunks(piece) {
            frontend.take(piece, |kind| kinds.push(kind.into()));
        }
        kinds
    }

    #[test]
    fn messages_are_found_in_whatever_pieces_they_come() {
        let request = [&8_u32.to_be_bytes()[..], &SSL_REQUEST.to_be_bytes()].concat();
        // The body of the first one looks like messages itself.
        let parse = message(b'P', &[message(b'S', b""), message(b'Q', b"SELECT 1\0")].concat());
        let others = [message(b'B', &[0; 300]), message(b'S', b""), message(b'Q', b"SELECT 1\0"), message(b'X', b"")];
        let all = [request, startup(), parse, others.concat()].concat();
        for piece in 1..=all.len() {
            assert_eq!(found(&all, piece), "PBSQX", "in pieces of {piece}");
        }
    }

    #[test]
    fn nothing_is_found_in_what_is_not_the_protocol() {
        let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1], &[b'S'; 600][..]].concat();
        let cancel = [&16_u32.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &[0; 8]].concat();
        let impossible = [startup(), vec![b'S', 0, 0, 0, 3], message(b'S', b"")].concat();
        for other in [client_hello, [cancel, message(b'S', b"")].concat(), impossible] {
            assert_eq!(found(&other, 7), "");
        }
    }
}
