//! SQL over live tables and the lake: catalog, views, functions, limits.
//!
//! What lives here: how a statement is checked, planned, limited and run over [`legwork_types::LiveTables`] and
//! [`History`]. What does not: wires,
//! authentication, writing of any kind. Invariant: no statement reads a file, opens an address or changes anything but its session.

mod arguments;
mod calendar;
mod calendars;
mod catalog;
mod check;
mod checked;
mod clock;
mod columns;
mod depth;
mod dialect;
mod engine;
mod error;
mod executor;
mod functions;
mod held;
mod intervals;
mod lake;
mod meaning;
mod notices;
mod options;
mod pin;
mod pushdown;
mod reads;
mod scan;
mod session;
mod settings;
mod sql_engine;
mod stream;
mod table;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod views;

pub use check::{Checked, check};
pub use depth::check_depth;
pub use dialect::Postgres;
pub use engine::{Engine, ErrorKind, QueryError, QueryResult, Session, TableInfo};
pub use lake::{History, HistoryError, LakeDay, PinnedTable};
pub use options::{NowSource, QueryOptions, WeekStart};
pub use session::SqlSession;
pub use sql_engine::SqlEngine;
