//! Holdfast with the engine `noop`.

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_peers::noop::serve()
}
