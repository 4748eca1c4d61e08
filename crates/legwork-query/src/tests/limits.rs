//! Time, memory, rows, bytes, concurrency; settings; names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;

use super::fake::Fake;
use super::sql::{calls, rows_of, table_of};
use super::{engine, options};
use crate::{Engine, ErrorKind, NowSource, QueryError, QueryOptions, SqlEngine};

fn limited(options: QueryOptions) -> SqlEngine {
    SqlEngine::new(Arc::new(calls()), options).unwrap()
}

async fn failure(engine: &SqlEngine, sql: &str) -> QueryError {
    rows_of(engine.session().as_ref(), sql).await.unwrap_err()
}

#[tokio::test]
async fn rows_bytes_and_length_are_bounded() {
    let few = limited(QueryOptions { rows_max: 3, ..options() });
    assert_eq!(failure(&few, "SELECT * FROM generate_series(1, 4)").await.sqlstate, "54000");
    assert_eq!(table_of(few.session().as_ref(), "SELECT count(*) FROM generate_series(1, 1000000)").await, "1000000");
    let small = limited(QueryOptions { result_bytes_max: 1_000, ..options() });
    assert_eq!(failure(&small, "SELECT * FROM generate_series(1, 1000)").await.sqlstate, "54000");
    let short = limited(QueryOptions { sql_bytes_max: 20, ..options() });
    assert_eq!(failure(&short, "SELECT 1 -- and much more").await.sqlstate, "54000");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_per_query() {
    let engine = limited(QueryOptions { memory_bytes_max: 1 << 20, ..options() });
    let error =
        failure(&engine, "SELECT value, count(*) FROM generate_series(1, 3000000) GROUP BY value ORDER BY 2").await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Limit, "53200"), "{error}");
    assert_eq!(table_of(engine.session().as_ref(), "SELECT sum(n_calls) FROM rep_calls").await, "16");
}

/// Distinct values cost what they are long, whatever their type and however many groups they are in.
#[tokio::test(flavor = "multi_thread")]
async fn distinct_values_are_counted_in_little_memory() {
    let engine = limited(QueryOptions { memory_bytes_max: 64 << 20, ..options() });
    let rows = "SELECT value AS n, value % 30000 AS g, value % 999 AS m, CASE WHEN value % 10 > 0 THEN 'text ' || value % 90000 END AS t
        FROM generate_series(1, 180000)";
    for (value, naive) in [
        ("t", "SELECT DISTINCT g, t AS v"),
        ("(m, t)", "SELECT DISTINCT g, m, coalesce(t, '-') AS v"),
        ("ARRAY[t, m::text]", "SELECT DISTINCT g, m, coalesce(t, '-') AS v"),
        ("m::double precision", "SELECT DISTINCT g, m AS v"),
        ("n % 7 = 1", "SELECT DISTINCT g, n % 7 = 1 AS v"),
        ("CASE WHEN n % 2 = 0 THEN interval '1 day' ELSE interval '2 days' END", "SELECT DISTINCT g, n % 2 AS v"),
    ] {
        let mixed = format!(
            "SELECT sum(n_distinct), sum(n_rows), sum(n_texts) FROM (SELECT g, count(*) AS n_rows, count(DISTINCT t) AS n_texts,
             count(DISTINCT {value}) AS n_distinct FROM ({rows}) GROUP BY g)"
        );
        let expected = format!(
            "SELECT (SELECT count(v) FROM ({naive} FROM ({rows}))), 180000, (SELECT count(t) FROM (SELECT DISTINCT g, t FROM ({rows})))"
        );
        let session = engine.session();
        assert_eq!(table_of(session.as_ref(), &mixed).await, table_of(session.as_ref(), &expected).await, "{value}");
        let total =
            format!("SELECT count(*), count(DISTINCT {value}), count(DISTINCT m) FILTER (WHERE n > 1) FROM ({rows})");
        let expected = format!(
            "SELECT 180000, (SELECT count(v) FROM ({} FROM ({rows}))), 999",
            naive.replace("DISTINCT g, ", "DISTINCT ")
        );
        assert_eq!(table_of(session.as_ref(), &total).await, table_of(session.as_ref(), &expected).await, "{value}");
    }
    let none =
        "SELECT count(DISTINCT t), count(DISTINCT (t, g)), count(*) FROM (VALUES ('a', 1)) AS v (t, g) WHERE g > 1";
    assert_eq!(table_of(engine.session().as_ref(), none).await, "0,0,0");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_any_size_out_of_a_number_cannot_be_made() {
    let engine = limited(options());
    for sql in [
        "SELECT range(1, 1000000000)",
        "SELECT array_repeat(1, 1000000000)",
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000)",
    ] {
        assert!(rows_of(engine.session().as_ref(), sql).await.is_err(), "{sql}");
    }
    assert_eq!(table_of(engine.session().as_ref(), "SELECT repeat('ab', 2), lpad('7', 3, '0')").await, "abab,007");
}

