//! PostgreSQL wire, HTTP, metrics
