//! Valid requests with a few bytes changed, cut, doubled or put in.

use super::cost::Cost;
use super::peer::Peer;
use super::start;
use crate::util::{Launch, Random};

/// How many requests are damaged.
const ROUNDS: usize = 3000;
/// What tells one part of a request from another.
const TELLING: &[u8] = b"\r\n\0 \t:;,%\"{}[]\\0123456789aAfF-+\x7f\x80\xff";

/// Whatever they have become, each is answered as some request is, or closed.
#[test]
fn requests_with_random_damage_are_answered_or_closed() {
    let server = start(Launch::holdfast());
    let token = Launch::token(super::ANN);
    let post = |framing: &str, body: &str| {
        format!(
            "POST /analyze HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Prefer: wait=0\r\n{framing}\r\n{body}"
        )
    };
    let seeds = [
        "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: a-1\r\nAccept-Encoding: gzip, br;q=0.5\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET /runs?limit=5&status=failed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"),
        "OPTIONS /analyze HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n".to_owned(),
        post("Content-Length: 31\r\n", r#"{"prompt":"x","thread_id":7}   "#),
        post("Transfer-Encoding: chunked\r\n", "6\r\n{\"prom\r\nE;x=y\r\npt\":\"\",\"a\":[1]\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n"),
    ];
    let cost = Cost::of(&server);
    let mut random = Random::new();
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = damaged(seeds[round % seeds.len()].as_bytes(), &mut random);
        let mut peer = Peer::connect(server.address());
        peer.send(&bytes);
        peer.end_sending();
        let Some(answer) = peer.answer("GET") else { continue };
        match answer.status {
            100 | 200 | 202 | 204 => accepted += 1,
            400 | 401 | 404 | 405 | 413 | 414 | 415 | 417 | 422 | 431 | 501 | 505 => refused += 1,
            status => panic!("{status} in round {round}: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    assert!(
        accepted > ROUNDS / 30 && refused > ROUNDS / 3,
        "the damage is of the wrong size: {accepted} accepted, {refused} refused"
    );
    cost.assert_back(&server, "the damage");
    assert!(!server.stderr().contains("code.panicked"), "{}", server.stderr());
}

fn damaged(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        let telling = TELLING[random.below(TELLING.len() as u64) as usize];
        match random.below(5) {
            0 => bytes[at] = telling,
            1 => bytes.insert(at, telling),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            2 | 3 => {
                let end = (at + 1 + random.below(40) as usize).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}
