//! The Debian package, built by `cargo deb` and handled by dpkg, debconf and Debian's helpers as on any machine; but for systemd,
//! which does not run here: what it is told to do is recorded, and what it would do is done by hand, setting by setting of the unit.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use holdfast::version::FULL;
use serde_json::{Value, json};

use super::operations::commands;
use crate::util::{Client, Launch, Machine, Server, program, require, sql, wait_until};

const ANN: &str = "ann@example.org";
const OLD: &str = "0.1.0-1";
const NEW: &str = "0.1.0-2";
/// Who `DynamicUser=` makes up: somebody without privileges.
const SOMEBODY: &str = "nobody:nogroup";
const STATE: &str = "/var/lib/private/holdfast";
const SECRET: &str = "/etc/holdfast/jwt_secret";
/// Where systemd would lay the credentials of the unit.
const CREDENTIALS: &str = "/run/credentials/holdfast.service";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn cargo_deb() -> Option<PathBuf> {
    let installed = target().join("tools/bin/cargo-deb");
    installed.is_file().then_some(installed).or_else(|| program("cargo-deb"))
}

/// What the second program says that it is.
fn next_version() -> String {
    let next = FULL.replacen('0', "9", 1);
    assert_ne!(next, FULL);
    next
}

/// The program as another build: the same one, but for what it says that it is. To build a second one would take minutes.
#[track_caller]
fn renamed(program: &Path) -> Vec<u8> {
    let mut sed = Command::new("sed");
    let output = sed.arg(format!("s/{FULL}/{}/g", next_version())).arg(program).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The package of this version, of the program that the tests have built; of the new one, of that program with another name.
#[track_caller]
fn package(version: &str) -> Vec<u8> {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // cargo-deb knows no other profile than release; its own directory keeps it from taking an older release for this program.
    fs::create_dir(home.path().join("release")).unwrap();
    let program = home.path().join("release/holdfast");
    fs::hard_link(env!("CARGO_BIN_EXE_holdfast"), &program).unwrap();
    if version == NEW {
        let renamed = renamed(&program);
        // Not into the program that the other tests start.
        fs::remove_file(&program).unwrap();
        fs::write(&program, renamed).unwrap();
    }
    let file = home.path().join("holdfast.deb");
    let output = Command::new(cargo_deb().unwrap())
        .args(["deb", "--no-build", "--offline", "--locked", "--fast", "--deb-version", version, "--output"])
        .arg(&file)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", home.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).unwrap()
}

/// A machine with both packages, on which systemd seems to run; `None` where there can be none.
#[track_caller]
fn machine() -> Option<Machine> {
    static PACKAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let has_cargo_deb = require("cargo-deb, which is not installed (tests/run installs it)", cargo_deb().is_some());
    if !has_cargo_deb || !Machine::require() {
        return None;
    }
    let machine = Machine::new();
    for (version, package) in [OLD, NEW].iter().zip(PACKAGES.get_or_init(|| [OLD, NEW].map(package))) {
        machine.write(&format!("/tmp/holdfast-{version}.deb"), package);
    }
    machine.write("/tmp/systemctl", MANAGER.as_bytes());
    // Nothing that a developer may have here.
    machine.run(&format!(
        "rm -rf /usr/sbin/policy-rc.d /etc/holdfast /var/lib/holdfast {STATE}
        mkdir -p /run/systemd/system
        mv /usr/bin/systemctl /usr/bin/systemctl.real
        install -m 755 /tmp/systemctl /usr/bin/systemctl"
    ));
    Some(machine)
}

#[track_caller]
fn install(machine: &Machine, version: &str) {
    machine.run(&format!("dpkg --force-unsafe-io --no-triggers --install /tmp/holdfast-{version}.deb"));
}

/// What systemd was told to do since it was asked last: the verbs that start and stop, with their units.
#[track_caller]
fn told(machine: &Machine) -> Vec<String> {
    let told = machine.run("cat /tmp/told; rm /tmp/told");
    let verbs = ["start", "stop", "restart", "try-restart", "reload"];
    let words =
        told.lines().map(|line| line.split_whitespace().filter(|word| !word.starts_with('-')).collect::<Vec<_>>());
    words.filter(|words| words.first().is_some_and(|verb| verbs.contains(verb))).map(|words| words.join(" ")).collect()
}

/// The values of this setting in the unit as it was installed.
fn settings(machine: &Machine, name: &str) -> Vec<String> {
    let unit = machine.run("cat /usr/lib/systemd/system/holdfast.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.map(|value| value.replace("%d", CREDENTIALS)).collect()
}

/// A socket as systemd would have it, but for the port, which may be somebody else's here.
#[track_caller]
fn socket(machine: &Machine) -> TcpListener {
    let unit = machine.run("cat /usr/lib/systemd/system/holdfast.socket");
    assert!(unit.lines().any(|line| line == "ListenStream=127.0.0.1:8000"), "{unit}");
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Starts the installed program as the unit would, on a socket of its own.
#[track_caller]
fn start(machine: &Machine) -> Server {
    start_on(machine, &socket(machine))
}

/// Starts it on this socket: as the unit's user, in its environment, with its state directory and credentials.
#[track_caller]
fn start_on(machine: &Machine, socket: &TcpListener) -> Server {
    machine.run(&format!(
        "mkdir -p -m 0700 {STATE} {CREDENTIALS}
        ln -sfn private/holdfast /var/lib/holdfast
        chown -R {SOMEBODY} {STATE}
        chmod 0711 /var/lib/private"
    ));
    for credential in settings(machine, "LoadCredential") {
        let (name, path) = credential.split_once(':').unwrap();
        // A unit that can do without has an empty one in its place (SetCredential=).
        machine.run(&format!("if [ -e {path} ]; then cat {path}; else echo; fi >{CREDENTIALS}/{name}"));
    }
    machine.run(&format!("chown -R {SOMEBODY} {CREDENTIALS}"));
    let mut launch = Launch::holdfast().embedded().without("JWT_SECRET").env("STATE_DIRECTORY", STATE);
    for file in settings(machine, "EnvironmentFile") {
        let variables = machine.run(&format!("grep -E '^[A-Z_]+=' {} || :", file.trim_start_matches('-')));
        launch = variables
            .lines()
            .filter_map(|line| line.split_once('='))
            .fold(launch, |launch, (name, value)| launch.env(name, value));
    }
    for variable in settings(machine, "Environment").iter().flat_map(|variables| variables.split_whitespace()) {
        let (name, value) = variable.split_once('=').unwrap();
        launch = launch.env(name, value);
    }
    let command = settings(machine, "ExecStart").concat();
    let server = launch.passing(socket.try_clone().unwrap()).shell(&machine.become_there(SOMEBODY, &command)).start();
    assert_eq!(server.address(), socket.local_addr().unwrap());
    server
}

/// A client with a token that this machine's administrator has made.
fn client(machine: &Machine, server: &Server) -> Client {
    let token = machine.run(&format!("cd / && JWT_SECRET_FILE={SECRET} holdfast token --email {ANN}"));
    Client::new(server.address(), Some(token))
}

/// What is between the package and the manager of the system: files are systemd's own business, and the rest is written down.
const MANAGER: &str = r#"#!/bin/sh
for unit; do :; done
case " $* " in
    *" --root="*) exec systemctl.real "$@" ;;
    *" is-enabled "*) exec systemctl.real --root=/ is-enabled "$unit" ;;
    *) echo "$*" >>/tmp/told ;;
