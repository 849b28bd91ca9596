//! Tells the program what it was built from: the commit, its date, and whether what is built differs from it.
//!
//! Cargo runs this again when the commit or what the program is made of has changed, and else never: each path that it is told to
//! watch exists, for one that does not would count as changed every time.

use std::path::Path;
use std::process::Command;

/// What the program is made of. What else changes in the work tree does not change the program.
const MADE_OF: &[&str] = &["Cargo.toml", "Cargo.lock", "build.rs", ".cargo", "src", "sample-data"];
/// Digits of the commit's hash: 48 bits tell any two commits of a repository apart.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rustc-env=HOLDFAST_BUILD={}", build());
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    for path in MADE_OF.iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// Such as `12407c9ab123 2026-11-25`. The date is the commit's, so that the same commit gives the same program.
fn build() -> String {
    let said = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok()).map(date);
    // A source archive may lie within somebody else's repository, whose commit would say nothing.
    if git(&["rev-parse", "--show-prefix"]).as_deref() != Some("") {
        return format!("unknown commit{}", said.map(|date| format!(" {date}")).unwrap_or_default());
    }
    let (Some(commit), Some(seconds)) = (git(&["rev-parse", "HEAD"]), git(&["show", "-s", "--format=%ct", "HEAD"]))
    else {
        return "no commit yet".into();
    };
    watch_head();
    let changes = git(&[&["status", "--porcelain", "--"], MADE_OF].concat());
    let mark = if changes.as_deref() == Some("") { "" } else { "-dirty" };
    let date = said.or_else(|| seconds.parse().ok().map(date)).unwrap_or_default();
    format!("{}{mark} {date}", &commit[..DIGITS.min(commit.len())])
}

/// Has this run again when another commit is checked out or made: git writes to one of these then.
fn watch_head() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref());
    for path in names.filter_map(|name| git(&["rev-parse", "--git-path", name])).filter(|path| Path::new(path).exists())
    {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// What git prints, without the end of its line; `None` where there is no git, or no repository that it trusts.
fn git(arguments: &[&str]) -> Option<String> {
    // Looking must not write: another git may be at work in the same repository.
    let output = Command::new("git").args(arguments).env("GIT_OPTIONAL_LOCKS", "0").output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim_end().to_owned())
}

/// The day in UTC of so many seconds since 1970, as `2026-11-25`: counted in years that begin in March, with the leap day last.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
