//! What the log says of a panic: where it was, and no more than the program itself says about it.

use std::ffi::OsStr;
use std::panic::{self, PanicHookInfo};

use prometheus_client::metrics::counter::Counter;

use crate::event;

/// Has panics counted, and logged as events. Whoever sets `RUST_BACKTRACE` gets Rust's own report in their stead: it names the
/// paths of the machine on which the program was built, and what it says may hold anything that the program was working on.
pub(super) fn log(count: Counter) {
    let report = if is_report_wanted(std::env::var_os("RUST_BACKTRACE").as_deref()) {
        panic::take_hook()
    } else {
        Box::new(tell)
    };
    panic::set_hook(Box::new(move |panic| {
        count.inc();
        report(panic);
    }));
}

/// Whether this value of `RUST_BACKTRACE` asks for a report; `0` is how Rust is told not to make one.
fn is_report_wanted(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

fn tell(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(|location| place(location.file(), location.line())).unwrap_or_default();
    // A message that is put together may hold a prompt or a statement; one that is written in the source holds nothing.
    let message = panic.payload().downcast_ref::<&'static str>().copied();
    tracing::error!(event = event::CODE_PANICKED, place, message);
}

/// The module and the line, for ours, a library's and Rust's own: `runner::worker:207`, `r2d2-0.8.10::lib:12`.
fn place(file: &str, line: u32) -> String {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let (before, module) = file.rsplit_once("src/").unwrap_or(("", file));
    let library = before.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let parts = [library].into_iter().chain(module.split('/')).filter(|part| !part.is_empty());
    format!("{}:{}", parts.collect::<Vec<_>>().join("::"), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_made_only_for_whoever_asks_for_it() {
        for (value, expected) in
            [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true), (Some("full"), true)]
        {
            assert_eq!(is_report_wanted(value.map(OsStr::new)), expected, "{value:?}");
        }
    }

    #[test]
    fn a_place_is_a_module_and_a_line_and_no_path() {
        for (file, expected) in [
            ("src/runner/worker.rs", "runner::worker:7"),
            ("/opt/cargo/registry/src/index-1a2b/r2d2-0.8.10/src/lib.rs", "r2d2-0.8.10::lib:7"),
            ("/rustc/1a2b/library/core/src/option.rs", "core::option:7"),
            ("tests/util/drill.rs", "tests::util::drill:7"),
        ] {
            assert_eq!(place(file, 7), expected);
        }
    }
}
