//! Files that hold secrets: who can read them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Patient;
use super::finding::Finding;
use crate::auth;

const SUBJECT: &str = "secrets";
/// What is nobody's business but the server's.
const SECRETS: [&str; 2] = ["JWT_SECRET", "DATABASE_URL"];

/// Bits of a file's mode.
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let secret = patient.effective.iter().filter(|variable| SECRETS.contains(&variable.name));
    let mut files: Vec<&str> = secret
        .filter_map(|variable| match &*variable.origin {
            ".env" => Some(".env"),
            origin => origin.strip_prefix("file "),
        })
        .collect();
    files.dedup();
    let own = patient.config.state_directory.join(auth::Secret::FILE);
    let own = own.to_str().filter(|_| patient.config.jwt_secret.is_none() && own.exists());
    files.extend(own);
    let open: Vec<Finding> = files.iter().filter_map(|file| judge(file, Some(*file) == own)).collect();
    match (open.is_empty(), files.is_empty()) {
        (false, _) => open,
        (true, true) => Vec::new(),
        (true, false) => vec![Finding::ok(SUBJECT, format!("{} can be read by nobody else", files.join(", ")))],
    }
}

/// `None` if the file is as it should be, or nobody can say; with the server's own, a start is more strict than with others'.
fn judge(file: &str, is_own: bool) -> Option<Finding> {
    let mode = fs::metadata(Path::new(file)).ok()?.permissions().mode() & 0o7777;
    let advice = format!("chmod 600 {file}");
    let is_open_to = |whom: u32| mode & whom != 0;
    // What systemd passes as a credential is its own user's and root's, whatever its mode says of the group.
    match (is_own && is_open_to(GROUP | OTHERS), is_open_to(OTHERS)) {
        (true, _) => Some(Finding::fault(
            SUBJECT,
            format!("{file} is open to others (mode {mode:04o}): a start refuses it"),
            advice,
        )),
        (false, true) => {
            Some(Finding::warning(SUBJECT, format!("{file} is open to everybody (mode {mode:04o})"), advice))
        }
        (false, false) => None,
    }
}
