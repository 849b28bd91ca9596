//! A shell that outlives the test process for a moment, to end what that one started.

use std::fs::{Permissions, set_permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::Pid;

use super::installation::User;
use super::wait_for;

/// Runs a script whose standard input is a pipe from this process.
///
/// The script does what the lines say that it reads, answers each with one line, and at the end of its input ends what
/// it started. That end comes when the supervisor is dropped, and also when this process ends in whatever way: the
/// kernel closes the pipe. A process group of its own keeps the terminal's interrupt key away from it.
pub(super) struct Supervisor {
    child: Child,
    /// `None` once it is to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts the script as this user; `privileges` are what a shell does beforehand, still as whoever runs the tests.
    pub(super) fn start(script: &str, arguments: &[&str], user: User, privileges: Option<&str>) -> Self {
        let mut command = match privileges {
            None => Command::new("/bin/sh"),
            Some(_) => Command::new("unshare"),
        };
        if let Some(privileges) = privileges {
            // A mount name space of its own: what is mounted in it goes with its last process.
            let User { id, group } = user;
            let become_user = format!("exec setpriv --reuid={id} --regid={group} --clear-groups /bin/sh \"$@\"");
            command.args(["--mount", "/bin/sh", "-ec", &format!("{privileges}\n{become_user}"), "sh"]);
        } else {
            user.runs(&mut command);
        }
        let mut child = command
            .args(["-c", script, "supervisor"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    /// Has the script do something and gives its answer; the script bounds how long that takes.
    pub(super) fn ask(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().expect("nobody asks a supervisor that is dropped");
        commands.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.commands = None;
        if std::thread::panicking() {
            // The test has failed already; the script ends by itself.
            return;
        }
        wait_for("the supervisor to end", || self.child.try_wait().unwrap());
    }
}

/// A fresh directory below `/tmp` that this user owns and everybody can reach; not in `TMPDIR`, which may be somebody's
/// own, or too long for the path of a socket. Who made it removes it.
pub(super) fn directory(user: User) -> PathBuf {
    let directory = tempfile::Builder::new().prefix("holdfast-").tempdir_in("/tmp").unwrap().keep();
    give(&directory, user, 0o755);
    directory
}

/// Gives a file or a directory to this user, with this mode.
pub(super) fn give(path: &Path, user: User, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chown(path, Some(user.id), Some(user.group)).unwrap();
}
