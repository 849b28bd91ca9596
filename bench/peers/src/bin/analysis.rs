//! A small SQL analysis from request to answer, beside the syncs that it consists of.
//!
//! `analysis HOLDFAST DIRECTORY ROUNDS` alternates each of 200 analyses a round, on one connection, with the syncs of one
//! (the same number of bytes written over a file in the same directory, and `fdatasync`), and with as many commits of a
//! single row by SQLite alone (`synchronous=FULL`), which nothing that stores its steps in SQLite can undercut.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use holdfast_peers::figure::{median, tell, verdict};
use holdfast_peers::server::{Server, exchange};

/// The submission with its claim, the draft's checkpoint, and the answer: one commit each.
const SYNCS: u64 = 3;
const PER_ROUND: u32 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, rounds] = arguments.as_slice() else {
        panic!("usage: analysis HOLDFAST DIRECTORY ROUNDS")
    };
    let directory = Path::new(directory);
    let mut server = Server::start(program, directory);
    let token = server.token();
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let body = r#"{"thread_id":"bench","prompt":"SELECT species, count(*) FROM penguins GROUP BY species"}"#;
    let request = format!(
        "POST /analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut analyse = || {
        let begun = Instant::now();
        let answer = exchange(&mut socket, request.as_bytes()).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        begun.elapsed().as_secs_f64() * 1e3
    };
    for _ in 0..PER_ROUND {
        analyse();
    }
    let written = server.figure("io", "write_bytes:");
    for _ in 0..PER_ROUND {
        analyse();
    }
    let bytes = (server.figure("io", "write_bytes:") - written) / u64::from(PER_ROUND) / SYNCS;
    println!("one analysis: {SYNCS} syncs of {bytes} bytes each, the write-ahead log's move into the file included");
    let mut log = Log::beside(directory, bytes);
    let bare = bare_sqlite(directory);
    let mut insert = bare.prepare("INSERT INTO rows (content) VALUES (zeroblob(1000))").expect("the table is there");
    let mut commit = || {
        let begun = Instant::now();
        insert.execute([]).expect("there is room");
        begun.elapsed().as_secs_f64() * 1e3
    };
    let rounds: u32 = rounds.parse().expect("a number of rounds");
    let ratios = (1..=rounds).map(|round| {
        let (mut analyses_ms, mut syncs_ms, mut commits_ms) = (0.0, 0.0, 0.0);
        // In turn, so that whatever else the disk does meets both.
        for _ in 0..PER_ROUND {
            analyses_ms += analyse();
            syncs_ms += (0..SYNCS).map(|_| log.sync()).sum::<f64>();
            commits_ms += (0..SYNCS).map(|_| commit()).sum::<f64>();
        }
        let each = |sum: f64| sum / f64::from(PER_ROUND);
        println!(
            "round {round}: analysis {:.3} ms, its syncs alone {:.3} ms, bare SQLite's commits {:.3} ms",
            each(analyses_ms),
            each(syncs_ms),
            each(commits_ms)
        );
        (analyses_ms / syncs_ms, analyses_ms / commits_ms)
    });
    let (by_syncs, by_commits): (Vec<f64>, Vec<f64>) = ratios.unzip();
    tell("analysis end to end by bare SQLite's commits (median)", median(by_commits), "x");
    let met = verdict("analysis end to end by its syncs (median)", median(by_syncs), "x", 1.5);
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bare_sqlite(directory: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(directory.join("bare.sqlite")).expect("the directory can be written");
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE rows (content BLOB)";
    connection.execute_batch(schema).expect("there is room");
    connection
}

/// A file that is written over from its beginning, as a write-ahead log is.
struct Log {
    file: File,
    content: Vec<u8>,
    offset: u64,
}

impl Log {
    const BYTES: u64 = 4 << 20;

    fn beside(directory: &Path, bytes: u64) -> Log {
        let file = File::create(directory.join("syncs")).expect("the directory can be written");
        file.write_all_at(&vec![1; Log::BYTES as usize], 0).and_then(|()| file.sync_all()).expect("there is room");
        Log { file, content: vec![2; bytes as usize], offset: 0 }
    }

    /// Milliseconds for one write with its sync.
    fn sync(&mut self) -> f64 {
        let begun = Instant::now();
        self.file.write_all_at(&self.content, self.offset).expect("there is room");
        self.file.sync_data().expect("the disk works");
        let next = self.offset + self.content.len() as u64;
        self.offset = if next + self.content.len() as u64 > Log::BYTES { 0 } else { next };
        begun.elapsed().as_secs_f64() * 1e3
    }
}
