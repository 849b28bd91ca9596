//! What SQLite's errors mean for whoever asked.

use rusqlite::{Error, ErrorCode};

use crate::store::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let (code, text) = match error {
            Error::SqliteFailure(failure, text) => (failure.code, text.unwrap_or_else(|| failure.to_string())),
            // Its own text would quote the statement.
            Error::SqlInputError { error, msg, .. } => (error.code, msg),
            other => return StoreError::Failed(other.to_string()),
        };
        match code {
            ErrorCode::DiskFull => StoreError::DiskFull,
            // Nothing but a close interrupts.
            ErrorCode::OperationInterrupted => StoreError::Closing,
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed => StoreError::Unavailable(text),
            _ => StoreError::Failed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::store::StoreError;

    #[test]
    fn a_failure_never_quotes_the_statement() {
        let connection = Connection::open_in_memory().expect("memory is there");
        for statement in
            ["SELECT 'secret' FROM nowhere", "SELEKT 'secret'", "SELECT abs(-9223372036854775808), 'secret'"]
        {
            let error = connection.query_row(statement, [], |_| Ok(())).expect_err("it cannot be run");
            let StoreError::Failed(text) = StoreError::from(error) else { panic!("it will never succeed") };
            assert!(!text.contains("secret") && !text.is_empty(), "{text}");
        }
    }
}
