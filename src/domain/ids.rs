//! Identifiers. Each has its own type, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])+ $name:ident, $make:expr) => {
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh one.
            #[allow(clippy::new_without_default, reason = "a default would hide that each call gives another id")]
            pub fn new() -> Self {
                Self($make)
            }

            /// The sixteen bytes, as they are stored.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id that is stored as these sixteen bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": "uuid"})
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}

id! {
    /// A run's id: a UUIDv7, so ids made by one process sort by the time of their making.
    RunId, Uuid::now_v7()
}
id! {
    /// The key of one user's thread; it is the `thread_id` of the checkpoint tables.
    ThreadKey, Uuid::now_v7()
}
id! {
    /// Proves the claim of one worker on one run: random, new with every claim.
    ClaimToken, Uuid::new_v4()
}
id! {
    /// The server that holds claims: kept in the state directory, so that a restarted server knows its own.
    InstanceId, Uuid::new_v4()
}

/// A fresh checkpoint id: a UUIDv6 as text, as LangGraph makes them, so that both writers' checkpoints sort by age.
pub fn new_checkpoint_id() -> String {
    // The node stands for no network card: RFC 9562 section 6.10 asks for the multicast bit in a made-up one.
    const NODE: [u8; 6] = [0x01, b'h', b'o', b'l', b'd', b'f'];
    Uuid::now_v6(&NODE).as_hyphenated().to_string()
}

#[cfg(test)]
mod tests {
    use super::{RunId, new_checkpoint_id};

    #[test]
    fn ids_made_one_after_another_sort_in_that_order() {
        let checkpoints: Vec<_> = (0..1000).map(|_| new_checkpoint_id()).collect();
        assert!(checkpoints.is_sorted_by(|a, b| a < b));
        let runs: Vec<_> = (0..1000).map(|_| RunId::new()).collect();
        assert!(runs.is_sorted_by(|a, b| a < b));
    }
}
