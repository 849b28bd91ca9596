//! What a token costs a request, from its sending to its answer: requests on one connection, of each kind in turn.
//!
//! `access HOLDFAST ROUNDS`. The answers that are compared are both made by the http thread, as problems of one size: 404 for a path
//! that there is not, which is open, and 503 for one that needs a store which is away, after its token was verified.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_peers::figure::{median, verdict};
use holdfast_peers::server::{Server, exchange, unlimited};
use issuer::Key;
use serde_json::json;

#[path = "../../../../src/auth/issuer.rs"]
#[allow(dead_code, reason = "each who includes it uses a part")]
mod issuer;

const SECRET: &str = "what the tokens of this measurement are signed with";
const REQUESTS: usize = 2000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, rounds] = arguments.as_slice() else { panic!("usage: access HOLDFAST ROUNDS") };
    // It runs in another directory.
    let program = std::fs::canonicalize(program).expect("the built server");
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let state = std::env::temp_dir().join(format!("holdfast-access-{}", std::process::id()));
    std::fs::create_dir(&state).expect("a directory of its own");
    let [secret, rsa] = [Key::secret(SECRET.as_bytes()), Key::rsa(Some("rsa"))];
    let document = json!({"keys": [rsa.jwk()]}).to_string();
    std::fs::write(state.join("keys.json"), document).expect("the directory can be written");
    let server = Server::spawn("/health", |port| {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(unlimited(port))
            .env("STATE_DIRECTORY", &state)
            // Nobody listens there.
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing")
            .env("JWT_SECRET", SECRET)
            .env("JWT_JWKS", "keys.json")
            .env("JWT_AUDIENCE", "here")
            .current_dir(&state)
            .stderr(Stdio::null());
        command
    });
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let mut count = 0;
    let mut asking = |key: &Key| {
        count += 1;
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + Duration::from_secs(3600);
        let claims = json!({"email": "ann@example.org", "aud": "here", "exp": expires.as_secs(), "jti": count});
        format!("GET /runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", key.token(&claims))
    };
    let open = vec!["GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(); REQUESTS];
    let known = [&secret, &rsa].map(|key| vec![asking(key); REQUESTS]);
    let mut more = [Vec::new(), Vec::new(), Vec::new()];
    let mut opens = Vec::new();
    for _ in 0..rounds {
        let new: Vec<String> = (0..REQUESTS).map(|_| asking(&rsa)).collect();
        let kinds = [(&open, "404"), (&known[0], "503"), (&known[1], "503"), (&new, "503")];
        let mut took = kinds.map(|_| Vec::with_capacity(REQUESTS));
        for at in 0..REQUESTS {
            // Each kind comes after each other one: what came before has its effect, too.
            for turn in 0..kinds.len() {
                let step = if at / kinds.len() % 2 == 0 { turn } else { kinds.len() - turn };
                let kind = (at + step) % kinds.len();
                let (requests, status) = kinds[kind];
                took[kind].push(timed(&mut socket, &requests[at], status));
            }
        }
        let [bare, with @ ..] = took.map(median);
        opens.push(bare);
        for (more, with) in more.iter_mut().zip(with) {
            more.push(with - bare);
        }
    }
    drop(server);
    drop(std::fs::remove_dir_all(&state));
    println!(
        "\nfrom request to answer on one connection, {rounds} rounds; an open request takes {:.1} us\n",
        median(opens)
    );
    let [hs256, rs256, unseen] = more.map(median);
    let met = [
        verdict("more for an HS256 token that was seen before", hs256, "us", 15.0),
        verdict("more for an RS256 token that was seen before", rs256, "us", 15.0),
        verdict("more for a new RS256 token", unseen, "us", 120.0),
    ];
    std::process::exit(i32::from(!met.iter().all(|met| *met)));
}

/// Microseconds from the request to its whole answer, which has this status.
fn timed(socket: &mut TcpStream, request: &str, status: &str) -> f64 {
    let begun = Instant::now();
    let answer = exchange(socket, request.as_bytes()).expect("an answer");
    let took = begun.elapsed().as_secs_f64() * 1e6;
    assert!(answer[9..].starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&answer));
    took
}
