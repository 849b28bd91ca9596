//! `BIND=unix:/PATH`.

use std::io::{BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::util::{Asker, Launch, PATIENCE, Response, Server, read_response, wait_until};

use super::ANN;

/// A server on a socket in its own directory.
fn on_socket() -> (Launch, PathBuf) {
    let launch = Launch::holdfast();
    let path = launch.home().join("holdfast.sock");
    let bind = format!("unix:{}", path.display());
    (launch.env("BIND", &bind), path)
}

/// A request with these lines of a header.
fn get(path: &Path, target: &str, header: &str) -> Response {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_response(&mut BufReader::new(stream), "GET").unwrap()
}

fn wait_for_store(path: &Path) {
    wait_until("the store to be there", || get(path, "/health", "").json()["database"] == "connected");
}

#[test]
fn a_server_answers_on_a_socket_in_the_file_system_and_takes_it_away_with_it() {
    let (launch, path) = on_socket();
    let mut server = launch.start_early();
    assert_eq!(server.banner(), format!("unix:{}", path.display()));
    wait_for_store(&path);
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket() && file.permissions().mode() & 0o777 == 0o666, "{file:?}");
    // A large answer, and many on one connection.
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut reader, "GET").unwrap().json()["openapi"], "3.1.0");
    }
    assert_eq!(server.terminate().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_dead_server_is_replaced_and_that_of_a_living_one_is_not() {
    let (launch, path) = on_socket();
    let mut server = launch.start_early();
    wait_for_store(&path);
    server.kill9();
    assert!(path.exists(), "nobody has removed it");
    server.restart_early();
    wait_for_store(&path);
    let other = Launch::holdfast().env("BIND", &format!("unix:{}", path.display()));
    let finished = other.run(&[]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(finished.stderr.contains("cannot be listened on"), "{finished:?}");
    assert_eq!(get(&path, "/health", "").status, 200, "it has not been touched");
}

#[test]
fn holdfast_ask_finds_a_socket_by_name_and_by_the_configuration() {
    let (launch, path) = on_socket();
    let server = launch.start_early();
    wait_for_store(&path);
    let named = Asker::of(ANN, ([127, 0, 0, 1], 1).into()).env("HOLDFAST_URL", &format!("unix:{}", path.display()));
    let finished = named.run(&["SELECT 6 * 7 AS answer"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("42"), "{finished:?}");
    let finished = server.launch().run(&["ask", "--patience", "20s", "SELECT 6 * 7 AS answer"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("42"), "{finished:?}");
    let nobody = named.env("HOLDFAST_URL", "unix:/nonexistent/socket").run(&["--patience", "100ms", "SELECT 1"]);
    assert_eq!(nobody.code, Some(6), "{nobody:?}");
    assert!(nobody.stderr.contains("there is no such socket"), "{nobody:?}");
}

/// Where the log says that a token came from which was refused.
fn address_of_refused(server: &Server, path: &Path, forwarded_for: &str) -> String {
    let answer = get(path, "/runs", &format!("Authorization: Bearer nonsense\r\nX-Forwarded-For: {forwarded_for}\r\n"));
    assert_eq!(answer.status, 401, "{answer:?}");
    let mut refused = None;
    wait_until("the log to tell", || {
        let log = server.stderr();
        let line = log.lines().find(|line| line.contains("token.refused")).unwrap_or_default();
        refused = line.split_once("address=").map(|(_, rest)| rest.split(' ').next().unwrap().to_owned());
        refused.is_some()
    });
    refused.unwrap()
}

#[test]
fn whoever_comes_by_a_socket_is_this_machine_unless_it_is_a_trusted_proxy() {
    let (launch, path) = on_socket();
    let server = launch.clone().env("TRUSTED_PROXIES", "127.0.0.1").start_early();
    assert_eq!(address_of_refused(&server, &path, "203.0.113.7"), "127.0.0.1", "an address is not a socket");
    drop(server);
    let server = launch.env("TRUSTED_PROXIES", "unix").start_early();
    assert_eq!(address_of_refused(&server, &path, "203.0.113.7"), "203.0.113.7");
}
