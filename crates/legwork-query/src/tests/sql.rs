//! Statements from end to end.

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use serde_json::json;

use super::fake::Fake;
use super::{engine, options};
use crate::{Engine, QueryError, Session, SqlEngine};

pub(super) async fn rows_of(session: &dyn Session, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
    let result = session.query(sql).await?;
    result.batches.try_collect().await
}

/// The answer as a table, one row a line.
pub(super) async fn table_of(session: &dyn Session, sql: &str) -> String {
    let result = session.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<RecordBatch> = result.batches.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let lines = text.lines().filter(|line| line.starts_with('|')).skip(1);
    lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(","))
        .collect::<Vec<_>>()
        .join("\n")
}

pub(super) fn calls() -> Fake {
    let call = |rep: &str, minute: u32, n: i64| {
        json!({"rep_id": rep, "window_start": format!("2026-03-02T10:{minute:02}:00Z"),
               "window_end": format!("2026-03-02T10:{:02}:00Z", minute + 5), "n_calls": n, "talk_s": 1.5})
    };
    Fake::default()
        .lane("rep_calls", json!([call("ann", 0, 1), call("ann", 5, 2), call("bob", 0, 3)]))
        .lane("rep_calls", json!([call("ann", 0, 10)]))
}

#[tokio::test]
async fn lanes_are_summed_and_still_there() {
    let engine = engine(calls());
    let session = engine.session();
    let sql = "SELECT rep_id, date_part('minute', window_start)::int, n_calls, talk_s FROM rep_calls ORDER BY 1, 2";
    assert_eq!(table_of(session.as_ref(), sql).await, "ann,0,11,3.0\nann,5,2,1.5\nbob,0,3,1.5");
    assert_eq!(table_of(session.as_ref(), "SELECT count(*), sum(n_calls) FROM lanes.rep_calls").await, "4,16");
    assert_eq!(table_of(session.as_ref(), "SELECT n_calls FROM lanes.rep_calls LIMIT 1").await.lines().count(), 1);
}

#[tokio::test]
async fn every_table_answers_even_where_no_lane_fills_it() {
    let engine = SqlEngine::new(std::sync::Arc::new(Fake::default()), options()).unwrap();
    let session = engine.session();
    for table in engine.tables().await.unwrap() {
        // The base currency is always there.
        let n_expected = usize::from(table.name == "fx_spans");
        let rows = rows_of(session.as_ref(), &format!("SELECT * FROM {}", table.name)).await;
        assert_eq!(
            rows.unwrap_or_else(|e| panic!("{}: {e}", table.name)).iter().map(RecordBatch::num_rows).sum::<usize>(),
            n_expected
        );
        assert!(!table.doc.is_empty() && !table.doc.contains('\n'), "{}", table.name);
        assert!(table.key.iter().all(|key| table.schema.index_of(key).is_ok()), "{}", table.name);
    }
}
