//! Holdfast with the engine `noop` on jemalloc, which answers C's `malloc` too, and so what SQLite allocates.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    holdfast_peers::noop::serve()
}
