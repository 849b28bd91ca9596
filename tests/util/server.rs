//! Server processes: started, asked, signalled, killed, restarted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use holdfast::auth;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::ports::free_port;
use super::secrecy::{self, Exception, Matter};
use super::{Client, Database, PATIENCE, World, drill, wait_for, wait_until};

/// The secret of every server that is not told otherwise.
const SECRET: &str = "what the servers of these tests sign with";

/// The servers' own variable for where they store.
const DATABASE_URL: &str = "DATABASE_URL";
/// The variable that chooses the store of the servers under test: `postgres`, or `embedded`, which is the default.
const STORE: &str = "HOLDFAST_TEST_STORE";

/// How a process is to be started: what, with which environment, under which limits.
///
/// The environment holds nothing but what is set here; the current directory is an empty one of its own.
#[derive(Clone)]
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    prelude: String,
    heeds_hangup: bool,
    /// Kept as long as anybody can start in it.
    home: Arc<TempDir>,
    /// What it may tell all the same.
    exceptions: Vec<Exception>,
    /// In the place of the harness's own pipe.
    stderr: Option<Arc<OwnedFd>>,
    /// The database of whatever starts here, made by the first start; `None` for the embedded store.
    database: Option<Arc<OnceLock<Database>>>,
    /// The socket that is passed to whatever starts here.
    passed: Option<Arc<OwnedFd>>,
}

impl Launch {
    /// The built binary.
    pub(crate) fn holdfast() -> Self {
        Self::new(env!("CARGO_BIN_EXE_holdfast").into(), &[])
    }

    /// The same server with the drill engine, out of this test binary.
    pub(crate) fn drill() -> Self {
        let launch = Self::new(std::env::current_exe().unwrap(), &drill::ARGUMENTS);
        let directory = launch.home.path().join("drill");
        std::fs::create_dir(&directory).unwrap();
        launch.env(drill::DIRECTORY, directory.to_str().unwrap())
    }

    /// Looks at its memory four times a second, and misses a thread after what it may wait for a connection; of the drill server.
    #[must_use]
    pub(crate) fn in_a_hurry(self) -> Self {
        self.env(drill::HURRY, "1")
    }

    fn new(program: PathBuf, arguments: &[&str]) -> Self {
        let home = Arc::new(tempfile::Builder::new().prefix("holdfast-").tempdir().unwrap());
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let database = match std::env::var(STORE).as_deref() {
            Ok("postgres") => Some(Arc::default()),
            Ok("embedded") | Err(_) => None,
            Ok(other) => panic!("{STORE} is {other:?}; postgres and embedded are allowed"),
        };
        let launch = Self {
            program,
            arguments,
            environment: BTreeMap::new(),
            prelude: String::new(),
            heeds_hangup: false,
            home,
            exceptions: Vec::new(),
            stderr: None,
            database,
            passed: None,
        };
        let state = launch.state();
        launch
            .env("STATE_DIRECTORY", state.to_str().unwrap())
            .env("BIND", "127.0.0.1:0")
            .env("JWT_SECRET", SECRET)
            .env("RATE_LIMIT_REQUESTS", "1000000")
            .env("RATE_LIMIT_BURST", "1000000")
    }

    /// Sets a variable.
    #[must_use]
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        match name {
            "JWT_SECRET" => secrecy::note_secret(value),
            DATABASE_URL => secrecy::note_dsn(value),
            _ => {}
        }
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Lets what starts here tell this, for this reason; nothing else may be told to anybody ([`secrecy`]).
    #[must_use]
    pub(crate) fn tells(mut self, matter: Matter, reason: &'static str) -> Self {
        self.exceptions.push((matter, reason));
        self
    }

    /// Takes a variable away that is set by default.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Has the same address after every restart, for clients that come again by themselves.
    #[must_use]
    pub(crate) fn on_one_port(self) -> Self {
        self.env("BIND", &format!("127.0.0.1:{}", free_port()))
    }

    /// Starts in this world; it has to outlive the server.
    #[must_use]
    pub(crate) fn in_world(self, world: &World) -> Self {
        world.environment().iter().fold(self, |launch, (name, value)| launch.env(name, value))
    }

    /// Shares the journals and gates of another drill server, as another instance of it.
    #[must_use]
    pub(crate) fn beside(self, other: &Server) -> Self {
        let directory = other.launch.environment[drill::DIRECTORY].clone();
        self.env(drill::DIRECTORY, &directory)
    }

    /// Stores in this database, whatever the tests are run on; it has to outlive the server.
    #[must_use]
    pub(crate) fn on(self, database: &Database) -> Self {
        self.env(DATABASE_URL, &database.url())
    }

    /// Stores in the state directory, whatever the tests are run on: for tests of the embedded store's own file.
    #[must_use]
    pub(crate) fn embedded(mut self) -> Self {
        self.database = None;
        self.without(DATABASE_URL)
    }

