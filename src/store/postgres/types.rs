//! How the domain's types travel: ids as `uuid`, points in time as `timestamptz`, names as text.

use std::error::Error;
use std::time::{Duration, SystemTime};

use postgres::types::{FromSql, Type, accepts};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::domain::{ClaimToken, EventKind, InstanceId, RunId, Status, ThreadKey};

type Read<T> = Result<T, Box<dyn Error + Sync + Send>>;

/// Milliseconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH_MS: i64 = 946_684_800_000;

macro_rules! ids {
    ($($id:ident),+) => {
        $(impl<'a> FromSql<'a> for $id {
            fn from_sql(ty: &Type, raw: &'a [u8]) -> Read<Self> {
                Ok($id::from_bytes(Uuid::from_sql(ty, raw)?.into_bytes()))
            }

            accepts!(UUID);
        }

        impl From<&$id> for Uuid {
            fn from(id: &$id) -> Uuid {
                Uuid::from_bytes(*id.as_bytes())
            }
        })+
    };
}

ids!(RunId, ThreadKey, ClaimToken, InstanceId);

macro_rules! names {
    ($($named:ident),+) => {
        $(impl<'a> FromSql<'a> for $named {
            fn from_sql(ty: &Type, raw: &'a [u8]) -> Read<Self> {
                $named::parse(<&str>::from_sql(ty, raw)?).ok_or_else(|| "not a name that is known".into())
            }

            accepts!(TEXT);
        })+
    };
}

names!(Status, EventKind);

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Read<Self> {
        let micros = i64::from_sql(&Type::INT8, raw)?;
        Ok(Timestamp(micros.div_euclid(1000) + EPOCH_MS))
    }

    accepts!(TIMESTAMPTZ);
}

/// A point in time as a parameter; `None` where a `SystemTime` does not reach.
pub(super) fn system_time(at: Timestamp) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(at.0).ok()?))
}

/// A number or a limit as a parameter; none of ours comes near the largest.
pub(super) fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use postgres::types::{FromSql, Type};

    use super::Timestamp;

    #[test]
    fn a_point_in_time_is_read_to_the_millisecond() {
        let read = |micros: i64| Timestamp::from_sql(&Type::TIMESTAMPTZ, &micros.to_be_bytes()).expect("eight bytes");
        assert_eq!(read(0), Timestamp(946_684_800_000));
        assert_eq!(read(-1_000), Timestamp(946_684_799_999));
        assert_eq!(read(753_315_200_007_000), Timestamp(1_700_000_000_007));
    }
}