esac
case " $* " in *" restart "*) [ ! -e /tmp/busy ] || sleep 20 ;; esac
"#;

/// Asks until the load is over, and follows what is answered later; nothing but success is an answer.
fn ask_on(mut client: Client, thread: &str, comes_anew: bool, is_over: &AtomicBool, answered: &AtomicUsize) {
    while !is_over.load(Ordering::Relaxed) {
        let answer = client.try_post("/analyze", &[], &sql(thread, "SELECT 6 * 7"));
        let mut answer = answer.expect("nobody is refused, and no request fails");
        while answer.status == 202 {
            let path = format!("/runs/{}/wait", answer.run_id());
            answer = client.try_request("GET", &path, &[], &[]).expect("no request fails");
        }
        assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([[42]])), "{answer:?}");
        answered.fetch_add(1, Ordering::Relaxed);
        if comes_anew {
            client.hang_up();
        }
    }
}

/// It ends when it is interrupted.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// Tells links between installed pages that lead nowhere.
const DEAD_LINKS: &str = "cd /usr/share/doc/holdfast
    find . -name '*.md' | while read -r page; do
        grep --only-matching '](\\([^)#]*\\)' $page | cut -c 3- | while read -r link; do
            case $link in '' | *:*) ;; *) [ -e ${page%/*}/$link ] || echo $page: $link ;; esac
        done || :
    done";

#[test]
fn what_is_installed_is_whole_and_serves() {
    let Some(machine) = machine() else { return };
    install(&machine, OLD);
    let modes = machine.run("stat --format '%a %U %n' /usr/bin/holdfast /etc/holdfast /etc/holdfast/* | sort -k3");
    let expected = [
        "700 root /etc/holdfast",
        "600 root /etc/holdfast/holdfast.env",
        "600 root /etc/holdfast/jwt_secret",
        "755 root /usr/bin/holdfast",
    ];
    assert_eq!(modes.lines().collect::<Vec<_>>(), expected);
    for file in [
        "man/man1/holdfast.1.gz",
        "man/man1/holdfast-ask.1.gz",
        "bash-completion/completions/holdfast",
        "fish/vendor_completions.d/holdfast.fish",
        "zsh/vendor-completions/_holdfast",
        "doc/holdfast/README.md",
        "doc/holdfast/CHANGELOG.md",
        "doc/holdfast/LICENSE-APACHE",
        "doc/holdfast/LICENSE-MIT",
        "doc/holdfast/docs/operations.md",
        "doc/holdfast/examples/Caddyfile.example",
        "doc/holdfast/examples/nginx.conf.example",
        "doc/holdfast/examples/holdfast.env.example",
    ] {
        machine.run(&format!("[ -s /usr/share/{file} ]"));
    }
    let dead = machine.run(DEAD_LINKS);
    assert_eq!(dead, "", "pages that were not installed with those that name them");
    machine.run("dpkg --verify holdfast");
    let changes = machine.run("zcat /usr/share/doc/holdfast/changelog.Debian.gz");
    assert!(changes.starts_with(concat!("holdfast (", env!("CARGO_PKG_VERSION"), "-1) ")), "{changes}");
    assert_eq!(
        machine.run("dpkg-query --show --showformat '${Conffiles}' holdfast"),
        "",
        "nothing that dpkg asks about"
    );
    assert!(machine.run("holdfast --version").starts_with(concat!("holdfast ", env!("CARGO_PKG_VERSION"), " (")));
    for link in [
        "multi-user.target.wants/holdfast.service",
        "sockets.target.wants/holdfast.socket",
        "holdfast.service.requires/holdfast.socket",
    ] {
        let unit = machine.run(&format!("readlink --canonicalize-existing /etc/systemd/system/{link}"));
        assert_eq!(unit, format!("/usr/lib/systemd/system/{}", link.split_once('/').unwrap().1));
    }
    assert_eq!(told(&machine), ["start holdfast.socket", "start holdfast.service"]);
    // 256 random bits, in letters.
    let secret = machine.run(&format!("cat {SECRET}"));
    assert_eq!(secret.len(), 44, "a secret of 32 bytes");

    let server = start(&machine);
    let mut ann = client(&machine, &server);
    let document = server.anonymous().get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap().iter();
    let open: Vec<_> = paths.filter(|(_, item)| item["get"].is_object() && item["get"]["security"].is_null()).collect();
    assert!(open.len() >= 10, "{open:?}");
    for (path, _) in open {
        assert_eq!(server.anonymous().get(path).status, 200, "{path}");
    }
    let answer = ann.post("/analyze", &sql("t", "SELECT 6 * 7"));
    assert_eq!(answer.json()["rows"], json!([[42]]), "{answer:?}");
    machine.run(&format!("rm {SECRET}; dpkg-reconfigure holdfast"));
    assert_ne!(machine.run(&format!("cat {SECRET}")), secret, "another one, if an administrator wants it");
    assert_eq!(told(&machine), ["start holdfast.socket", "restart holdfast.service"]);
    // A database that is away keeps the server from being ready, and nobody from going on with the other packages.
    machine.run("touch /tmp/busy; sed -i 's/timeout 60 /timeout 1 /' /var/lib/dpkg/info/holdfast.postinst");
    let said = machine.run("dpkg-reconfigure holdfast 2>&1");
    assert!(said.contains("holdfast: the server is not ready yet"), "{said}");
    let files = machine.run(&format!("stat --format '%U %a' {STATE} {STATE}/holdfast.sqlite"));
    assert_eq!(files, "nobody 700\nnobody 600", "what is stored is there");
}

#[test]
fn an_upgrade_under_load_fails_no_request_and_keeps_what_was_stored_and_configured() {
    let Some(machine) = machine() else { return };
    install(&machine, OLD);
    machine.run("echo DRAIN_TIMEOUT=1s >>/etc/holdfast/holdfast.env && chmod 0750 /etc/holdfast");
    let kept = "cat /etc/holdfast/holdfast.env /etc/holdfast/jwt_secret; stat --format %a /etc/holdfast";
    let configured = machine.run(kept);
    let socket = socket(&machine);
    let server = start_on(&machine, &socket);
    let mut ann = client(&machine, &server);
    let before_id = ann.post("/analyze", &sql("before", "SELECT 6 * 7")).run_id();
    let before = ann.run(&before_id);
    let running = ann.submit(&sql("meanwhile", ENDLESS));
    wait_until("it to run", || ann.run(&running)["status"] == "running");
    told(&machine);

    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let server = std::thread::scope(|scope| {
        let mut server = server;
        let clients: Vec<_> = (0..4)
            .map(|n| {
                let (client, is_over, answered) = (client(&machine, &server), &is_over, &answered);
                scope.spawn(move || ask_on(client, &format!("load {n}"), n % 2 == 0, is_over, answered))
            })
            .collect();
        let wait_for_answers = || {
            let enough = answered.load(Ordering::Relaxed) + 12;
            wait_until("the load to be answered", || {
                assert!(!clients.iter().any(ScopedJoinHandle::is_finished), "a client failed");
                answered.load(Ordering::Relaxed) >= enough
            });
        };
        wait_for_answers();
        install(&machine, NEW);
        assert_eq!(told(&machine), ["start holdfast.socket", "restart holdfast.service"], "and no stop");
        assert_eq!(machine.run("holdfast --version"), format!("holdfast {}", next_version()));
        assert_eq!(machine.run(kept), configured);
        wait_for_answers();
        assert!(server.stderr().contains(FULL), "until it is restarted the old program goes on");
        // What the restart is: the unit's program has to leave within its time, and the new one goes on.
        let finished = server.terminate();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let server = start_on(&machine, &socket);
        wait_until("the new program to say that it is", || server.stderr().contains(&next_version()));
        wait_for_answers();
        is_over.store(true, Ordering::Relaxed);
        server
    });
    let mut ann = client(&machine, &server);
    let same = |run: &Value| ["status", "result", "rows", "started_at", "finished_at"].map(|field| run[field].clone());
    assert_eq!(same(&ann.run(&before_id)), same(&before));
    wait_until("the run to be resumed", || ann.run(&running)["status"] == "running");
    assert_eq!(ann.post(&format!("/runs/{running}/cancel"), &Value::Null).status, 202);
    ann.wait_for_status(&running, "cancelled");
}

/// Goal: an upgrade that nobody attends goes through, whatever the next version says about settings: they were edited, as
/// everybody's are, and its example is another. So does the way back, as the manual tells it.
#[test]
fn an_upgrade_asks_nobody_about_settings_that_were_edited() {
    let Some(machine) = machine() else { return };
    install(&machine, OLD);
    machine.run(&format!(
        "echo LOG=debug >>/etc/holdfast/holdfast.env
        cd /tmp && dpkg-deb --raw-extract holdfast-{NEW}.deb next
        find next -name 'holdfast.env*' -exec sed -i '$a #NEW_VARIABLE=' {{}} +
        [ \"$(grep --recursive --count NEW_VARIABLE next/usr/share/doc/holdfast/examples/holdfast.env.example)\" = 1 ]
        dpkg-deb -Znone --build next holdfast-{NEW}.deb"
    ));
    let settings = "cat /etc/holdfast/holdfast.env; ls /etc/holdfast";
    let edited = machine.run(settings);
    install(&machine, NEW);
    let installed = "dpkg-query --show --showformat '${Version} ${Status}' holdfast";
    assert_eq!(
        (machine.run(settings), machine.run(installed)),
        (edited.clone(), format!("{NEW} install ok installed"))
    );
    told(&machine);
    let back = commands("roll back").replace("./holdfast_OLD_amd64.deb", &format!("/tmp/holdfast-{OLD}.deb"));
    machine.run(&back);
    assert_eq!((machine.run(settings), machine.run(installed)), (edited, format!("{OLD} install ok installed")));
    assert_eq!(told(&machine).last().unwrap(), "restart holdfast.service");
}

#[test]
fn a_removal_keeps_everything_and_a_purge_asks() {
    let Some(machine) = machine() else { return };
    install(&machine, OLD);
    let mut server = start(&machine);
    let answered = client(&machine, &server).post("/analyze", &sql("t", "SELECT 6 * 7")).run_id();
    server.terminate();
    told(&machine);
    let stored = format!(
        "cat {SECRET} {STATE}/instance {STATE}/holdfast.sqlite | sha256sum; cat /etc/holdfast/holdfast.env || :"
    );
    let before = machine.run(&stored);

    machine.run("dpkg --no-triggers --remove holdfast");
    let stopped = told(&machine);
    assert!(stopped.contains(&"stop holdfast.service holdfast.socket".to_owned()), "{stopped:?}");
    assert!(!machine.try_run("command -v holdfast", &[]).status.success());
    assert_eq!(machine.run(&stored), before);
    install(&machine, OLD);
    assert_eq!(machine.run(&stored), before, "whoever installs it again goes on with that");

    // Nobody is there to answer the question, so it is answered by its default.
    machine.run("echo postgres://holdfast:password@db/holdfast >/etc/holdfast/database_url");
    let purge = || machine.try_run("DEBCONF_DEBUG=developer dpkg --no-triggers --purge holdfast 2>&1", &[]);
    let said = String::from_utf8(purge().stdout).unwrap();
    assert!(said.contains("INPUT high holdfast/remove-data"), "{said}");
    let sums = format!("cat {SECRET} {STATE}/instance {STATE}/holdfast.sqlite | sha256sum");
    assert_eq!(machine.run(&sums), before.lines().next().unwrap(), "{said}");
    for kept in [STATE, SECRET, "/etc/holdfast/database_url"] {
        assert!(said.contains(&format!("holdfast: {kept} was kept.")), "{said}");
    }
    machine.run("rm /etc/holdfast/database_url");
    let leftovers = "find /etc/systemd /var/lib/systemd /usr/bin /usr/share /etc/holdfast -name '*holdfast*' ! -path '/etc/holdfast'; dpkg -l holdfast 2>/dev/null || :";
    let left = machine.run(leftovers);
    assert_eq!(left, "", "all that is the package's is gone");

    install(&machine, OLD);
    let server = start(&machine);
    assert_eq!(client(&machine, &server).run(&answered)["status"], "succeeded");
    drop(server);
    machine.run(
        "echo holdfast holdfast/remove-data boolean true | debconf-set-selections
        touch /etc/holdfast/database_url /etc/holdfast/jwt_secret.new /etc/holdfast/holdfast.env.new",
    );
    assert!(purge().status.success());
    assert_eq!(machine.run(&format!("ls -d /etc/holdfast /var/lib/holdfast {STATE} 2>/dev/null || :")), "");
}
