//! What an idle server costs: memory, the time to its first answer, and a thousand idle connections.
//!
//! `footprint HOLDFAST DIRECTORY ROUNDS`

use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use holdfast_peers::figure::{median, verdict};
use holdfast_peers::server::{Server, exchange};

const CONNECTIONS: usize = 1000;
/// The server samples itself and probes its store once a second: after three of these it is at rest.
const REST: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, rounds] = arguments.as_slice() else {
        panic!("usage: footprint HOLDFAST DIRECTORY ROUNDS")
    };
    let directory = Path::new(directory);
    // The first start makes the state directory; the figures are those of a server that has one.
    Server::start(program, directory).terminate();
    let (mut idle_mib, mut first_ms, mut connections_mib) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds.parse().expect("a number of rounds") {
        let server = Server::start(program, directory);
        std::thread::sleep(REST);
        let idle = server.rss_kib();
        let sockets: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("there is room for it");
                exchange(&mut socket, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("an answer");
                socket
            })
            .collect();
        std::thread::sleep(REST);
        let with_connections = server.rss_kib();
        drop(sockets);
        idle_mib.push(idle as f64 / 1024.0);
        first_ms.push(server.first_answer.as_secs_f64() * 1e3);
        connections_mib.push((with_connections as f64 - idle as f64) / 1024.0);
        println!(
            "round {round}: first answer {:.1} ms, idle {idle} KiB, with {CONNECTIONS} idle connections {with_connections} KiB",
            first_ms[first_ms.len() - 1]
        );
        server.terminate();
    }
    let met = [
        verdict("idle, resident (median)", median(idle_mib), "MiB", 12.0),
        verdict("from start to first 200 (median)", median(first_ms), "ms", 50.0),
        verdict("1,000 idle connections add (median)", median(connections_mib), "MiB", 8.0),
    ];
    if met == [true; 3] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