    /// The database that it is given when the tests are run on PostgreSQL and it was not told another one.
    pub(crate) fn database(&self) -> Option<&Database> {
        let database = self.database.as_ref().filter(|_| !self.environment.contains_key(DATABASE_URL))?;
        Some(database.get_or_init(Database::new))
    }

    /// Has a shell run these commands, such as `ulimit -n 128`, after those it was told before and before it becomes the process.
    #[must_use]
    pub(crate) fn shell(mut self, prelude: &str) -> Self {
        self.prelude += prelude;
        self.prelude.push('\n');
        self
    }

    /// Has SIGHUP do its work: whoever runs the tests may have been started to outlive a terminal, and its children with it.
    #[must_use]
    pub(crate) fn heeds_hangup(mut self) -> Self {
        self.heeds_hangup = true;
        self
    }

    /// Has its standard error be this; whoever reads the other end judges what it says.
    #[must_use]
    pub(crate) fn stderr_to(mut self, stderr: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(Arc::new(stderr.into()));
        self
    }

    /// Passes this socket, as systemd does, with whatever it is; it stays open here, also while nothing runs.
    #[must_use]
    pub(crate) fn passing(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.passed = Some(Arc::new(socket.into()));
        self.env("LISTEN_FDS", "1").shell("exec 3<&0 </dev/null; LISTEN_PID=$$; export LISTEN_PID")
    }

    /// The state directory; the first start makes it.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The directory in which the process runs, for files that it is given.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts a server and waits until it can be asked, and its store with it.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let server = self.start_early();
        server.wait_for_store();
        server
    }

    /// Starts a server and waits until it answers: a store that is a server's may not be there yet.
    #[track_caller]
    pub(crate) fn start_early(self) -> Server {
        let process = Process::start(&self, &[]);
        let banner = process.banner();
        if let Ok(secret) = std::fs::read_to_string(self.state().join(auth::Secret::FILE)) {
            secrecy::note_secret(secret.trim());
        }
        Server { launch: self, process, banner }
    }

    /// Runs a command, or a server that should not start, to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        let mut process = Process::start(self, arguments);
        process.end()
    }

    /// Begins to run a command.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        Running { process: Process::start(self, arguments) }
    }

    /// A token of this user for the servers that verify with the tests' secret.
    pub(crate) fn token(user: &str) -> String {
        let secret = auth::Secret::new(SECRET).unwrap();
        // Longer than any test puts a clock forward.
        let token = auth::issue(&secret, &auth::VerifierOptions::default(), user, Duration::from_hours(24)).unwrap();
        secrecy::note_token(&token);
        token
    }
}

/// A running server, ended by its id when it is dropped.
pub(crate) struct Server {
    launch: Launch,
    process: Process,
    banner: String,
}

impl Server {
    #[track_caller]
    fn wait_for_store(&self) {
        // The embedded store is there before the server answers.
        if self.launch.database().is_some() || self.launch.environment.contains_key(DATABASE_URL) {
            wait_until("the store to be there", || self.health()["database"] == "connected");
        }
    }

    /// A client of this user.
    pub(crate) fn client(&self, user: &str) -> Client {
        Client::new(self.address(), Some(Launch::token(user)))
    }

    /// A client without a token.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.address(), None)
    }

    /// The first line of its output: where to find it.
    pub(crate) fn banner(&self) -> &str {
        &self.banner
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let rest = self.banner.strip_prefix("http://").unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    pub(crate) fn launch(&self) -> &Launch {
        &self.launch
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    /// `GET /health`, on a connection of its own.
    #[track_caller]
    pub(crate) fn health(&self) -> Value {
        self.anonymous().get("/health").json()
    }

    /// The value of a series of `GET /metrics`, such as `panics_total`; `None` of what has not happened yet.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        super::series(&self.anonymous().get("/metrics").text(), series)
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it as a power failure would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Finished {
        self.process.end()
    }

    /// Sends SIGTERM and waits until it has ended.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Finished {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Starts it again on the same state directory, once it has ended; its address is another one, unless it has one port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.restart_with(|launch| launch);
    }

    /// The same with another environment.
    #[track_caller]
    pub(crate) fn restart_with(&mut self, change: impl FnOnce(Launch) -> Launch) {
        self.launch = change(self.launch.clone());
        self.restart_early();
        self.wait_for_store();
    }

    /// As [`Server::restart`], but waits for nothing but its answer, as [`Launch::start_early`].
    #[track_caller]
    pub(crate) fn restart_early(&mut self) {
        assert!(self.process.child.try_wait().unwrap().is_some(), "a server that still runs is not restarted");
        self.process = Process::start(&self.launch, &[]);
        self.banner = self.process.banner();
    }

    /// A number out of `/proc/PID/status`, such as `Threads`.
    pub(crate) fn proc_status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The names of its threads.
    pub(crate) fn thread_names(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid().as_raw_nonzero())).unwrap();
        // A thread may end while it is looked at.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).collect()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap().count()
    }

    /// How many of them are sockets: its clients and where it listens.
    pub(crate) fn sockets(&self) -> usize {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap();
        // A descriptor may be closed between the listing and the look at it.
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// How many connections of clients it holds, also of such that are gone without its having noticed.
    pub(crate) fn connections(&self) -> usize {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid().as_raw_nonzero())).unwrap();
        let port = format!(":{:04X}", self.address().port());
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The local address, the state and the inode: a listener's state is 0A, and what no process holds has no inode.
        rows.filter(|row| row[1].ends_with(&port) && row[3] != "0A" && row[9] != "0").count()
    }

    /// Processor time it has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero())).unwrap();
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

