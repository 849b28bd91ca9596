//! Keys that an issuer publishes: read, rotated, missed, and away, while clients go on.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{come_again, problem, tokens_refused};
use crate::util::issuer::Key;
use crate::util::{Client, KeyServer, Launch, Publication, Response, Server, document, wait_until};

/// How soon a change is noticed: a file is looked at every second, a failed fetch repeated after one or two.
const AT_ONCE: Duration = Duration::from_secs(5);
/// How long strangers cannot have the keys fetched once more.
const MISSED_PAUSE: Duration = Duration::from_secs(10);

fn claims(email: &str, n: usize) -> Value {
    let expires = jiff::Timestamp::now().as_second() + 600;
    json!({"email": email, "exp": expires, "aud": "here", "iss": "https://issuer.example", "n": n})
}

/// A server that knows published keys alone.
fn launch(keys: &str) -> Launch {
    Launch::holdfast()
        .without("JWT_SECRET")
        .env("JWT_JWKS", keys)
        .env("JWT_AUDIENCE", "here")
        .env("JWT_ISSUER", "https://issuer.example")
}

/// The same with the keys of this address.
fn launch_at(keys: &KeyServer) -> Launch {
    let launch = launch(&keys.url());
    let authority = launch.home().join("authority.pem");
    keys.write_authority(&authority);
    launch.env("SSL_CERT_FILE", authority.to_str().unwrap()).heeds_hangup()
}

fn present(client: &mut Client, token: &str) -> Response {
    client.request("GET", "/runs", &[("Authorization", &format!("Bearer {token}"))], &[])
}

/// A token of this key that nobody has seen before.
fn fresh(key: &Key) -> String {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    key.token(&claims("ann@example.org", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
}

#[track_caller]
fn accepted(server: &Server, key: &Key) {
    let answer = present(&mut server.anonymous(), &fresh(key));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[track_caller]
fn refused_for_its_key(answer: &Response) {
    let refused = problem(answer, 401);
    assert_eq!(refused["reason"], "key", "{refused}");
    assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
}

#[track_caller]
fn soon_accepted(server: &Server, key: &Key) {
    let begun = Instant::now();
    wait_until("the key to be known", || present(&mut server.anonymous(), &fresh(key)).status == 200);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

fn warnings(server: &Server) -> String {
    server.health()["warnings"].to_string()
}

fn write(path: &Path, keys: &[&Key]) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, document(keys)).and_then(|()| std::fs::rename(fresh, path)).unwrap();
}

fn occurrences(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// How many of its threads read keys.
fn refreshers(server: &Server) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_nonzero())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "key-refresher").count()
}

#[test]
fn keys_in_a_file_are_rotated_under_running_clients() {
    let [old, new] = [Key::rsa(Some("old")), Key::p256(Some("new"))];
    let launch = launch("keys.json").env("JWT_SECRET", "the secret of this server and of nobody else");
    let path = launch.home().join("keys.json");
    write(&path, &[&old]);
    let mut server = launch.start();
    let shared = Key::secret(b"the secret of this server and of nobody else").token(&claims("bob@example.org", 0));
    let (olds, news) = (fresh(&old), fresh(&new));
    let mut client = server.anonymous();
    assert_eq!(present(&mut client, &olds).status, 200);
    refused_for_its_key(&present(&mut client, &news));
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut client = server.anonymous();
            let mut answers = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(present(&mut client, &shared).status, 200, "who has the secret is not concerned");
                answers += 1;
            }
            answers
        });
        write(&path, &[&old, &new]);
        soon_accepted(&server, &new);
        assert_eq!(present(&mut client, &olds).status, 200);
        assert_eq!(present(&mut client, &news).status, 200);
        write(&path, &[&new]);
        wait_until("the old key to be gone", || present(&mut client, &olds).status == 401);
        refused_for_its_key(&present(&mut client, &olds));
        assert_eq!(present(&mut client, &news).status, 200);
        // A file that is spoilt or gone takes nobody's key away.
        std::fs::write(&path, "{").unwrap();
        wait_until("a warning", || warnings(&server).contains("is not a JSON object with a list"));
        accepted(&server, &new);
        std::fs::remove_file(&path).unwrap();
        wait_until("a warning", || warnings(&server).contains("the file cannot be read"));
        accepted(&server, &new);
        write(&path, &[&old]);
        soon_accepted(&server, &old);
        assert_eq!(server.health()["warnings"], json!([]));
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(running.join().unwrap() > 10);
    });
    let log = server.terminate().stderr;
    assert_eq!(occurrences(&log, "keys.loaded"), 4, "{log}");
    assert_eq!(occurrences(&log, "keys.unavailable"), 1, "{log}");
    assert_eq!(occurrences(&log, "keys.available"), 1, "{log}");
    assert!(!log.contains("keys.json"), "{log}");
}

