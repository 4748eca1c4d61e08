//! Errors as PostgreSQL clients read them.

use legwork_query::{ErrorKind, QueryError};
use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::PgWireBackendMessage;

/// An error of the statement with its SQLSTATE.
pub(crate) fn error(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), sqlstate.to_owned(), message.into())))
}

/// What a client should know beside the rows.
pub(crate) fn warning(message: impl Into<String>) -> PgWireBackendMessage {
    // 01000: a warning of no particular class.
    let info = ErrorInfo::new("WARNING".to_owned(), "01000".to_owned(), message.into());
    PgWireBackendMessage::NoticeResponse(info.into())
}

/// An error that ends the connection.
pub(crate) fn fatal(sqlstate: &str, message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new("FATAL".to_owned(), sqlstate.to_owned(), message.into())
}

/// The engine's error; mistakes of ours are logged.
pub(crate) fn from_query(query_error: QueryError) -> PgWireError {
    if query_error.kind == ErrorKind::Bug {
        tracing::error!(sqlstate = query_error.sqlstate, message = %query_error.message, "a query failed by our mistake");
    }
    error(query_error.sqlstate, query_error.message)
}

/// Not supported, and what instead.
pub(crate) fn unsupported(message: impl Into<String>) -> PgWireError {
    error("0A000", message)
}
