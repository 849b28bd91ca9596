//! Who is at the address, and at that of the keys.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use super::{Examined, launch, under_systemd};
use crate::util::issuer::Key;
use crate::util::{KeyServer, Launch, Publication, document, wait_until};

#[test]
fn whatever_else_listens_there_is_no_holdfast() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let answers = std::thread::spawn(move || {
        let (mut client, _) = stranger.accept().unwrap();
        // What is unread when it leaves would take its answer away with it.
        let _ = client.read(&mut [0; 4096]).unwrap();
        client.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    Examined::of(&launch().env("BIND", &address)).says(
        "port",
        "fault",
        "is taken, and what answers there does not speak HTTP",
    );
    answers.join().unwrap();
}

#[test]
fn a_server_is_found_at_its_socket_in_the_file_system() {
    let launch = launch();
    let at = |name: &str| launch.clone().env("BIND", &format!("unix:{}", launch.home().join(name).display()));
    Examined::of(&at("nowhere/socket")).says("port", "fault", "there is no directory");
    Examined::of(&at("socket")).says("port", "ok", "socket is free");
    let mut server = at("socket").start_early();
    let is_well = || Examined::of(server.launch()).about("port").iter().any(|(level, _)| *level == "ok");
    wait_until("the store to be there", is_well);
    let answers = format!("Holdfast {} answers on unix:", env!("CARGO_PKG_VERSION"));
    Examined::of(server.launch()).says("port", "ok", &answers);
    server.kill9();
    Examined::of(server.launch()).says("port", "ok", "socket is free");
}

const LOADED: &str = "LoadState=loaded\\nTimeoutStopUSec=35s\\n";

#[test]
fn a_socket_of_systemd_without_a_server_is_not_asked() {
    let systemd = TcpListener::bind("127.0.0.1:0").unwrap();
    systemd.set_nonblocking(true).unwrap();
    let address = systemd.local_addr().unwrap();
    let said = format!("systemd listens on {address}, unix:/run/holdfast.sock, and no server uses");
    let socket = format!("ActiveState=active\\nListen={address} (Stream)\\nListen=/run/holdfast.sock (Stream)\\n");
    let launch = launch().env("BIND", &address.to_string());
    Examined::of(&under_systemd(&launch, LOADED, &socket)).says("port", "warning", &said);
    // Nor by who looks at something else, with the same address.
    let another = format!("{LOADED}StateDirectory=holdfast-of-nobody\\n");
    let said = format!("systemd listens on {address}, and no server uses");
    Examined::of(&under_systemd(&launch, &another, &socket)).says("port", "warning", &said);
    // Whoever connects starts the service.
    assert_eq!(systemd.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_server_is_asked_where_the_socket_of_systemd_listens() {
    let server = launch().on_one_port().start();
    let elsewhere = server.launch().clone().on_one_port();
    let socket = |state: &str| format!("ActiveState={state}\\nListen={} (Stream)\\n", server.address());
    let answers = format!("answers on {}: healthy", server.address());
    Examined::of(&under_systemd(&elsewhere, LOADED, &socket("active"))).says("port", "ok", &answers);
    Examined::of(&under_systemd(&elsewhere, LOADED, &socket("inactive"))).says("port", "warning", "nobody listens on");
    let another = format!("{LOADED}StateDirectory=holdfast-of-nobody\\n");
    Examined::of(&under_systemd(&elsewhere, &another, &socket("active"))).says("port", "warning", "nobody listens on");
}

#[test]
fn an_address_of_another_machine_is_not_asked() {
    let examined = Examined::of(&launch().env("BIND", "192.0.2.1:8000").env("TRUSTED_PROXIES", "192.0.2.2"));
    examined.says("port", "fault", "BIND is 192.0.2.1:8000, which cannot be listened on");
}

/// Both a port and a database that accept, and then say nothing.
#[test]
fn whoever_says_nothing_is_waited_for_no_longer_than_a_check_may_take() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let launch = launch().env("BIND", &address).env("DATABASE_URL", &format!("postgres://holdfast@{address}/nothing"));
    let finished = launch.run(&["doctor"]);
    assert!(finished.took < Duration::from_secs(8), "{:?}", finished.took);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    for line in ["fault    store  ", "fault    port  ", "ok       data  "] {
        assert!(finished.stdout.contains(line), "{}", finished.stdout);
    }
}

#[test]
fn a_server_that_is_not_well_says_why() {
    let launch = launch().on_one_port().env("DATABASE_URL", "postgres://holdfast@127.0.0.1:1/nothing");
    let server = launch.start_early();
    Examined::of(server.launch()).says("port", "warning", "answers on").says(
        "store",
        "fault",
        "cannot be used at the moment",
    );
}

fn launch_with_keys(keys: &str) -> Launch {
    launch().without("JWT_SECRET").env("JWT_JWKS", keys).env("JWT_AUDIENCE", "here")
}

#[test]
fn keys_are_read_as_a_server_would_read_them() {
    let key = Key::p256(Some("good"));
    let keys = KeyServer::start(Publication::of(&[&key]));
    let launch = launch_with_keys(&keys.url());
    let authority = launch.home().join("authority.pem");
    keys.write_authority(&authority);
    Examined::of(&launch).says("tokens", "fault", "JWT_JWKS cannot be read now");
    assert_eq!(launch.run(&["check"]).code, Some(3));
    let launch = launch.env("SSL_CERT_FILE", authority.to_str().unwrap());
    Examined::of(&launch).says("tokens", "ok", "JWT_JWKS has 1 usable key");
    let weak = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
    keys.publish(Publication::body(&json!({"keys": [key.jwk(), weak]}).to_string()));
    Examined::of(&launch).says("tokens", "warning", "JWT_JWKS has 1 usable key; left out:");
    keys.publish(Publication::Silence);
    Examined::of(&launch).says("tokens", "fault", "no answer within 5 s");
}

#[test]
fn a_file_of_keys_is_there_or_the_server_is_not() {
    let launch = launch_with_keys("keys.json");
    Examined::of(&launch).says("tokens", "fault", "the file cannot be read");
    std::fs::write(launch.home().join("keys.json"), document(&[&Key::p256(Some("good"))])).unwrap();
    Examined::of(&launch).says("tokens", "ok", "1 usable key");
}
