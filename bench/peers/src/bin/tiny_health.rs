//! A bare `tiny_http::Server` with four threads that call `recv`.

use std::sync::Arc;

use tiny_http::{Header, Response, Server};

fn main() {
    let server = Arc::new(Server::http(("127.0.0.1", holdfast_peers::port())).expect("the port is free"));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || {
                let json = Header::from_bytes("Content-Type", "application/json").expect("a header");
                while let Ok(request) = server.recv() {
                    let response = if request.url() == "/health" {
                        Response::from_data(holdfast_peers::health_json()).with_header(json.clone())
                    } else {
                        Response::from_data(Vec::new()).with_status_code(404)
                    };
                    // A client that has gone is no concern of a benchmark.
                    let _ = request.respond(response);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread ends with its server");
    }
}
