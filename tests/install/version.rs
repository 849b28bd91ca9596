//! What `--version` says, and what it is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::util::Launch;

/// 2001-09-09T01:46:40Z, with a commit in another zone's next day.
const COMMITTED: &str = "1000000000 +1400";

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim_end().to_owned()
}

/// A package with `build.rs` and nothing else that would be built.
struct Sources {
    home: TempDir,
    program: PathBuf,
}

impl Sources {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("build");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        succeeds(Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&program).arg(root.join("build.rs")));
        let sources = Self { home, program };
        fs::create_dir_all(sources.path().join("src")).unwrap();
        for file in ["Cargo.toml", "build.rs", "src/main.rs", "README.md"] {
            fs::write(sources.path().join(file), "first").unwrap();
        }
        sources
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("holdfast")
    }

    fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        // Nobody's own configuration.
        git.current_dir(directory).env("HOME", self.home.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        git.args(["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"]);
        succeeds(git.env("GIT_COMMITTER_DATE", COMMITTED).args(arguments))
    }

    fn commit(&self, directory: &Path) -> String {
        self.git(directory, &["add", "."]);
        self.git(directory, &["commit", "--quiet", "--allow-empty", "-m", "a commit"]);
        self.git(directory, &["rev-parse", "--short=12", "HEAD"])
    }

    /// What `build.rs` prints for cargo: what was built from, and what is watched.
    fn build(&self, epoch: Option<&str>) -> (String, Vec<PathBuf>) {
        let mut build = Command::new(&self.program);
        build.current_dir(self.path()).env("HOME", self.home.path()).env_remove("SOURCE_DATE_EPOCH");
        let said = succeeds(build.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch))));
        let of =
            |key: &str| said.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect::<Vec<_>>();
        let watched = of("cargo::rerun-if-changed=").iter().map(|path| self.path().join(path)).collect();
        (of("cargo::rustc-env=HOLDFAST_BUILD=").concat(), watched)
    }
}

#[test]
fn the_program_names_its_commit() {
    let finished = Launch::holdfast().run(&["--version"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let said = finished.stdout.trim_end();
    let begins = concat!("holdfast ", env!("CARGO_PKG_VERSION"), " (");
    let built = said.strip_prefix(begins).and_then(|rest| rest.strip_suffix(')')).unwrap_or_else(|| panic!("{said}"));
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists() {
        assert!(built.starts_with("unknown commit"), "{said}");
        return;
    }
    let (commit, date) = built.split_once(' ').unwrap();
    let commit = commit.trim_end_matches("-dirty");
    let mut git = Command::new("git");
    git.current_dir(env!("CARGO_MANIFEST_DIR")).env("TZ", "UTC0");
    let dated =
        succeeds(git.args(["show", "-s", "--date=format-local:%Y-%m-%d", "--format=%cd %h", "--abbrev=12", commit]));
    assert_eq!(dated, format!("{date} {commit}"));
}

#[test]
fn a_commit_is_told_with_its_date_and_whether_the_sources_differ_from_it() {
    let sources = Sources::new();
    let here = sources.path();
    sources.git(&here, &["init", "--quiet"]);
    assert_eq!(sources.build(None).0, "no commit yet");
    let commit = sources.commit(&here);
    assert_eq!(sources.build(None).0, format!("{commit} 2001-09-09"));
    assert_eq!(sources.build(Some("951782400")).0, format!("{commit} 2000-02-29"), "whoever builds may say when");
    fs::write(here.join("README.md"), "second").unwrap();
    assert_eq!(sources.build(None).0, format!("{commit} 2001-09-09"), "it is no part of the program");
    fs::write(here.join("src/more.rs"), "").unwrap();
    assert_eq!(sources.build(None).0, format!("{commit}-dirty 2001-09-09"));
    let next = sources.commit(&here);
    assert_eq!(sources.build(None).0, format!("{next} 2001-09-09"));
}

#[test]
fn sources_without_their_repository_have_no_commit() {
    let sources = Sources::new();
    assert_eq!(sources.build(None).0, "unknown commit");
    assert_eq!(sources.build(Some("0")).0, "unknown commit 1970-01-01");
    // Also within somebody else's.
    sources.git(sources.home.path(), &["init", "--quiet"]);
    sources.commit(sources.home.path());
    assert_eq!(sources.build(None).0, "unknown commit");
}

/// Cargo compiles everything again whenever one of the watched files has changed, or is not there.
#[test]
fn only_a_commit_or_a_change_of_the_sources_has_the_program_built_again() {
    let sources = Sources::new();
    let here = sources.path();
    sources.git(&here, &["init", "--quiet"]);
    sources.commit(&here);
    let (_, watched) = sources.build(None);
    assert!(watched.iter().all(|path| path.exists()), "{watched:?}");
    let state = || watched.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect::<Vec<_>>();
    let before = state();
    fs::write(here.join("README.md"), "second").unwrap();
    sources.git(&here, &["status"]);
    sources.git(&here, &["add", "."]);
    sources.build(None);
    assert_eq!(state(), before, "{watched:?}");
    sources.commit(&here);
    assert_ne!(state(), before, "{watched:?}");
    // Where all branches are in one file, too.
    sources.git(&here, &["pack-refs", "--all"]);
    let (_, watched) = sources.build(None);
    assert!(watched.iter().all(|path| path.exists()), "{watched:?}");
}
