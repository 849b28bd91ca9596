//! The journal of systemd: whether it reads standard error, and how a line tells it how grave it is (sd-daemon(3)).

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::fstat;
use tracing::Level;

/// The variable by which systemd tells a service what it has connected it with.
const STREAM: &str = "JOURNAL_STREAM";

/// Whether the journal reads standard error, and nobody has put anything else in its place since systemd connected it.
pub(super) fn reads_standard_error() -> bool {
    std::env::var_os(STREAM).is_some_and(|stream| is_stream(&stream, io::stderr()))
}

/// Whether `stream` (`DEVICE:INODE`) is what this is open for.
fn is_stream(stream: &OsStr, out: impl AsFd) -> bool {
    let Some((device, inode)) = stream.to_str().and_then(|text| text.split_once(':')) else { return false };
    fstat(out).is_ok_and(|found| device.parse() == Ok(found.st_dev) && inode.parse() == Ok(found.st_ino))
}

/// What a line of this level begins with for the journal, which takes it off and files the line under it.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;

    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let (_, out) = pipe().unwrap();
        let found = fstat(&out).unwrap();
        let (device, inode) = (found.st_dev, found.st_ino);
        assert!(is_stream(OsStr::new(&format!("{device}:{inode}")), &out));
        for wrong in
            [format!("{device}:{}", inode + 1), format!("{}:{inode}", device + 1), inode.to_string(), ":".into()]
        {
            assert!(!is_stream(OsStr::new(&wrong), &out), "{wrong}");
        }
    }
}
