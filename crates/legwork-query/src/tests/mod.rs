//! Tests over hand-made tables.

mod fake;
mod forbidden;
mod functions;
mod lake;
mod lake_measure;
mod lake_model;
mod lake_property;
mod limits;
mod missing;
mod sql;
mod views_crm;
mod views_field;

use std::sync::Arc;

use fake::Fake;

use crate::{NowSource, QueryOptions, SqlEngine};

/// 2026-03-02T12:00:00Z, a Monday.
const NOW_US: i64 = 1_772_452_800_000_000;

fn options() -> QueryOptions {
    QueryOptions { now: NowSource::Fixed(NOW_US), target_partitions: Some(2), ..QueryOptions::default() }
}

fn engine(fake: Fake) -> SqlEngine {
    SqlEngine::new(Arc::new(fake), options()).unwrap()
}
