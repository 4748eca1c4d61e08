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

/// Answers as PostgreSQL gives them: a month is 30 days, a day is 24 hours.
#[tokio::test]
async fn spans_of_time_are_in_order() {
    let session = engine(calls()).session();
    let spans = "(VALUES (interval '1 day'), (interval '25 hours'), (interval '20 hours'), (interval '1 month'), (interval '29 days')) AS t (i)";
    let ended = "timestamptz '2026-03-03T10:00:00Z' - window_start";
    for (sql, expected) in [
        (format!("SELECT count(*) FROM rep_calls WHERE {ended} < interval '1 day'"), "1"),
        (format!("SELECT count(*) FROM rep_calls WHERE {ended} >= interval '1 day'"), "2"),
        (format!("SELECT count(*) FROM rep_calls WHERE {ended} <= interval '1 day'"), "3"),
        (format!("SELECT count(*) FROM rep_calls WHERE {ended} NOT BETWEEN interval '1 hour' AND interval '1 day'"), "0"),
        (format!("SELECT count(*) FROM rep_calls WHERE {ended} IN (interval '24 hours')"), "2"),
        ("SELECT interval '24 hours' = interval '1 day', interval '30 days' = interval '1 month', interval '-1 day' < interval '0'".to_owned(), "true,true,true"),
        ("SELECT interval '1 day' IS DISTINCT FROM interval '24 hours', NULL::interval < interval '1 day'".to_owned(), "false,"),
        (format!("SELECT extract(epoch FROM i) / 3600 FROM {spans} ORDER BY i"), "20.0\n24.0\n25.0\n696.0\n720.0"),
        (format!("SELECT extract(epoch FROM i) / 3600 FROM {spans} ORDER BY i DESC LIMIT 2"), "720.0\n696.0"),
        (format!("SELECT max(rank) FROM (SELECT rank() OVER (ORDER BY {ended}, rep_id, n_calls) AS rank FROM rep_calls)"), "3"),
        ("SELECT sum(rank) FROM (SELECT rank() OVER (ORDER BY window_end - window_start) AS rank FROM rep_calls)".to_owned(), "3"),
        ("SELECT interval '1 day' * 2 = interval '2 days', 2.5 * interval '1 hour' = interval '150 minutes', interval '1 month' / 4 = interval '7 days 12 hours'".to_owned(), "true,true,true"),
        ("SELECT extract(epoch FROM interval '1 month 3 days 10 hours' * 1.5), extract(epoch FROM (timestamptz '2026-01-02' - timestamptz '2026-01-01') / 3)".to_owned(), "4330800.0,28800.0"),
        ("SELECT timestamptz '2026-03-01' - 3 * interval '1 month' = timestamptz '2025-12-01', NULL::bigint * interval '1 day'".to_owned(), "true,"),
        ("SELECT max(window_end - n_calls * interval '1 minute') = timestamptz '2026-03-02T10:08:00Z' FROM rep_calls".to_owned(), "true"),
        ("SELECT variance(n) = var_samp(n), every(n > 0) FROM (VALUES (1), (2)) AS t (n)".to_owned(), "true,true"),
    ] {
        assert_eq!(table_of(session.as_ref(), &sql).await, expected, "{sql}");
    }
    for (sql, sqlstate) in [("SELECT interval '1 day' / 0", "22012"), ("SELECT interval '1 day' * 1e12", "22003")] {
        assert_eq!(rows_of(session.as_ref(), sql).await.unwrap_err().sqlstate, sqlstate, "{sql}");
    }
}

#[tokio::test]
async fn names_mean_the_columns_that_they_mean_in_postgresql() {
    let session = engine(calls()).session();
    let (a, b) = ("(VALUES (1, 'a'), (2, 'x')) AS a (k, v)", "(VALUES (1, 'b'), (2, 'y')) AS b (k, w)");
    for (sql, expected) in [
        (format!("SELECT k, v, w FROM {a} JOIN {b} USING (k) WHERE k = 1"), "1,a,b"),
        (format!("SELECT k, v, w FROM {a} LEFT JOIN {b} USING (K) WHERE k = 1 AND w = 'b' AND k IN (SELECT k FROM {b})"), "1,a,b"),
        ("SELECT count(*) FROM rep_calls c JOIN rep_calls d USING (rep_id, window_start) WHERE rep_id = 'bob' AND d.window_start = c.window_start".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls JOIN rep_calls AS d USING (rep_id) WHERE rep_id = 'bob'".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls WHERE window_end >= ALL (SELECT window_end FROM rep_calls)".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls WHERE window_end > ANY (SELECT window_end FROM rep_calls)".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls WHERE window_end + interval '1 hour' - interval '1 hour' >= ALL (SELECT window_end FROM rep_calls)".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls AS a WHERE a.n_calls >= ALL (SELECT b.n_calls FROM rep_calls AS b WHERE b.rep_id = a.rep_id)".to_owned(), "2"),
        ("SELECT count(*) FROM rep_calls WHERE window_end = ANY (SELECT max(window_end) FROM rep_calls)".to_owned(), "1"),
        ("SELECT count(*) FROM rep_calls AS a WHERE a.window_end >= ALL (SELECT b.window_end FROM rep_calls AS b)".to_owned(), "1"),
        ("SELECT count(*) FROM (VALUES (true, false), (true, true), (false, false)) AS t (x, y) WHERE x IS NOT DISTINCT FROM true AND y".to_owned(), "1"),
        ("SELECT false IS NOT DISTINCT FROM false AND false, NOT false IS DISTINCT FROM false AND false, 1 IS DISTINCT FROM 1 + 1 OR false".to_owned(), "false,false,true"),
        ("SELECT NULL IS DISTINCT FROM 1, (NULL IS NOT DISTINCT FROM NULL) = true".to_owned(), "true,true"),
    ] {
        assert_eq!(table_of(session.as_ref(), &sql).await, expected, "{sql}");
    }
    for sql in [
        format!("SELECT * FROM {a} FULL JOIN {b} USING (k)"),
        format!("EXPLAIN SELECT * FROM {a} RIGHT JOIN {b} USING (k)"),
        format!("SELECT 1 WHERE 1 IN (SELECT k FROM {a} NATURAL FULL JOIN {b})"),
    ] {
        let error = rows_of(session.as_ref(), &sql).await.unwrap_err();
        assert!(error.sqlstate == "0A000" && error.message.contains("coalesce"), "{sql}: {error}");
    }
    let right = format!("SELECT b.k, v FROM {a} RIGHT JOIN {b} ON a.k = b.k AND a.k = 1 ORDER BY 1");
    assert_eq!(table_of(session.as_ref(), &right).await, "1,a\n2,");
}