/// A command that was begun, ended by its id when it is dropped.
pub(crate) struct Running {
    process: Process,
}

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has written a line with this text to standard error, and gives the line.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        wait_for(&format!("a line with {text:?}"), || {
            self.process.stderr().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        self.process.end()
    }

    /// Kills it as a power failure would, if it still runs, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill9(mut self) -> Finished {
        // It may have ended already.
        drop(self.process.child.kill());
        self.process.end()
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal, then; for whoever reads why a test failed.
    #[expect(dead_code, reason = "only ever printed")]
    pub(crate) signal: Option<i32>,
    /// How long it was waited for.
    pub(crate) took: Duration,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    lines: Receiver<String>,
    readers: Vec<std::thread::JoinHandle<()>>,
    exceptions: Vec<Exception>,
    is_judged: bool,
}

impl Process {
    fn start(launch: &Launch, arguments: &[&str]) -> Self {
        let mut command = if launch.prelude.is_empty() && !launch.heeds_hangup {
            Command::new(&launch.program)
        } else {
            let mut shell = Command::new("/bin/sh");
            let becomes = if launch.heeds_hangup { "exec env --default-signal=HUP" } else { "exec" };
            shell.arg("-c").arg(format!("{}{becomes} \"$0\" \"$@\"", launch.prelude)).arg(&launch.program);
            shell
        };
        let stderr = launch.stderr.as_ref().map(|stderr| stderr.try_clone().unwrap().into());
        let mut child = command
            .args(&launch.arguments)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(launch.database().map(|database| (DATABASE_URL, database.url())))
            .envs(&launch.environment)
            .current_dir(launch.home())
            .stdin(match &launch.passed {
                Some(socket) => Stdio::from(socket.try_clone().unwrap()),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .unwrap();
        let (line, lines) = unbounded();
        let (out, out_reader) = collect(child.stdout.take().unwrap(), Some(line));
        let mut readers = vec![out_reader];
        let stderr = child.stderr.take().map_or_else(Arc::default, |pipe| {
            let (err, err_reader) = collect(pipe, None);
            readers.push(err_reader);
            err
        });
        let exceptions = launch.exceptions.clone();
        Self { child, stdout: out, stderr, lines, readers, exceptions, is_judged: false }
    }

    #[track_caller]
    fn banner(&self) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with("http://") || line.starts_with("unix:") => {
                    if let Some((_, token)) = line.split_once("#token=") {
                        secrecy::note_token(token);
                    }
                    return line;
                }
                Ok(_) => {}
                Err(error) => panic!("the server did not start: {error}\n{}", self.stderr()),
            }
        }
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock()).into_owned()
    }

    /// Once it has ended: fails if it has said what it may not.
    #[track_caller]
    fn judge(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        if !std::mem::replace(&mut self.is_judged, true) {
            let who = format!("process {}", self.child.id());
            secrecy::judge_output(&who, &self.stdout.lock(), &self.stderr.lock(), &self.exceptions);
        }
    }

    #[track_caller]
    fn end(&mut self) -> Finished {
        let started = Instant::now();
        let status = wait_for("the process to end", || self.child.try_wait().unwrap());
        let took = started.elapsed();
        self.judge();
        let stdout = String::from_utf8_lossy(&self.stdout.lock()).into_owned();
        Finished { code: status.code(), signal: status.signal(), took, stdout, stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            println!("--- standard error of process {}:\n{}", self.child.id(), self.stderr());
        } else {
            self.judge();
        }
    }
}

/// Reads a pipe to its end on a thread of its own, so that the process never waits for its reader.
fn collect(
    pipe: impl Read + Send + 'static,
    each_line: Option<Sender<String>>,
) -> (Arc<Mutex<Vec<u8>>>, std::thread::JoinHandle<()>) {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&collected);
    let reader = std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().extend_from_slice(&line);
            if let Some(each_line) = &each_line {
                // Nobody listens any more once the address is known.
                drop(each_line.send(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            line.clear();
        }
    });
    (collected, reader)
}
