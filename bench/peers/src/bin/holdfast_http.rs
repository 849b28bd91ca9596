//! Holdfast's HTTP front end alone, with the peers' body: what of a difference is the application's.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use holdfast::http::{Caller, Exchange, Limits, Refusal, Response, Server, Service};

struct Health;

impl Service for Health {
    fn call(&self, exchange: Exchange) {
        let response = match exchange.request.path() {
            "/health" => Response::new(200, "application/json", holdfast_peers::health_json()),
            _ => Response::empty(404),
        };
        exchange.responder.send(response);
    }

    fn refuse(&self, refusal: &Refusal, _: &Caller) -> Response {
        Response::empty(refusal.status().0)
    }
}

fn main() -> std::io::Result<()> {
    let threads = std::env::args().nth(2).and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let listener = TcpListener::bind(("127.0.0.1", holdfast_peers::port()))?;
    let server = Server::start(vec![listener.into()], Limits::default(), threads, Health)?;
    loop {
        std::thread::sleep(Duration::from_millis(250));
        server.sweep(Instant::now());
    }
}
