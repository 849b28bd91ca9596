//! Every statement by name, with the operation that it is and the types of its parameters.

use postgres::types::Type;

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    /// What it is borrowed a connection for.
    pub(super) operation: &'static str,
    /// Its text.
    pub(super) text: &'static str,
    /// The types of its parameters, in order; a statement that is not prepared has to name them.
    pub(super) types: &'static [Type],
}

macro_rules! queries {
    ($($(#[doc = $doc:expr])* $name:ident: $operation:literal ($($type:ident),*) = $($part:expr),+;)+) => {
        $($(#[doc = $doc])* pub(super) const $name: Query = Query {
            operation: $operation,
            text: concat!($($part),+),
            types: &[$(Type::$type),*],
        };)+

        #[cfg(test)]
        const ALL: &[(&str, &Query)] = &[$((stringify!($name), &$name)),+];
    };
}

queries! {
    // Health.
    READ_PROBE: "store.probe" () = "SELECT current_setting('server_version')";
}
