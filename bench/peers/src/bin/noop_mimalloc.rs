//! Holdfast with the engine `noop` on mimalloc, which answers C's `malloc` too, and so what SQLite allocates.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    holdfast_peers::noop::serve()
}
