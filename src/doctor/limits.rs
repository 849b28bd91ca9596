//! How many descriptors and threads there may be.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, geteuid, getrlimit};

use super::Patient;
use super::finding::Finding;
use crate::app;

const DESCRIPTORS: &str = "descriptors";
const THREADS: &str = "threads";

/// With fewer clients than this, nobody would call it a server.
const CLIENTS_MIN: u64 = 64;

pub(super) fn look_at_descriptors(patient: &Patient) -> Vec<Finding> {
    let connections = patient.config.max_connections as u64;
    let beside = app::descriptors_beside(&patient.config);
    // A server raises its soft limit to its hard one.
    let (hard, whose) = match patient.server.as_ref().and_then(|server| server.limit("Max open files")) {
        Some((_, hard)) => (hard, "the running server"),
        None => (getrlimit(Resource::Nofile).maximum, "a server started from here"),
    };
    let most = hard.unwrap_or(app::DESCRIPTORS_MAX).min(app::DESCRIPTORS_MAX);
    let said = format!("{whose} may have {most}; MAX_CONNECTIONS is {connections}, and {beside} are needed beside");
    let advice = format!(
        "raise the hard limit to {} (LimitNOFILE= in a unit, ulimit -Hn in a shell), or lower MAX_CONNECTIONS",
        connections + beside
    );
    vec![match () {
        () if most < beside + CLIENTS_MIN => Finding::fault(DESCRIPTORS, said, advice),
        () if most < beside + connections => Finding::warning(DESCRIPTORS, said, advice),
        () => Finding::ok(DESCRIPTORS, said),
    }]
}

pub(super) fn look_at_threads(patient: &Patient) -> Vec<Finding> {
    let threads = app::threads(&patient.config, app::http_threads());
    let process = patient.server.as_ref().map_or_else(|| "self".to_owned(), |server| server.id().to_string());
    let running = patient.server.as_ref().and_then(super::process::Process::threads).unwrap_or(0);
    let group = fs::read_to_string(format!("/proc/{process}/cgroup")).ok();
    let room = group.and_then(|membership| room_in_group(&membership, |file| fs::read_to_string(file).ok()));
    let theirs = patient.server.as_ref().and_then(|server| Some((server.limit("Max processes")?.0, server.is_roots())));
    let own = || (getrlimit(Resource::Nproc).current, geteuid().is_root());
    let (user, is_roots) = theirs.unwrap_or_else(own);
    // Nobody counts what root starts.
    let user = user.filter(|_| !is_roots);
    vec![judge(&threads, room.map(|room| room + running), user)]
}

/// `group` and `user`: how many a server may have by its control group, and by its user's limit, if there is one.
fn judge(threads: &app::Threads, group: Option<u64>, user: Option<u64>) -> Finding {
    let app::Threads { at_rest, at_most } = threads;
    let limits =
        [(group, "the control group leaves room for", "TasksMax="), (user, "its user may have", "LimitNPROC=")];
    let tightest = limits
        .into_iter()
        .filter_map(|(limit, who, setting)| Some((limit?, who, setting)))
        .min_by_key(|(limit, ..)| *limit);
    let needed = format!("a server has {at_rest}, at most {at_most}");
    match tightest {
        Some((limit, who, setting)) if limit < *at_most => {
            let said = format!("{needed}; {who} {limit}");
            let advice = format!("raise {setting} of the unit, or what else sets it, to more than {at_most}");
            if limit < *at_rest {
                Finding::fault(THREADS, said, advice)
            } else {
                Finding::warning(THREADS, said, advice)
            }
        }
        Some((limit, who, _)) => Finding::ok(THREADS, format!("{needed}; {who} {limit}")),
        None => Finding::ok(THREADS, format!("{needed}; nothing limits them")),
    }
}

/// How many more threads there may be in the group of this membership (`/proc/self/cgroup`) and in those around it.
fn room_in_group(membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let places = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", path)),
            "pids" => Some(("/sys/fs/cgroup/pids", path)),
            _ => None,
        }
    });
    let number = |file: &Path| read(file)?.trim().parse::<u64>().ok();
    let rooms = places.flat_map(|(root, path)| {
        let own = Path::new(root).join(path.trim_start_matches('/'));
        let around: Vec<_> = own.ancestors().take_while(|group| group.starts_with(root)).map(Path::to_owned).collect();
        around.into_iter().filter_map(|group| {
            Some(number(&group.join("pids.max"))?.saturating_sub(number(&group.join("pids.current")).unwrap_or(0)))
        })
    });
    rooms.min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn the_tightest_group_counts() {
        let files = [
            ("/sys/fs/cgroup/system.slice/holdfast.service/pids.max", "max"),
            ("/sys/fs/cgroup/system.slice/pids.max", "100\n"),
            ("/sys/fs/cgroup/system.slice/pids.current", "60\n"),
            ("/sys/fs/cgroup/pids/box/pids.max", "50\n"),
        ];
        let read =
            |asked: &Path| files.iter().find(|(file, _)| asked == Path::new(file)).map(|(_, text)| (*text).to_owned());
        assert_eq!(room_in_group("0::/system.slice/holdfast.service\n", read), Some(40));
        assert_eq!(room_in_group("3:pids:/box\n2:memory:/box\n", read), Some(50));
        assert_eq!(room_in_group("0::/\n", read), None);
    }

    #[test]
    fn threads_that_are_needed_now_and_then_are_a_warning_and_those_at_rest_a_fault() {
        let threads = app::Threads { at_rest: 18, at_most: 30 };
        for (group, user, level) in [
            (None, None, Level::Ok),
            (Some(30), Some(63_432), Level::Ok),
            (Some(29), None, Level::Warning),
            (Some(4096), Some(20), Level::Warning),
            (Some(17), Some(20), Level::Fault),
        ] {
            assert_eq!(judge(&threads, group, user).level, level, "{group:?} {user:?}");
        }
    }
}
