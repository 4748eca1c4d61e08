//! How Legwork is asked: the PostgreSQL wire protocol, HTTP, and business metrics as SQL.
//!
//! What lives here: protocols, formats, limits of connections. What does not: SQL itself (`legwork-query`), the pipeline, authentication.
//! Everything is asked of an [`legwork_query::Engine`], which holds the allow-list and the limits of queries. Nothing here authenticates:
//! bind loopback addresses only ([`postgres::require_loopback`]).

pub mod http;
pub mod metrics;
pub mod postgres;
mod ready;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod testing;

pub use ready::{Readiness, ReadinessReport};
