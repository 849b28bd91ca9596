//! A connection with the statements that are prepared on it.

use std::collections::HashMap;

use postgres::types::{ToSql, Type};
use postgres::{Client, NoTls, Row, Statement};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::queries::Query;
use crate::config::DatabaseUrl;

/// Makes sessions.
pub(super) struct SessionManager {
    connections: PostgresConnectionManager<NoTls>,
    prepares: bool,
}

impl SessionManager {
    pub(super) fn new(url: &DatabaseUrl, prepares: bool) -> Self {
        Self { connections: PostgresConnectionManager::new(url.options.clone(), NoTls), prepares }
    }
}

impl ManageConnection for SessionManager {
    type Connection = Session;
    type Error = postgres::Error;

    fn connect(&self) -> Result<Session, postgres::Error> {
        let client = self.connections.connect()?;
        Ok(Session { client, prepared: self.prepares.then(HashMap::new) })
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), postgres::Error> {
        self.connections.is_valid(&mut session.client)
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        self.connections.has_broken(&mut session.client)
    }
}

/// A connection with the statements that are prepared on it.
pub(super) struct Session {
    client: Client,
    /// By their text; `None` when statements are sent unnamed.
    prepared: Option<HashMap<&'static str, Statement>>,
}

impl Session {
    /// Runs a statement in one round trip, once it is prepared.
    pub(super) fn query(
        &mut self,
        query: &'static Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let Some(prepared) = &mut self.prepared else {
            let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                parameters.iter().copied().zip(query.types.iter().cloned()).collect();
            return self.client.query_typed(query.text, &typed);
        };
        if let Some(statement) = prepared.get(query.text) {
            return self.client.query(statement, parameters);
        }
        let statement = self.client.prepare_typed(query.text, query.types)?;
        prepared.insert(query.text, statement.clone());
        self.client.query(&statement, parameters)
    }
}
