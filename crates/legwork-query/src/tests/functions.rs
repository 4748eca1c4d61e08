//! Functions as SQL calls them, against known values.

use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde_json::json;

use super::engine;
use super::fake::Fake;
use super::sql::{rows_of, table_of};
use crate::Engine;

async fn value(sql: &str) -> String {
    table_of(engine(Fake::default()).session().as_ref(), &format!("SELECT {sql}")).await
}

#[tokio::test]
async fn places() {
    assert_eq!(value("round(haversine_m(0, 0, 1, 0), 3), haversine_m(null, 0, 1, 0) IS NULL").await, "111195.08,true");
    // The example of GeographicLib's documentation, Wellington to Salamanca; a quarter of the meridian is 10001.966 km.
    assert_eq!(value("round(geodesic_m(-41.32, 174.81, 40.96, -5.50), 3)").await, "19959679.267");
    assert_eq!(value("round(geodesic_m(0, 0, 90, 0), 0), geodesic_m(0, 0, 91, 0) IS NULL").await, "10001966.0,true");
    // From the documentation of H3: the Ferry Building in San Francisco.
    assert_eq!(value("h3_cell(37.775938728915946, -122.41795063018799, 9)").await, "8928308280fffff");
    assert_eq!(
        value("h3_cell(0, 0, 16) IS NULL, h3_cell(91, 0, 5) IS NULL, h3_cell(null, 0, 5) IS NULL").await,
        "true,true,true"
    );
    assert_eq!(value("within_fence(0, 0, 0.0008, 0, 100), within_fence(0, 0, 0.001, 0, 100)").await, "true,false");
}

#[tokio::test]
async fn bytes_are_read_as_text() {
    assert_eq!(
        value("convert_from(decode('c3a4','hex'), 'UTF8'), encode(decode('c3a4','hex'), 'hex')").await,
        "\u{e4},c3a4"
    );
    // A garbled message beside a good one.
    let garbled = "(SELECT string_agg(convert_from(x, 'utf8'), ';' ORDER BY n) FROM (VALUES (1, decode('61ff','hex')), (2, decode('62','hex'))) AS t(n, x))";
    assert_eq!(value(garbled).await, "a\u{fffd};b");
    assert_eq!(value("convert_from(arrow_cast(NULL, 'Binary'), 'UTF8') IS NULL").await, "true");
    let session = engine(Fake::default()).session();
    let error = rows_of(session.as_ref(), "SELECT convert_from(decode('61','hex'), 'EBCDIC')").await.unwrap_err();
    assert!(error.message.contains("EBCDIC"), "{error}");
}

#[tokio::test]
async fn integers_do_not_wrap_around() {
    let session = engine(Fake::default()).session();
    let max = "9223372036854775807";
    for wrong in [
        format!("SELECT {max} + 1"),
        format!("SELECT -2 - {max}"),
        format!("SELECT {max} * 2"),
        format!("SELECT x + 1 FROM (VALUES ({max}), (1)) AS t(x)"),
        format!("SELECT count(*) FROM (VALUES ({max}), (1)) AS t(x) WHERE x + 1 > 0"),
        format!("SELECT x * 2, count(*) FROM (VALUES ({max})) AS t(x) GROUP BY x * 2"),
        format!("SELECT 1 FROM (VALUES (1)) AS t(y) WHERE y IN (SELECT x + 1 FROM (VALUES ({max})) AS u(x))"),
    ] {
        let error = rows_of(session.as_ref(), &wrong).await.unwrap_err();
        assert_eq!((error.sqlstate, error.message.as_str()), ("22003", "bigint out of range"), "{wrong}");
    }
    let right = format!(
        "x + 1, sum(x * 2 - 1), max(y) FROM (VALUES (1, 2.5), (1, 3.5), ({max} - 2, 1.5)) AS t(x, y) WHERE x - 1 < 100 GROUP BY x + 1 ORDER BY x + 1 LIMIT 1 + 1"
    );
    assert_eq!(value(&right).await, "2,2,3.5");
    assert_eq!(value("(1 + 2) * 3 - 4, 1 + 2 * 3 - (4 - 5), 1::int * 2 + 3::bigint").await, "5,8,5");
}

