//! What this program says that it is.

/// Its version with the commit that it was built from and that commit's date, such as `0.1.0 (12407c9ab123 2026-11-25)`: `-dirty`
/// after the commit where the sources differed from it, `unknown commit` where they came without their repository.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("HOLDFAST_BUILD"), ")");