/// `X` stands for a million bytes of text, as a constant and as the value of a row.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_any_size_out_of_text_cannot_be_made() {
    let engine = limited(QueryOptions { memory_bytes_max: 64 << 20, ..options() });
    let many = |text: &str| vec![text; 300].join(", ");
    let expressions = [
        "length(replace(X, 'x', X))".to_owned(),
        format!("length(concat({}))", many("X")),
        "arrow_cast(NULL, 'FixedSizeBinary(2000000000)') IS NULL".to_owned(),
        "NULL::int[2000000000] IS NULL".to_owned(),
        "length(regexp_replace(X, 'x', X, 'g'))".to_owned(),
        format!("regexp_match(X, '{}x{}') IS NULL", "(".repeat(150), ")".repeat(150)),
        "length(to_char(now(), repeat(X, 10)))".to_owned(),
        format!("length(concat_ws(X, {}))", many("'a'")),
        format!("length({})", vec!["X"; 300].join(" || ")),
        format!("length(array_to_string(ARRAY[{}], X))", many("'a'")),
        format!("cardinality(array_replace_all(ARRAY[{}], 'a', X))", many("'a'")),
        format!("cardinality(ARRAY[{}])", many("X")),
        format!("struct({}) IS NULL", many("X")),
        format!("length(X), {}", (1..300).map(|n| format!("X || '{n}'")).collect::<Vec<_>>().join(", ")),
    ];
    let refused = async |expression: &str, text: &str, rows: &str| {
        let error = failure(&engine, &format!("SELECT {}{rows}", expression.replace('X', text))).await;
        assert_eq!((error.kind, error.sqlstate), (ErrorKind::Limit, "53200"), "{expression}{rows}: {error}");
    };
    for expression in &expressions {
        refused(expression, "repeat(c, 1000000)", " FROM (VALUES ('x')) AS t(c)").await;
    }
    // Constants are computed while the statement is planned.
    for expression in &expressions[..4] {
        refused(expression, "repeat('x', 1000000)", "").await;
    }
    for expression in [
        "length(overlay(x placing x from 1 for 0))",
        "length(x || x)",
        "length(encode(x, 'hex'))",
        "cardinality(array_append(ARRAY[x], x))",
        "cardinality(ARRAY[x] || ARRAY[x])",
    ] {
        let sql = format!("SELECT {expression} FROM (SELECT repeat(c, 40000000) AS x FROM (VALUES ('x')) AS t(c))");
        assert_eq!(failure(&engine, &sql).await.sqlstate, "53200", "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_table_functions_are_told_is_bounded_too() {
    let engine = limited(QueryOptions { memory_bytes_max: 256 << 20, ..options() });
    let long = vec!["repeat('x', 1000000)"; 300].join(" || ");
    for (told, sqlstate) in
        [(long.as_str(), "53200"), ("NULL::int[2000000000]::text", "53200"), ("'x' || 1 / 0", "22012")]
    {
        let sql = format!("SELECT count(*) FROM generate_series(1, length({told}))");
        assert_eq!(failure(&engine, &sql).await.sqlstate, sqlstate, "{told}");
    }
    let sql = "SELECT count(*) FROM generate_series(1, length('a' || 'b') * 2) AS s(n), LATERAL (SELECT 1)";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_constant_is_not_repeated_for_every_row() {
    let engine = limited(options());
    let constant = "SELECT length(c) FROM (SELECT repeat('x', 1000000) AS c)";
    assert_eq!(table_of(engine.session().as_ref(), constant).await, "1000000");
    for sql in [
        "SELECT repeat('x', 1000000) FROM generate_series(1, 8192)",
        "SELECT arrow_cast(repeat('x', 1000000), 'LargeUtf8') FROM generate_series(1, 8192)",
        "SELECT strpos(repeat('x', 1000000), value::text) FROM generate_series(1, 8192)",
        "SELECT CASE WHEN value > 5 THEN repeat('x', 1000000) END FROM generate_series(1, 8192)",
    ] {
        assert_eq!(failure(&engine, sql).await.sqlstate, "53200", "{sql}");
    }
}

/// To be looked at: `cargo test --release -p legwork-query what_a_bound_costs -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_a_bound_costs() {
    let engine = limited(QueryOptions { target_partitions: Some(1), ..options() });
    for expression in [
        "value::text",
        "'a' || value::text || 'b'",
        "concat('a', value::text, 'b')",
        "replace(value::text, '1', 'one')",
    ] {
        let sql = format!("SELECT sum(length({expression})) FROM generate_series(1, 5000000)");
        let started = std::time::Instant::now();
        table_of(engine.session().as_ref(), &sql).await;
        eprintln!("{expression}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounded_functions_answer_as_ever() {
    let engine = limited(QueryOptions { rows_max: 10, ..options() });
    let session = engine.session();
    // More than the bound at once, so that it is made in pieces; and as much of it as may be.
    let sql = "SELECT count(*), sum(length(l)), min(length(l)) FROM (SELECT regexp_replace(repeat('ab', 500), value::text, '-long-', 'g')
        || NULL::text AS n, regexp_replace(repeat('ab', 500), value::text, '-long-', 'g') || 'c' AS l FROM generate_series(1, 30000))";
    assert_eq!(table_of(session.as_ref(), sql).await, "30000,30030000,1001");
    let sql = "SELECT 'a' || n::text || 'c' || NULL, 'a' || n::text || 'c', n + 1, [1, 2] || [n], concat('a', NULL, n) FROM (VALUES (7)) AS t(n)";
    assert_eq!(table_of(session.as_ref(), sql).await, ",a7c,8,[1, 2, 7],a7");
    let result = session
        .query("SELECT 'a' || rep_id || ('b' || rep_id), upper(concat(rep_id, 'x')) FROM rep_calls")
        .await
        .unwrap();
    assert_eq!(result.schema.field(1).name(), "upper(concat(rep_calls.rep_id,Utf8(\"x\")))");
    assert_eq!(result.schema.field(0).name(), "Utf8(\"a\") || rep_calls.rep_id || Utf8(\"b\") || rep_calls.rep_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_bounded() {
    let engine = limited(QueryOptions { timeout: Duration::from_millis(300), ..options() });
    let slow = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b WHERE a.value % 7 = b.value % 5";
    let error = failure(&engine, slow).await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Limit, "57014"), "{error}");
    let engine = limited(options());
    let session = engine.session();
    rows_of(session.as_ref(), "SET statement_timeout = 200").await.unwrap();
    assert_eq!(rows_of(session.as_ref(), slow).await.unwrap_err().sqlstate, "57014");
    assert_eq!(rows_of(session.as_ref(), "SET statement_timeout = 'soon'").await.unwrap_err().sqlstate, "22023");
}

/// On one thread: were a query computed on it, nothing else would run, its deadline included.
#[tokio::test]
async fn a_query_that_computes_for_long_is_given_up_and_others_run() {
    let impatient = limited(QueryOptions { timeout: Duration::from_millis(300), ..options() });
    let crossed = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
    let compared = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000000) b WHERE a.value + b.value < 0";
    for endless in [crossed, compared] {
        assert_eq!(failure(&impatient, endless).await.sqlstate, "57014", "{endless}");
        let other = limited(options());
        assert_eq!(table_of(other.session().as_ref(), "SELECT 1").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_bounded_and_a_dropped_result_makes_room() {
    let engine = limited(QueryOptions { concurrency: 1, timeout: Duration::from_millis(500), ..options() });
    let session = engine.session();
    let mut first = session.query("SELECT * FROM generate_series(1, 100000)").await.unwrap();
    assert!(first.batches.next().await.unwrap().is_ok());
    let error = failure(&engine, "SELECT 1").await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Retry, "53300"), "{error}");
    drop(first);
    assert_eq!(table_of(session.as_ref(), "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_query_sees_one_snapshot_of_a_table() {
    let fake = calls();
    let n_snapshots = fake.n_snapshots.clone();
    let engine = engine(fake);
    let session = engine.session();
    let sql = "SELECT count(*) FROM lanes.rep_calls a JOIN lanes.rep_calls b ON a.rep_id = b.rep_id JOIN rep_calls c ON c.rep_id = a.rep_id";
    assert_eq!(table_of(session.as_ref(), sql).await, "19");
    assert_eq!(n_snapshots.load(Ordering::Relaxed), 1);
    table_of(session.as_ref(), "SELECT count(*) FROM rep_calls").await;
    assert_eq!(n_snapshots.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_tables_of_a_statement_are_known_through_its_views() {
    let session = engine(Fake::default()).sql_session();
    for (sql, table) in [
        ("SELECT * FROM check_in_verdicts", "gps_pings"),
        ("SELECT count(*) FROM deals WHERE deal_id IN (SELECT deal_id FROM Calls)", "calls"),
        ("EXPLAIN SELECT * FROM check_ins", "check_ins"),
    ] {
        assert!(session.tables_read(sql).await.unwrap().contains(table), "{sql}");
    }
    assert!(!session.tables_read("SELECT 'gps_pings' FROM rep_calls").await.unwrap().contains("gps_pings"));
    assert!(session.tables_read("SHOW timezone").await.unwrap().is_empty());
    assert_eq!(session.tables_read("SELECT * FROM rep_cals").await.unwrap_err().sqlstate, "42P01");
}

#[tokio::test]
async fn the_clock_is_the_sessions() {
    let at = |source, newest_us| {
        let fake = Fake { newest_us, ..Fake::default() };
        SqlEngine::new(Arc::new(fake), QueryOptions { now: source, ..options() }).unwrap()
    };
    let now = "SELECT legwork_now()::text";
    let fixed = at(NowSource::Fixed(0), None);
    let (one, other) = (fixed.session(), fixed.session());
    assert_eq!(table_of(one.as_ref(), now).await, "1970-01-01T00:00:00Z");
    rows_of(one.as_ref(), "SET legwork.as_of = '2026-03-01 08:00:00+01:00'").await.unwrap();
    assert_eq!(table_of(one.as_ref(), now).await, "2026-03-01T07:00:00Z");
    assert_eq!(table_of(one.as_ref(), "SHOW legwork.as_of").await, "2026-03-01 08:00:00+01:00");
    assert_eq!(table_of(other.as_ref(), now).await, "1970-01-01T00:00:00Z");
    let again =
        table_of(one.as_ref(), "SELECT count(*) FROM (VALUES (1), (2)) WHERE legwork_now() = legwork_now()").await;
    assert_eq!(again, "2");
    assert_eq!(rows_of(one.as_ref(), "SET legwork.as_of = 'yesterday'").await.unwrap_err().sqlstate, "22023");
    for forget in ["RESET legwork.as_of", "DISCARD ALL", "RESET ALL", "SET legwork.as_of TO DEFAULT"] {
        rows_of(one.as_ref(), "SET legwork.as_of = '2026-03-01'").await.unwrap();
        assert_eq!(table_of(one.as_ref(), now).await, "2026-03-01T00:00:00Z");
        rows_of(one.as_ref(), forget).await.unwrap();
        assert_eq!(table_of(one.as_ref(), now).await, "1970-01-01T00:00:00Z", "{forget}");
    }
    for (known_us, newest_us) in [(None, Some(60)), (Some(60), None), (Some(50), Some(60)), (Some(60), Some(50))] {
        let event = NowSource::Event { known_us: known_us.map(|known_s: i64| known_s * 1_000_000) };
        let engine = at(event, newest_us.map(|newest_s: i64| newest_s * 1_000_000));
        assert_eq!(table_of(engine.session().as_ref(), now).await, "1970-01-01T00:01:00Z");
    }
    let age = "SELECT abs(seconds_between(legwork_now(), now())) < 60";
    assert_eq!(table_of(at(NowSource::System, Some(60_000_000)).session().as_ref(), age).await, "true");
}

#[tokio::test]
async fn wrong_names_are_answered_with_near_ones() {
    let engine = engine(calls());
    let error = failure(&engine, "SELECT * FROM rep_cals").await;
    assert_eq!(error.sqlstate, "42P01");
    assert!(error.message.contains("is it rep_calls?"), "{error}");
    let error = failure(&engine, "SELECT * FROM gps").await;
    assert_eq!(error.message, "relation gps does not exist: is it gps_pings?");
    let error = failure(&engine, "SELECT n_cals FROM rep_calls").await;
    assert_eq!(error.sqlstate, "42703");
    assert!(error.message.contains("is it n_calls?"), "{error}");
    for (sql, sqlstate) in [
        ("SELECT nosuch(1)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT 'x'::int", "22P02"),
        ("SHOW nosuch", "42704"),
        ("SELECT rep_id FROM rep_calls a JOIN rep_calls b ON true", "42702"),
    ] {
        let error = failure(&engine, sql).await;
        assert_eq!((error.kind, error.sqlstate), (ErrorKind::Statement, sqlstate), "{sql}: {error}");
    }
    let shut = SqlEngine::new(Arc::new(Fake { is_shut: true, ..Fake::default() }), options()).unwrap();
    assert_eq!(failure(&shut, "SELECT * FROM gps_pings").await.kind, ErrorKind::Retry);
}

#[tokio::test]
async fn the_catalog_tells_what_there_is() {
    let engine = engine(calls());
    let session = engine.session();
    let sql = "SELECT table_catalog, table_schema, table_type FROM information_schema.tables WHERE table_name = 'rep_calls' ORDER BY 2";
    assert_eq!(table_of(session.as_ref(), sql).await, "legwork,lanes,BASE TABLE\nlegwork,public,VIEW");
    assert!(table_of(session.as_ref(), "SHOW TABLES").await.contains("gps_pings"));
    assert!(table_of(session.as_ref(), "DESCRIBE deals").await.contains("n_regressions"));
    assert!(table_of(session.as_ref(), "EXPLAIN SELECT count(*) FROM deals").await.contains("LiveScan"));
    assert!(
        table_of(session.as_ref(), "EXPLAIN ANALYZE SELECT n_calls FROM lanes.rep_calls").await.contains("LiveScan")
    );
}

/// A parser that tries again what it has read already, and what that holds again, takes minutes for a line.
#[tokio::test]
async fn what_nests_is_parsed_in_no_time() {
    let engine = engine(calls());
    for call in ["abs(", "coalesce(1, ", "abs(-", "(", "abs(CASE WHEN true THEN ", "sum("] {
        for (inner, end) in [("1", ")"), ("1", ""), ("1 2", ")"), ("", ")")] {
            let closing = if call.contains("CASE") { format!(" END{end}") } else { end.to_owned() };
            for n in [15, 45] {
                let _ = engine.session().query(&format!("SELECT {}{inner}{}", call.repeat(n), closing.repeat(n))).await;
            }
        }
    }
    for (call, end) in [("CAST(", " AS int)"), ("ARRAY[", "]"), ("floor(abs(", "))"), ("substring(", " FROM 1)")] {
        let nested = |n: usize, inner: &str| format!("SELECT {}{inner}{}", call.repeat(n), end.repeat(n));
        assert_eq!(failure(&engine, &nested(11, "1")).await.sqlstate, "54001", "{call}");
        assert_eq!(failure(&engine, &nested(10, "1 2")).await.sqlstate, "42601", "{call}");
    }
}
