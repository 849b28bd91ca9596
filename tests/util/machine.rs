//! A copy of this machine's file system, for what changes a whole system: its packages, its units, its users' files.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use super::{bounded, require};

/// Where its processes see the copy, in a name space of mounts of their own: a directory that every system has.
const ROOT: &str = "/mnt/machine";

/// What is written goes to memory, over the machine's own files, which are only read. It all goes with the last process in the name
/// space: this one, which ends with its input.
const HOLDER: &str = "
mount -t tmpfs -o size=1G tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/machine
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/machine
mount --bind /dev /mnt/machine/dev
mount -t proc proc /mnt/machine/proc
echo ready
read -r end || :
";

/// The copy; gone when it is dropped, or when the test process ends.
pub(crate) struct Machine {
    holder: Child,
    /// The holder's input.
    _life: ChildStdin,
}

impl Machine {
    /// Whether there can be one here: root can have it on an ordinary Linux. If not, says so as [`require`] does.
    #[must_use]
    pub(crate) fn require() -> bool {
        let can = || Self::try_new().is_some();
        require("a copy of the machine's file system, which root can have", can())
    }

    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::try_new().expect("a test asks require() first")
    }

    fn try_new() -> Option<Self> {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "/bin/sh", "-ec", HOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let life = holder.stdin.take()?;
        let mut said = [0; 6];
        let is_ready = holder.stdout.take()?.read_exact(&mut said).is_ok() && said == *b"ready\n";
        let machine = Self { holder, _life: life };
        is_ready.then_some(machine)
    }

    /// What a shell outside runs to become this program of the machine, as this user.
    pub(crate) fn become_there(&self, user: &str, program: &str) -> String {
        format!("exec nsenter --mount=/proc/{}/ns/mnt chroot --userspec={user} {ROOT} {program}", self.holder.id())
    }

    /// Runs these commands of a shell there, as root, and gives what they print; fails where one of them fails.
    #[track_caller]
    pub(crate) fn run(&self, commands: &str) -> String {
        let Output { status, stdout, stderr } = self.try_run(commands, &[]);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{commands}\n{status}\n{stdout}\n{stderr}");
        stdout.trim_end().to_owned()
    }

    /// Makes a file there.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let Output { status, stderr, .. } = self.try_run(&format!("cat >{path}"), content);
        assert!(status.success(), "{path}: {}", String::from_utf8_lossy(&stderr));
    }

    /// The same with these words on the standard input, whatever comes of it.
    pub(crate) fn try_run(&self, commands: &str, input: &[u8]) -> Output {
        let mut shell = bounded("/bin/sh")
            .args(["-c", &format!("{} /bin/bash -euc \"$1\"", self.become_there("0:0", "")), "sh", commands])
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("DEBIAN_FRONTEND", "noninteractive"),
                ("LC_ALL", "C.UTF-8"),
            ])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It need not read them.
        drop(shell.stdin.take().unwrap().write_all(input));
        shell.wait_with_output().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing of it has to be put in order, and whoever still runs in it keeps it.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
