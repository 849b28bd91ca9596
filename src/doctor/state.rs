//! The state directory and the disk below it.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::Patient;
use super::finding::{Finding, size};

const SUBJECT: &str = "state directory";
const DISK: &str = "disk";

/// Less than this and the next answers and indexes do not fit.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Less than this is a matter of days.
const FREE_BYTES_ENOUGH: u64 = 1 << 30;
/// A disk on which everything cannot be kept for ever: 10,000 analyses with answers of 1 MiB fill it.
const SMALL_BYTES: u64 = 10 << 30;

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let directory = &patient.config.state_directory;
    let shown = directory.display();
    let advice = "set STATE_DIRECTORY to a directory that the server's user may write";
    let metadata = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => return vec![Finding::fault(SUBJECT, format!("{shown} is no directory"), advice)],
        Err(error) if error.kind() == ErrorKind::NotFound => return vec![absent(directory, advice)],
        Err(error) => return vec![Finding::fault(SUBJECT, format!("{shown} cannot be looked at: {error}"), advice)],
    };
    if let Err(error) = accessat(CWD, directory, Access::WRITE_OK | Access::READ_OK | Access::EXEC_OK, AtFlags::EACCESS)
    {
        let why = std::io::Error::from(error);
        return vec![Finding::fault(SUBJECT, format!("{shown} cannot be written: {why}"), advice)];
    }
    // That a server has it shows what its user may do.
    let another = patient.server.is_none().then(|| owned_by_another(directory, &metadata)).flatten();
    let mut findings: Vec<Finding> = open_to_others(directory, &metadata).into_iter().chain(another).collect();
    if findings.is_empty() {
        let used = match &patient.server {
            Some(server) => format!(", and is in use by the server with process id {}", server.id()),
            None => ", and no server uses it".into(),
        };
        findings.push(Finding::ok(SUBJECT, format!("{shown} can be written{used}")));
    }
    findings
}

fn absent(directory: &Path, advice: &str) -> Finding {
    let shown = directory.display();
    let above = existing(directory);
    match accessat(CWD, &above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Finding::ok(SUBJECT, format!("{shown} does not exist yet; the first start makes it")),
        Err(error) => {
            let why = std::io::Error::from(error);
            Finding::fault(
                SUBJECT,
                format!("{shown} does not exist and cannot be made in {}: {why}", above.display()),
                advice,
            )
        }
    }
}

fn open_to_others(directory: &Path, metadata: &Metadata) -> Option<Finding> {
    let mode = metadata.permissions().mode() & 0o7777;
    let said = format!("{} is open to others (mode {mode:04o}): questions and answers are in it", directory.display());
    (mode & 0o077 != 0).then(|| Finding::warning(SUBJECT, said, format!("chmod 700 {}", directory.display())))
}

/// Whoever looks with all rights does not see what the server's user would.
fn owned_by_another(directory: &Path, metadata: &Metadata) -> Option<Finding> {
    let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let said = format!("{} belongs to the user with id {owner}, and this one has id {me}", directory.display());
    (owner != me).then(|| Finding::warning(SUBJECT, said, "what its user may do is not seen from here; all else is"))
}

pub(super) fn look_at_disk(patient: &Patient) -> Vec<Finding> {
    let directory = existing(&patient.config.state_directory);
    let shown = directory.display();
    let disk = match statvfs(&directory) {
        Ok(disk) => disk,
        Err(error) => {
            let why = std::io::Error::from(error);
            return vec![Finding::fault(
                DISK,
                format!("nobody can say how full the disk of {shown} is: {why}"),
                "look at the disk",
            )];
        }
    };
    let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let room = format!("{} of {} are free below {shown}", size(free), size(total));
    let more = "make room, or move STATE_DIRECTORY to a larger disk";
    if disk.f_files > 0 && disk.f_favail == 0 {
        return vec![Finding::fault(
            DISK,
            format!("no file can be made any more below {shown}"),
            "remove files that nobody needs",
        )];
    }
    if free < FREE_BYTES_MIN {
        return vec![Finding::fault(DISK, format!("only {room}"), more)];
    }
    let is_store = patient.config.database_url.is_none();
    let mut findings = Vec::new();
    if free < FREE_BYTES_ENOUGH || free < total / 20 {
        findings.push(Finding::warning(DISK, format!("only {room}"), more));
    }
    if is_store && patient.config.retention.is_none() && total < SMALL_BYTES {
        let said = format!("every analysis is kept for ever, on a disk of {}", size(total));
        findings.push(Finding::warning(DISK, said, "set RETENTION_DAYS"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(DISK, room));
    }
    findings
}

/// The directory, or where it would be made.
fn existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}
