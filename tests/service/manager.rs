//! The units under a manager of systemd's own: one for a user, who is root in name spaces of its own. It has no journal, which is a
//! socket here, and is not asked for what only the manager of a whole machine can give.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::unit::file;
use crate::util::{Machine, PATIENCE, bounded, require, wait_until};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// It ends with its input, and all that it has started with it. A manager looks whether systemd is there at all before it comes up.
const HOLDER: &str = r#"
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journal
mount --bind "$XDG_RUNTIME_DIR/journal" /run/systemd/journal
"$1" --user >"$XDG_RUNTIME_DIR/log" 2>&1 </dev/null &
read -r end || :
kill "$!"
wait "$!" || :
"#;
/// What of the service is left to this manager.
const SETTINGS: [&str; 5] = ["Type", "Restart", "StandardOutput", "StandardError", "ExecReload"];

/// A manager with both units, and what they have told the journal.
struct Systemd {
    holder: Child,
    /// The holder's input; `None` once it is to end.
    life: Option<ChildStdin>,
    home: tempfile::TempDir,
    journal: Arc<Mutex<String>>,
    /// Several would have the same control groups for their services.
    _only: MutexGuard<'static, ()>,
}

impl Systemd {
    #[must_use]
    fn require() -> bool {
        require("systemd, which is not installed (tests/run installs it)", Path::new(SYSTEMD).is_file())
            && Machine::require()
    }

    fn new() -> Self {
        static ONLY: Mutex<()> = Mutex::new(());
        let only = ONLY.lock();
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join("systemd/user");
        for directory in [&units, &home.path().join("journal")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let place = home.path().display().to_string();
        let server =
            format!("ExecStart={} serve\nEnvironmentFile={place}/holdfast.env\n", env!("CARGO_BIN_EXE_holdfast"));
        // Soon enough to see it often.
        std::fs::write(units.join("holdfast.service"), service(&format!("{server}RestartSec=100ms\n"))).unwrap();
        let socket = file("holdfast.socket").replace("=127.0.0.1:8000\n", &format!("={place}/passed.sock\n"));
        std::fs::write(units.join("holdfast.socket"), socket).unwrap();

        let journal = Arc::new(Mutex::new(String::new()));
        let listener = UnixListener::bind(home.path().join("journal/stdout")).unwrap();
        let heard = journal.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = heard.clone();
                std::thread::spawn(move || hear(stream, &heard));
            }
        });
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        let mut holder = holder.args(["/bin/sh", "-ec", HOLDER, "sh", SYSTEMD]);
        holder = holder.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SYSTEMD_LOG_TARGET", "console");
        for variable in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"] {
            holder = holder.env(variable, home.path());
        }
        let mut holder = holder.stdin(Stdio::piped()).spawn().unwrap();
        let life = holder.stdin.take();
        let systemd = Self { holder, life, home, journal, _only: only };
        wait_until("the manager to listen", || UnixStream::connect(systemd.path("systemd/private")).is_ok());
        systemd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes the settings of the server: these, and where it is.
    fn configure(&self, settings: &str) {
        let place = self.home.path().display();
        let settings = format!("STATE_DIRECTORY={place}/state\nBIND=unix:{place}/bound.sock\n{settings}\n");
        std::fs::write(self.path("holdfast.env"), settings).unwrap();
    }

    /// Tells it to do something, and gives what it says.
    fn told(&self, words: &str) -> String {
        // From inside, since it minds who calls.
        let spaces = format!("/proc/{}/ns", self.holder.id());
        let mut systemctl = bounded("nsenter");
        systemctl.args([
            format!("--mount={spaces}/mnt"),
            format!("--pid={spaces}/pid_for_children"),
            "systemctl".into(),
        ]);
        for variable in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"] {
            systemctl.env(variable, self.home.path());
        }
        let output = systemctl.arg("--user").args(words.split(' ')).output().unwrap();
        // What the test prints is read when it fails.
        eprintln!("{words}: {output:?}\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        String::from_utf8(output.stdout).unwrap()
    }

    fn are_active(&self) -> [bool; 2] {
        let states = self.told("is-active holdfast.socket holdfast.service");
        let mut states = states.lines().map(|state| state == "active");
        [states.next().unwrap(), states.next().unwrap()]
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.life.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.holder.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whatever has not ended by then ends with it.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// The service as it is, but for what needs the rights of a machine's manager, and with these lines.
fn service(lines: &str) -> String {
    let unit = file("holdfast.service");
    let (general, rest) = unit.split_once("[Service]\n").unwrap();
    let (settings, _) = rest.split_once("[Install]\n").unwrap();
    let is_left = |line: &&str| line.split_once('=').is_some_and(|(name, _)| SETTINGS.contains(&name));
    let settings = settings.lines().filter(is_left).collect::<Vec<_>>().join("\n");
    format!("{general}[Service]\n{settings}\n{lines}")
}

fn hear(mut stream: UnixStream, heard: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        heard.lock().push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

fn ask(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

#[track_caller]
fn assert_answered(mut stream: UnixStream) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Goal: nothing that a server does at its start costs the socket. It is wrongly configured and somebody connects, so that it is started
/// more often than any limit of systemd's own would have it; then the fault is mended, and nothing else is done.
#[test]
fn whoever_connects_to_a_wrongly_configured_service_is_answered_once_that_is_mended() {
    if !Systemd::require() {
        return;
    }
    let systemd = Systemd::new();
    systemd.configure("DRAIN_TIMEOUT=soon");
    systemd.told("enable holdfast.socket");
    systemd.told("start holdfast.service");
    let failed = || systemd.journal.lock().matches("DRAIN_TIMEOUT is").count();
    wait_until("it to be started again by itself", || failed() > 2);
    let waiting = ask(&systemd.path("passed.sock"));
    wait_until("many starts to fail", || failed() > 14);
    systemd.configure("");
    assert_answered(waiting);
    wait_until("both to be there", || systemd.are_active() == [true, true]);
    let journal = systemd.journal.lock().clone();
    assert!(journal.contains("server.started"), "the log goes to the journal: {journal}");
    assert!(!journal.contains("eyJ"), "a token is not for it: {journal}");
}

/// Goal: the service listens where the socket says, whatever has become of that; and at BIND once it is disabled, as the unit tells.
#[test]
fn a_service_brings_its_socket_along_unless_it_is_disabled() {
    if !Systemd::require() {
        return;
    }
    let systemd = Systemd::new();
    systemd.configure("");
    systemd.told("enable holdfast.socket");
    systemd.told("start holdfast.service");
    assert_eq!(systemd.are_active(), [true, true]);
    for commands in [&["stop holdfast.socket", "restart holdfast.service"][..], &["restart holdfast.socket"]] {
        for command in commands {
            systemd.told(command);
        }
        // Nobody who tells it something about the socket waits for the service.
        wait_until(&format!("both to be there after {commands:?}"), || systemd.are_active() == [true, true]);
        assert_answered(ask(&systemd.path("passed.sock")));
    }
    assert!(!systemd.path("bound.sock").exists());

    systemd.told("disable --now holdfast.socket");
    systemd.told("restart holdfast.service");
    assert_eq!(systemd.are_active(), [false, true]);
    assert_answered(ask(&systemd.path("bound.sock")));
}
