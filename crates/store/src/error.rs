//! What can go wrong with the database.

use drover_common::server::UnknownName;

/// A failed statement, or a row that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL or the way to it failed.
    #[error("database: {query} failed")]
    Query {
        /// The function of this crate.
        query: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds something that this release does not know: written by a newer one, or by hand.
    #[error("database: {table} row {row} holds nonsense")]
    BadRow {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
        /// The cause.
        #[source]
        source: BadValue,
    },
    /// The code asked for an edge that the table of statuses does not have: a defect.
    #[error("migration {id} is {from}: {event} is no way on from there")]
    IllegalEdge {
        /// The migration.
        id: drover_common::ids::MigrationId,
        /// Where it is.
        from: drover_common::migration::MigrationStatus,
        /// What was tried.
        event: String,
    },
    /// The schema could not be brought up to date.
    #[error("database: the schema could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Why a stored value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadValue {
    /// A name out of a fixed set.
    #[error(transparent)]
    Name(#[from] UnknownName),
    /// A host name.
    #[error(transparent)]
    Host(#[from] drover_common::ids::BadHostName),
    /// A JSON document.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A power state's number.
    #[error("{0} is no power state")]
    PowerState(i16),
}

impl StoreError {
    /// For `map_err` on a statement.
    pub fn query(query: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { query, source }
    }

    /// For `map_err` on reading a row.
    pub fn row(table: &'static str, row: impl ToString) -> impl FnOnce(BadValue) -> Self {
        move |source| Self::BadRow { table, row: row.to_string(), source }
    }

    /// Whether the database cannot be reached just now, rather than having said no.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Query { source, .. } => match source {
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
                // It ends, starts or has no place left (SQLSTATE classes 57P and 53).
                sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("53")),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether a regular expression in a filter was none to PostgreSQL (SQLSTATE 2201B).
    pub fn is_bad_regular_expression(&self) -> bool {
        matches!(self, Self::Query { source: sqlx::Error::Database(error), .. } if error.code().as_deref() == Some("2201B"))
    }

    /// The name of the constraint that a statement broke, if that is what happened.
    pub fn broken_constraint(&self) -> Option<&str> {
        match self {
            Self::Query { source: sqlx::Error::Database(error), .. } => error.constraint(),
            _ => None,
        }
    }
}