#[test]
fn an_unknown_key_has_them_fetched_at_once_and_strangers_once_in_ten_seconds() {
    let [old, new] = [Key::p256(Some("old")), Key::ed25519(Some("new"))];
    let keys = KeyServer::start(Publication::of(&[&old]));
    let server = launch_at(&keys).start();
    // Before that every key is missing, and whoever came would have them fetched once more.
    wait_until("the keys to be there", || server.anonymous().get("/health/ready").status == 200);
    let olds = fresh(&old);
    assert_eq!(present(&mut server.anonymous(), &olds).status, 200);
    let before = keys.fetches();
    assert_eq!(refreshers(&server), 1);
    assert_eq!(refreshers(&Launch::holdfast().start()), 0, "there is nothing to refresh");
    keys.publish(Publication::of(&[&new]));
    let asked = Instant::now();
    refused_for_its_key(&present(&mut server.anonymous(), &fresh(&new)));
    soon_accepted(&server, &new);
    refused_for_its_key(&present(&mut server.anonymous(), &olds));
    let mut client = server.anonymous();
    for n in 0..200 {
        refused_for_its_key(&present(&mut client, &fresh(&Key::ed25519(Some(&format!("stranger {n}"))))));
    }
    assert!(asked.elapsed() < MISSED_PAUSE, "the machine is too slow for this test");
    assert_eq!(keys.fetches(), before + 1);
    // The last of them is not forgotten, and costs one fetch for all.
    keys.publish(Publication::of(&[&new, &old]));
    keys.wait_for_more_than(before + 1);
    assert!(asked.elapsed() >= MISSED_PAUSE, "{:?}", asked.elapsed());
    soon_accepted(&server, &old);
    assert_eq!(keys.fetches(), before + 2);
}

#[test]
fn keys_that_are_away_at_the_start_are_waited_for_and_nobody_is_called_a_stranger() {
    let key = Key::p256(Some("a"));
    let keys = KeyServer::start(Publication::Nobody);
    let mut server = launch_at(&keys).env("LOG_FORMAT", "json").start();
    let mut client = server.anonymous();
    let answer = present(&mut client, &fresh(&key));
    come_again(&answer, 503);
    assert_eq!(answer.json()["reason"], "key");
    assert_eq!(answer.header("WWW-Authenticate"), None, "the token may be a good one");
    assert_eq!(problem(&client.get("/runs"), 401)["reason"], "missing");
    assert_eq!(problem(&present(&mut client, "a.b.c"), 401)["reason"], "malformed");
    assert_eq!(
        problem(&present(&mut client, &Key::secret(&[0; 32]).token(&claims("ann", 0))), 401)["reason"],
        "algorithm"
    );
    wait_until("a warning", || warnings(&server).contains("answered with 503"));
    assert_eq!(client.get("/health").status, 200);
    let ready = client.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["failing"]), (503, &json!(["keys"])));
    keys.publish(Publication::of(&[&key]));
    wait_until("the keys to be there", || client.get("/health/ready").status == 200);
    accepted(&server, &key);
    assert_eq!(server.health()["warnings"], json!([]));
    refused_for_its_key(&present(&mut client, &fresh(&Key::p256(Some("a stranger's")))));
    let told = [("key", 2), ("missing", 1), ("malformed", 1), ("algorithm", 1)];
    tokens_refused(&mut server, &told.map(|(reason, n)| (reason.to_owned(), n)).into());
}

#[test]
fn a_source_that_misbehaves_costs_nobody_a_key_and_keeps_nobody_waiting() {
    let [old, new] = [Key::rsa(Some("old")), Key::p256(Some("new"))];
    let keys = KeyServer::start(Publication::of(&[&old]));
    let launch = launch_at(&keys);
    let authority = launch.home().join("authority.pem");
    let mut server = launch.start();
    soon_accepted(&server, &old);
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    plain.set_nonblocking(true).unwrap();
    let to = |place: &str| {
        Publication::Answer(format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"))
    };
    for (publication, told) in [
        (Publication::body("<html>not found</html>"), "is not a JSON object with a list"),
        (Publication::body(&" ".repeat(256 * 1024 + 1)), "larger than 256 KiB"),
        (Publication::Answer("HTTP/1.1 200 OK\r\n\r\n".to_owned() + &"x".repeat(1 << 20)), "larger than 256 KiB"),
        (Publication::Answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()), "answers 404"),
        (Publication::Answer("nothing that HTTP has\r\n\r\n".into()), "does not speak HTTP"),
        (to(&format!("http://{}/keys", plain.local_addr().unwrap())), "not encrypted"),
        (to("/keys"), "leads from one to another"),
        (Publication::Nobody, "the connection breaks"),
    ] {
        let (before, is_somebody) = (keys.fetches(), !matches!(publication, Publication::Nobody));
        keys.publish(publication);
        server.signal(Signal::HUP);
        // The warning may be the one before.
        if is_somebody {
            keys.wait_for_more_than(before);
        }
        wait_until(told, || warnings(&server).contains(told));
        accepted(&server, &old);
    }
    assert!(plain.accept().is_err(), "nobody was led to where nothing is encrypted");
    // Somebody else in the issuer's place.
    KeyServer::start(Publication::Nobody).write_authority(&authority);
    keys.publish(Publication::of(&[&new]));
    server.signal(Signal::HUP);
    wait_until("a warning", || warnings(&server).contains("no encrypted connection can be made"));
    refused_for_its_key(&present(&mut server.anonymous(), &fresh(&new)));
    keys.write_authority(&authority);
    let Publication::Answer(moved) = Publication::of(&[&new]) else { unreachable!("it is an answer") };
    keys.publish(Publication::Behind("/moved", moved));
    server.signal(Signal::HUP);
    soon_accepted(&server, &new);
    assert_eq!(server.health()["warnings"], json!([]));

    // One that says nothing any more is waited for by nobody: not by clients, and not by a shutdown.
    let before = keys.fetches();
    keys.publish(Publication::Silence);
    server.signal(Signal::HUP);
    keys.wait_for_more_than(before);
    for _ in 0..20 {
        let begun = Instant::now();
        accepted(&server, &new);
        assert_eq!(server.anonymous().get("/health").status, 200);
        refused_for_its_key(&present(&mut server.anonymous(), &fresh(&old)));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < AT_ONCE, "{:?}", finished.took);
    for secret in ["localhost", "authority.pem", &keys.url(), "stranger"] {
        assert!(!finished.stderr.contains(secret), "{secret} is in\n{}", finished.stderr);
    }
}

