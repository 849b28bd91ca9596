//! A minimal axum on a runtime with two worker threads.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

async fn health() -> ([(axum::http::HeaderName, &'static str); 1], Vec<u8>) {
    ([(CONTENT_TYPE, "application/json")], holdfast_peers::health_json())
}

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", holdfast_peers::port())).await?;
        axum::serve(listener, Router::new().route("/health", get(health))).await
    })
}