#[tokio::test]
async fn all_settings_are_shown() {
    let session = engine(Fake::default()).session();
    let shown = table_of(session.as_ref(), "SHOW ALL").await;
    assert!(shown.contains("timezone,UTC"), "{shown}");
}

#[tokio::test]
async fn local_days_follow_the_zone() {
    let date = |time: &str, zone: &str| format!("local_date('{time}', {zone})");
    for (time, zone, day) in [
        ("2026-03-28T23:30:00Z", "'Europe/Berlin'", "2026-03-29"),
        ("2026-03-29T22:30:00Z", "'Europe/Berlin'", "2026-03-30"),
        ("2026-03-29T21:30:00Z", "'Europe/Berlin'", "2026-03-29"),
        ("2026-01-01T04:59:00Z", "'America/New_York'", "2025-12-31"),
        ("2026-01-01T04:59:00Z", "null", "2026-01-01"),
        ("2026-01-01T04:59:00Z", "'Mars/Olympus'", "2026-01-01"),
    ] {
        assert_eq!(value(&date(time, zone)).await, day, "{time} {zone}");
    }
}

/// What PostgreSQL 15 answers.
#[tokio::test]
async fn parts_of_spans_and_formats_are_postgresqls() {
    let engine = engine(Fake::default());
    let session = engine.session();
    let parts = "SELECT extract(day from s), extract(hour from s), extract(minute from s), extract(second from s), extract(epoch from s)
                 FROM (SELECT timestamptz '2026-03-16 00:15:27.25Z' - timestamptz '2026-03-05 00:00:00Z' AS s) x";
    assert_eq!(table_of(session.as_ref(), parts).await, "11,0,15,27,951327.25");
    for (sql, expected) in [
        ("to_char(timestamptz '2026-03-05 14:07:09.25Z', 'YYYY-MM-DD HH24:MI:SS.MS')", "2026-03-05 14:07:09.250"),
        ("to_char(date '2026-03-05', 'FMDD. Mon YY')", "5. Mar 26"),
        ("to_char(date '2026-03-05', '%Y/%j')", "2026/064"),
        ("extract(epoch from timestamptz '2026-03-05 00:00:00.5Z')", "1772668800.5"),
        ("extract(epoch from timestamp '2026-03-05 00:01')", "1772668860.0"),
        ("extract(epoch from '2026-03-05T00:01+01'::timestamptz)", "1772665260.0"),
        ("now() > '2026-03-05 00:01' AND now() > '2026-03-05' AND now() > '2026-03-05 00:01:02.5Z'", "true"),
        ("arrow_typeof(now()) = arrow_typeof(timestamptz '2026-03-05 00:00:00Z')", "true"),
    ] {
        assert_eq!(table_of(session.as_ref(), &format!("SELECT {sql}")).await, expected, "{sql}");
    }
    let refused = rows_of(session.as_ref(), "SELECT to_char(now(), 'DD MONTH')").await.unwrap_err();
    assert!(refused.to_string().contains("strftime"), "{refused}");
}

