//! SQL over live tables: catalog, views, functions, limits.

mod engine;

pub use engine::{Engine, ErrorKind, QueryError, QueryResult, Session, TableInfo};
