//! A small SQL analysis from request to answer, beside the syncs that it consists of.
//!
//! `analysis HOLDFAST DIRECTORY ROUNDS` alternates 200 analyses on one connection with as many times the syncs of one
//! analysis: the same number of bytes written to a file in the same directory, and `fdatasync`.

use std::fs::OpenOptions;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use holdfast_peers::server::{Server, exchange, median, verdict};

/// Submit, claim, the draft's checkpoint, and the answer: one commit each.
const SYNCS: u64 = 4;
const PER_ROUND: u32 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, rounds] = arguments.as_slice() else { panic!("usage: analysis HOLDFAST DIRECTORY ROUNDS") };
    let directory = Path::new(directory);
    let server = Server::start(program, directory);
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let body = r#"{"thread_id":"bench","prompt":"SELECT species, count(*) FROM penguins GROUP BY species"}"#;
    let request = format!(
        "POST /analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.token,
        body.len()
    );
    let mut analyse = |count: u32| {
        let begun = Instant::now();
        for _ in 0..count {
            let answer = exchange(&mut socket, request.as_bytes()).expect("an answer");
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(count)
    };
    analyse(PER_ROUND);
    let written = server.figure("io", "write_bytes:");
    analyse(PER_ROUND);
    let bytes = (server.figure("io", "write_bytes:") - written) / u64::from(PER_ROUND) / SYNCS;
    println!("one analysis: {SYNCS} syncs of {bytes} bytes each, the write-ahead log's move into the file included");
    let rounds: u32 = rounds.parse().expect("a number of rounds");
    let ratios = (1..=rounds).map(|round| {
        let analysis_ms = analyse(PER_ROUND);
        let syncs_ms = sync(directory, bytes, SYNCS * u64::from(PER_ROUND)) / f64::from(PER_ROUND);
        println!("round {round}: analysis {analysis_ms:.3} ms, its syncs alone {syncs_ms:.3} ms, ratio {:.2}", analysis_ms / syncs_ms);
        analysis_ms / syncs_ms
    });
    let ratio = median(ratios.collect());
    if verdict("analysis end to end by its syncs (median)", ratio, "x", 1.5) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Milliseconds for so many writes of `bytes`, each synced, into a file that is there already, as the log is.
fn sync(directory: &Path, bytes: u64, count: u64) -> f64 {
    const FILE_BYTES: u64 = 4 << 20;
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(directory.join("syncs"))
        .expect("the directory can be written");
    file.write_all_at(&vec![1; FILE_BYTES as usize], 0).and_then(|()| file.sync_all()).expect("there is room");
    let content = vec![2; bytes as usize];
    let begun = Instant::now();
    for n in 0..count {
        file.write_all_at(&content, n * bytes % (FILE_BYTES - bytes)).expect("there is room");
        file.sync_data().expect("the disk works");
    }
    begun.elapsed().as_secs_f64() * 1e3
}
