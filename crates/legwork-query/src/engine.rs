//! What the servers and the command line ask SQL of. Methods return boxed futures, so that their callers need not prove DataFusion's
//! futures `Send` again.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Answers SQL over the live tables.
pub trait Engine: Send + Sync + Debug {
    /// A session of its own: settings made with `SET` stay in it.
    fn session(&self) -> Arc<dyn Session>;

    /// Tables and views with their columns.
    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableInfo>, QueryError>>;
}

/// One client's session.
pub trait Session: Send + Sync + Debug {
    /// Checks, plans and starts a query. The deadline, the memory and the row and byte caps hold until the stream has ended.
    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<QueryResult, QueryError>>;

    /// DataFusion's context of this session, for protocols that plan by themselves. Its catalog is read-only and has no paths;
    /// statements must have passed the allow-list before they are handed to it.
    fn context(&self) -> &SessionContext;
}

/// A running query.
pub struct QueryResult {
    /// Columns.
    pub schema: SchemaRef,
    /// What the client must know beside the rows, such as whose rows are not among them.
    pub notices: Vec<String>,
    /// Rows.
    pub batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
}

impl Debug for QueryResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryResult")
            .field("schema", &self.schema)
            .field("notices", &self.notices)
            .finish_non_exhaustive()
    }
}

/// A table or view as clients see it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Name.
    pub name: String,
    /// What a row is.
    pub doc: String,
    /// Whether it is a view.
    pub is_view: bool,
    /// Columns.
    pub schema: SchemaRef,
    /// Columns that identify a row; empty when none do.
    pub key: Vec<String>,
}

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The statement is wrong: syntax, unknown names, types.
    Statement,
    /// The statement is not allowed here.
    Forbidden,
    /// A limit was reached: rows, bytes, memory, time, concurrency.
    Limit,
    /// It may work later.
    Retry,
    /// Our mistake.
    Bug,
}

/// Why a query failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// What to do.
    pub kind: ErrorKind,
    /// SQLSTATE, five characters.
    pub sqlstate: &'static str,
    /// What was expected, what was found, the way out.
    pub message: String,
}