/// Goal: an issuer whose only key has leaked can take it back before it has another.
#[test]
fn the_last_key_is_withdrawn_by_a_document_without_usable_ones() {
    let [old, new] = [Key::p256(Some("old")), Key::ed25519(None)];
    let keys = KeyServer::start(Publication::of(&[&old]));
    let server = launch_at(&keys).start();
    soon_accepted(&server, &old);
    let (mut client, seen) = (server.anonymous(), fresh(&old));
    assert_eq!(present(&mut client, &seen).status, 200);
    keys.publish(Publication::body(&json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string()));
    server.signal(Signal::HUP);
    wait_until("the key to be gone", || present(&mut client, &seen).status != 200);
    for token in [seen, fresh(&old), fresh(&new)] {
        refused_for_its_key(&present(&mut client, &token));
    }
    wait_until("a warning", || warnings(&server).contains("left out: 1 symmetric"));
    let ready = client.get("/health/ready");
    assert_eq!((ready.status, &ready.json()["failing"]), (503, &json!(["keys"])));
    // That the issuer is away now brings nothing back.
    keys.publish(Publication::Nobody);
    server.signal(Signal::HUP);
    wait_until("a warning", || warnings(&server).contains("there were none before"));
    refused_for_its_key(&present(&mut client, &fresh(&old)));
    keys.publish(Publication::of(&[&new]));
    server.signal(Signal::HUP);
    soon_accepted(&server, &new);
    refused_for_its_key(&present(&mut client, &fresh(&old)));
    assert_eq!(client.get("/health/ready").status, 200);
    assert_eq!(server.health()["warnings"], json!([]));
}

#[test]
fn a_start_with_keys_that_cannot_be_meant_says_why() {
    let absent = launch("absent.json").run(&[]);
    assert_eq!(absent.code, Some(2), "{absent:?}");
    assert_eq!(
        absent.stderr,
        "holdfast: JWT_JWKS is absent.json, which cannot be used: the file cannot be read: entity not found.\n"
    );
    let unusable = launch("keys.json");
    std::fs::write(
        unusable.home().join("keys.json"),
        r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-521"}]}"#,
    )
    .unwrap();
    for command in [&[][..], &["check"]] {
        let finished = unusable.run(command);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        let told = finished.stdout + &finished.stderr;
        assert!(told.contains("left out: 1 of another curve, 1 symmetric"), "{told}");
    }
    for (launch, told) in [
        (launch("keys.json").without("JWT_AUDIENCE"), "JWT_JWKS is set without JWT_AUDIENCE, but such keys sign"),
        (launch("http://127.0.0.1/keys"), "JWT_JWKS is an address that does not begin with https://; allowed is"),
        (launch("https://ann:hunter2@localhost/"), "JWT_JWKS is an address with a user or a password in it; allowed"),
    ] {
        let finished = launch.run(&[]);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains(told) && !finished.stderr.contains("hunter2"), "{}", finished.stderr);
    }
}

#[test]
fn a_server_without_a_secret_makes_no_token_and_may_be_public() {
    let key = Key::ed25519(None);
    let launch = launch("keys.json");
    write(&launch.home().join("keys.json"), &[&key]);
    let checked = launch.clone().env("BIND", "0.0.0.0:8000").run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("JWT_JWKS has 1 usable key\n"), "{}", checked.stdout);
    for command in
        [&["token", "--email", "ann@example.org"][..], &["ask", "--server", "http://127.0.0.1:1", "SELECT 1"]]
    {
        let finished = launch.run(command);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
        assert!(finished.stderr.contains("only the issuer of those keys makes tokens"), "{}", finished.stderr);
    }
    let server = launch.start();
    assert!(!server.banner().contains("token"), "{}", server.banner());
    assert!(!server.launch().state().join("jwt-secret").exists());
    accepted(&server, &key);
}