#[tokio::test]
async fn business_time_knows_calendars_and_zones() {
    let shop = json!([{"calendar_id": "shop", "time_zone": "Europe/Berlin", "working_hours": ["mon 10:00-20:00", "sat 10:00-14:00"],
                       "holidays": ["2026-03-09"]}]);
    let engine = engine(Fake::default().lane("calendars", shop));
    let session = engine.session();
    let week =
        |rest: &str| format!("SELECT business_seconds('2026-03-02T00:00:00Z', '2026-03-09T00:00:00Z'{rest}) / 3600");
    assert_eq!(table_of(session.as_ref(), &week("")).await, "40.0");
    assert_eq!(table_of(session.as_ref(), &week(", 'Asia/Tokyo'")).await, "40.0");
    assert_eq!(table_of(session.as_ref(), &week(", 'shop'")).await, "14.0");
    let of_rows = "SELECT business_seconds(t, '2026-03-09T00:00:00Z', 'shop') / 3600 FROM (VALUES ('2026-03-02T00:00:00Z'::timestamptz)) AS s(t)";
    assert_eq!(table_of(session.as_ref(), of_rows).await, "14.0");
    let holiday = "SELECT business_seconds('2026-03-09T00:00:00Z', '2026-03-10T00:00:00Z', 'shop')";
    assert_eq!(table_of(session.as_ref(), holiday).await, "0.0");
    assert_eq!(
        table_of(session.as_ref(), "SELECT business_seconds('2026-03-02T10:00:00Z', '2026-03-02T09:30:00Z')").await,
        "-1800.0"
    );
    let error = rows_of(session.as_ref(), &week(", 'nowhere'")).await.unwrap_err();
    assert!(error.message.contains("nowhere"), "{error}");
}

#[tokio::test]
async fn quantiles_of_what_still_runs() {
    let sql = "SELECT km_quantile(d, ended, 0.5), km_quantile(d, ended, 0.25), km_quantile(d, ended, 0.6) FROM (VALUES
        (6, true), (6, true), (6, true), (6, false), (7, true), (9, false), (10, true), (10, false), (11, false), (13, true), (16, true),
        (17, false), (19, false), (20, false), (22, true), (23, true), (25, false), (32, null), (32, false), (34, false), (35, false),
        (null, true)) AS t (d, ended)";
    assert_eq!(table_of(engine(Fake::default()).session().as_ref(), sql).await, "23.0,13.0,");
    let spread =
        "SELECT value % 3, km_quantile(value, value % 2 = 0, 0.5) FROM generate_series(1, 60000) GROUP BY 1 ORDER BY 1";
    let naive = "SELECT value % 3, km_quantile(value, value % 2 = 0, 0.5) FROM (SELECT * FROM generate_series(1, 60000) ORDER BY -value) GROUP BY 1 ORDER BY 1";
    let session = engine(Fake::default()).session();
    assert_eq!(table_of(session.as_ref(), spread).await, table_of(session.as_ref(), naive).await);
    let error = rows_of(session.as_ref(), "SELECT km_quantile(1.0, true, 1.5)").await.unwrap_err();
    assert_eq!(error.sqlstate, "22000");
}

#[tokio::test]
async fn tracks_are_asked_of_the_lanes() {
    let time = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("UTC");
    let answer = RecordBatch::try_from_iter([
        ("device_id", Arc::new(StringArray::from(vec!["d1"])) as _),
        ("event_time", Arc::new(time) as _),
        ("decision", Arc::new(StringArray::from(vec!["counted"])) as _),
        ("distance_m", Arc::new(Float64Array::from(vec![12.5])) as _),
        ("more", Arc::new(Float64Array::from(vec![1.0])) as _),
    ]);
    let fake = Fake::default().answering("explain_track", answer.unwrap());
    let lookups = fake.lookups.clone();
    let engine = engine(fake);
    let session = engine.session();
    let sql = "SELECT device_id, event_time::text, decision, distance_m, lat FROM explain_track('d' || '1', '1970-01-01', legwork_now() - interval '1 hour')";
    assert_eq!(table_of(session.as_ref(), sql).await, "d1,1970-01-01T00:00:01Z,counted,12.5,");
    let asked = lookups.lock()[0].clone();
    assert_eq!((asked.key.as_str(), asked.from_us, asked.to_us), ("d1", 0, super::NOW_US - 3_600_000_000));
    assert_eq!(
        table_of(session.as_ref(), "SELECT count(*), sum(distance_m) FROM track_at('d1', '1970-01-01T00:00:05Z')")
            .await,
        "0,"
    );
    assert_eq!(lookups.lock()[1].from_us, 5_000_000);
    assert!(rows_of(session.as_ref(), "SELECT * FROM track_at('d1')").await.is_err());
}
