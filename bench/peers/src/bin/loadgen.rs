//! A closed loop over keep-alive connections that tells each connection's share.
//!
//! `loadgen PORT PATH CONNECTIONS SECONDS` sends the next request on a connection when it has the answer to the one before,
//! and prints `requests_per_second p50_us p99_us max_us slowest_share`: the slowest connection's answers by the mean of all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, path, connections, seconds] = arguments.as_slice() else {
        panic!("usage: loadgen PORT PATH CONNECTIONS SECONDS")
    };
    let port: u16 = port.parse().expect("a port");
    let connections: usize = connections.parse().expect("a number of connections");
    let duration = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let start = Barrier::new(connections);
    let mut latencies_us: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let run = || closed_loop(port, request.as_bytes(), &start, duration);
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("each request is answered 200")).collect()
    });
    let fewest = latencies_us.iter().map(Vec::len).min().unwrap_or(0);
    let mut all: Vec<u32> = latencies_us.drain(..).flatten().collect();
    all.sort_unstable();
    let quantile = |share: f64| all.get(((all.len() - 1) as f64 * share) as usize).copied().unwrap_or(0);
    println!(
        "{:.0} {} {} {} {:.3}",
        all.len() as f64 / duration.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        fewest as f64 * connections as f64 / all.len() as f64
    );
}

fn closed_loop(port: u16, request: &[u8], start: &Barrier, duration: Duration) -> Vec<u32> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout that is not zero");
    let mut latencies_us = Vec::new();
    let mut buffer = [0; 8192];
    start.wait();
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let sent = Instant::now();
        socket.write_all(request).expect("the server reads");
        read_answer(&mut socket, &mut buffer);
        latencies_us.push(sent.elapsed().as_micros() as u32);
    }
    latencies_us
}

/// Reads one answer, which fits the buffer and has a Content-Length.
fn read_answer(socket: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = socket.read(&mut buffer[filled..]).expect("an answer within ten seconds");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = response.parse(&buffer[..filled]) else { continue };
        assert_eq!(response.code, Some(200));
        let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
        if filled >= head + length.unwrap_or(0_usize) {
            return;
        }
    }
}
