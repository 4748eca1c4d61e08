//! Live and lake: what is read, when, and what is said when it cannot be.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_types::{FreshFuture, FreshRows, LiveTables, Lookup, SnapshotFuture, Table};
use serde_json::json;

use super::fake::{Fake, batch, schema_of};
use super::lake_model::{DAY_0, DayTable, MemoryLake, Version, fresh, lane};
use super::options;
use super::sql::{rows_of, table_of};
use crate::{Engine, ErrorKind, History, HistoryError, PinnedTable, QueryError, QueryOptions, SqlEngine};

fn version(day: i32, key: i64, revision: u32, value: i64) -> Version {
    Version { lane: 0, revision, day, key, is_deleted: false, value }
}

/// Days 0 to 3 of `device_movement`: 0 and 1 compacted, 2 with two versions of a row, 3 compacted, and touched again by a lane.
fn movement() -> (Arc<MemoryLake>, Fake) {
    let versions =
        [version(0, 1, 1, 4), version(1, 1, 2, 4), version(2, 1, 3, 4), version(2, 1, 4, 8), version(3, 1, 5, 4)];
    let history = MemoryLake::default().table(Table::DeviceMovement, &versions, &[0, 1, 3], true);
    let mut lanes = Fake::default();
    let live = fresh(Table::DeviceMovement, &[version(3, 1, 6, 12), version(4, 1, 6, 16)]);
    lanes.fresh.insert("device_movement".to_owned(), live);
    (Arc::new(history), lanes)
}

fn engine(history: &Arc<MemoryLake>, lanes: Fake) -> SqlEngine {
    SqlEngine::with_history(Arc::new(lanes), history.clone(), options()).unwrap()
}

async fn failure(engine: &SqlEngine, sql: &str) -> QueryError {
    rows_of(engine.session().as_ref(), sql).await.unwrap_err()
}

#[tokio::test]
async fn only_the_days_asked_for_are_read() {
    let (history, lanes) = movement();
    let engine = engine(&history, lanes);
    let session = engine.session();
    for (filter, days, sum) in [
        ("true", vec![0, 1, 2, 3], "11.0"),
        ("window_start >= '2026-02-27' AND window_start < '2026-02-28'", vec![1], "1.0"),
        ("window_start::date = '2026-02-28'", vec![2], "2.0"),
        ("date_trunc('day', window_start) > '2026-02-27'", vec![2, 3], "9.0"),
        ("window_start > TIMESTAMP '2026-02-28 23:00:00Z'", vec![2, 3], "7.0"),
        ("window_start < '2026-02-27 00:00:00Z' OR window_start::date = '2026-03-01'", vec![0, 3], "4.0"),
        ("window_start >= legwork_now() - interval '1 day'", vec![3], "4.0"),
        ("window_end > '2026-03-01'", vec![0, 1, 2, 3], "7.0"),
    ] {
        let sql = format!("SELECT sum(distance_m) FROM device_movement WHERE {filter}");
        assert_eq!(table_of(session.as_ref(), &sql).await, sum, "{filter}");
        assert_eq!(history.days_read(Table::DeviceMovement), days, "{filter}");
    }
    let of_view = "SELECT count(*) FROM rep_movement WHERE window_start >= '2026-03-01'";
    assert_eq!(table_of(session.as_ref(), of_view).await, "2");
    assert_eq!(history.days_read(Table::DeviceMovement), [3], "a view passes the filter on");
}

#[tokio::test]
async fn a_local_day_reads_the_days_around_it() {
    let (history, lanes) = movement();
    // Seen from Honolulu, the first rows of a day are of the day before.
    let rep = json!({"rep_id": "rep_id-1", "name": "A", "time_zone": "Pacific/Honolulu", "active": true});
    let lanes = lanes.lane("reps", json!([rep]));
    let engine = engine(&history, lanes);
    let session = engine.session();
    // How often they are read does not matter.
    let days_read = || {
        let mut days = history.days_read(Table::DeviceMovement);
        days.dedup();
        days
    };
    let whole = table_of(session.as_ref(), "SELECT local_date, distance_m FROM rep_activity_daily ORDER BY 1").await;
    assert!(whole.lines().count() == 5 && whole.starts_with("2026-02-25,1.0"), "{whole}");
    assert_eq!(days_read(), [0, 1, 2, 3]);
    for (filter, read) in [
        ("local_date = DATE '2026-02-27'", vec![0, 1, 2]),
        ("local_date BETWEEN '2026-02-28' AND '2026-02-28'", vec![1, 2, 3]),
        ("local_date < '2026-02-27'", vec![0, 1]),
        ("'2026-02-28' <= local_date", vec![1, 2, 3]),
        ("local_date > '2026-02-28' AND rep_id = 'rep_id-1'", vec![2, 3]),
        ("local_date >= local_date(legwork_now(), 'UTC')", vec![3]),
        ("local_date <> '2026-02-27'", vec![0, 1, 2, 3]),
    ] {
        let of = |rows: &str| format!("SELECT local_date, distance_m FROM ({rows}) WHERE {filter} ORDER BY 1");
        let found = table_of(session.as_ref(), &of("SELECT * FROM rep_activity_daily")).await;
        assert_eq!(days_read(), read, "{filter}");
        // What the filter leaves of the whole.
        let expected = table_of(session.as_ref(), &of("SELECT * FROM rep_activity_daily LIMIT 1000")).await;
        assert!(found == expected && days_read() == [0, 1, 2, 3], "{filter}: {found}");
    }
    for (filter, read, n_rows) in [
        ("= '2026-02-26'", vec![0, 1], "1"),
        ("IN ('2026-02-26', '2026-03-02')", vec![0, 1, 3], "1"),
        ("<= '2026-02-26' OR local_date(window_start, 'UTC') > '2026-03-01'", vec![0, 1, 3], "3"),
    ] {
        let sql =
            format!("SELECT count(*) FROM device_movement WHERE local_date(window_start, 'Pacific/Honolulu') {filter}");
        assert_eq!((table_of(session.as_ref(), &sql).await.as_str(), days_read()), (n_rows, read), "{filter}");
    }
}

#[tokio::test]
async fn plans_say_which_days_are_resolved() {
    let (history, lanes) = movement();
    let engine = engine(&history, lanes);
    let session = engine.session();
    let plan = async |filter: &str| {
        let sql = format!("EXPLAIN SELECT sum(distance_m) FROM device_movement WHERE {filter}");
        table_of(session.as_ref(), &sql).await
    };
    let settled = plan("window_start < '2026-02-28'").await;
    assert!(settled.contains("version=7, days=[2026-02-26..2026-02-27]"), "{settled}");
    assert!(!settled.contains("device_id") && !settled.contains("lane"), "what resolving needs is not read: {settled}");
    let fresh = plan("window_start >= '2026-03-02'").await;
    assert!(fresh.contains("ResolveExec: table=device_movement, groups=1, fresh_rows=1"), "{fresh}");
    let both = plan("device_id = 'device_id-1'").await;
    assert!(both.contains("UnionExec") && both.contains("fresh_rows=2"), "{both}");
    assert!(both.contains("days=[..2026-02-25, 2026-02-28..]"), "{both}");
    let n_key_filters = both.matches("device_id@").count();
    assert!(n_key_filters >= 3, "a filter on the key reaches both parts of the lake: {both}");
    let open = plan("is_open").await;
    let resolved = &open[open.find("ResolveExec").unwrap()..];
    assert!(!resolved.contains("FilterExec: is_open"), "a filter that may hide a newer version waits: {open}");
}

/// Lanes that may only be asked when the lake has been.
#[derive(Debug)]
struct AskedLater(Arc<MemoryLake>, Fake);

impl LiveTables for AskedLater {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        self.1.snapshot(table)
    }

    fn fresh(&self, table: &str) -> FreshFuture {
        assert_eq!(self.0.pins.lock().iter().filter(|pinned| *pinned == table).count(), 1, "{table}");
        self.1.fresh(table)
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        self.1.lookup(lookup)
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        None
    }
}

#[tokio::test]
async fn a_version_is_pinned_once_and_before_the_lanes_are_asked() {
    let (history, lanes) = movement();
    let lanes = Arc::new(AskedLater(history.clone(), lanes));
    let engine = SqlEngine::with_history(lanes, history.clone(), options()).unwrap();
    let sql = "SELECT count(*), (SELECT max(version) FROM lake_versions('device_movement')) \
               FROM device_movement a JOIN device_movement b ON a.window_start > b.window_start CROSS JOIN rep_movement";
    assert_eq!(table_of(engine.session().as_ref(), sql).await, "50,7");
    assert_eq!(history.pins.lock().iter().filter(|table| *table == "device_movement").count(), 1);
}

/// A lake whose first pins are of a version from before a lane's commit.
#[derive(Debug)]
struct Behind {
    lake: Arc<MemoryLake>,
    n_behind: AtomicUsize,
}

impl History for Behind {
    fn pin<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Option<PinnedTable>, HistoryError>> {
        async move {
            let is_behind =
                self.n_behind.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            let through = HashMap::from([(lane(0), if is_behind { 4 } else { 5 })]);
            Ok(self.lake.pin(table).await?.map(|pinned| PinnedTable { through, ..pinned }))
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_version_that_lacks_what_lanes_have_let_go_of_is_pinned_again() {
    let behind = |n_behind: usize| {
        let (lake, mut lanes) = movement();
        lanes.fresh.get_mut("device_movement").unwrap()[0].after = 5;
        let history = Arc::new(Behind { lake, n_behind: AtomicUsize::new(n_behind) });
        SqlEngine::with_history(Arc::new(lanes), history, options()).unwrap()
    };
    let sql = "SELECT sum(distance_m) FROM device_movement";
    assert_eq!(table_of(behind(3).session().as_ref(), sql).await, "11.0");
    let error = failure(&behind(usize::MAX / 2), sql).await;
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
    assert!(error.to_string().contains("lacks rows that lanes know to be there"), "{error}");
}

#[tokio::test]
async fn versions_of_the_lake_can_be_asked_for() {
    let (history, lanes) = movement();
    let lake = engine(&history, lanes);
    let session = lake.session();
    let versions = table_of(session.as_ref(), "SELECT * FROM lake_versions() WHERE version IS NOT NULL").await;
    assert_eq!(versions, "device_movement,7");
    let empty = table_of(session.as_ref(), "SELECT table_name FROM lake_versions() WHERE version IS NULL").await;
    assert!(empty.lines().any(|name| name == "gps_pings") && empty.lines().any(|name| name == "deals"), "{empty}");
    assert!(!empty.contains("pipeline_lanes") && !empty.contains("accounts"), "not in the lake: {empty}");
    assert!(failure(&lake, "SELECT * FROM lake_versions('nope')").await.message.contains("lake_versions() names"));
    let without = super::engine(Fake::default());
    assert_eq!(table_of(without.session().as_ref(), "SELECT count(*) FROM lake_versions()").await, "0");
}

#[tokio::test]
async fn a_lake_that_cannot_be_read_is_an_error() {
    let (_, lanes) = movement();
    let down =
        HistoryError::Unavailable { table: "device_movement".to_owned(), detail: "connection refused".to_owned() };
    let history = Arc::new(MemoryLake { failure: Some(down), ..MemoryLake::default() });
    let engine = engine(&history, lanes);
    let error = failure(&engine, "SELECT count(*) FROM device_movement").await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Retry, "58030"));
    assert!(error.message.contains("device_movement") && error.message.contains("connection refused"), "{error}");
    let lanes = table_of(engine.session().as_ref(), "SELECT count(*) FROM pipeline_lanes").await;
    assert_eq!(lanes, "0", "what is not in the lake is still there");
}

#[tokio::test]
async fn files_that_are_not_as_expected_are_an_error() {
    let (history, lanes) = movement();
    let (table, through, days) = &history.tables["device_movement"];
    let lacking = |name: &str| {
        let keep: Vec<usize> =
            (0..table.schema.fields().len()).filter(|i| table.schema.field(*i).name() != name).collect();
        let batches = table.batches.iter().map(|(day, batch)| (*day, batch.project(&keep).unwrap())).collect();
        let schema = Arc::new(table.schema.project(&keep).unwrap());
        let table = Arc::new(DayTable { schema, batches, read: parking_lot::Mutex::default() });
        let tables = [("device_movement".to_owned(), (table, through.clone(), days.clone()))].into();
        Arc::new(MemoryLake { tables, ..MemoryLake::default() })
    };
    let older = engine(&lacking("odometer_m"), Fake::default());
    let sql = "SELECT count(*), count(odometer_m) FROM device_movement";
    assert_eq!(table_of(older.session().as_ref(), sql).await, "4,0", "a column that came later is null");
    let broken = engine(&lacking("distance_m"), lanes);
    let error = failure(&broken, "SELECT sum(distance_m) FROM device_movement").await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Bug, "XX001"));
    assert!(error.message.contains("distance_m"), "{error}");
}

#[tokio::test]
async fn before_the_first_commit_there_are_the_lanes() {
    let (_, lanes) = movement();
    let engine = engine(&Arc::default(), lanes);
    let session = engine.session();
    assert_eq!(table_of(session.as_ref(), "SELECT sum(distance_m) FROM device_movement").await, "7.0");
    assert_eq!(
        table_of(session.as_ref(), "SELECT count(*) FROM device_movement WHERE window_start < '2026-01-01'").await,
        "0"
    );
    assert_eq!(table_of(session.as_ref(), "SELECT count(*) FROM gps_pings").await, "0");
}

#[tokio::test]
async fn events_are_read_once_while_a_commit_is_under_way() {
    let schema = schema_of("gps_pings");
    let ping = |day: u32, device: &str| {
        let row = json!({"device_id": device, "event_id": "1", "source": "test", "lat": 1.0, "lon": 2.0, "topic": "field.topic.v1",
                         "event_time": format!("2026-02-{day:02}T10:00:00Z"), "arrival_time": "2026-03-01T00:00:00Z"});
        batch(&schema, row.as_object().unwrap())
    };
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("day", DataType::Date32, false)));
    let lake_schema = Arc::new(Schema::new(fields));
    let stored = |day: u32, device: &str| {
        let mut columns = ping(day, device).columns().to_vec();
        columns.push(Arc::new(Date32Array::from(vec![DAY_0 + day as i32 - 26])));
        (DAY_0 + day as i32 - 26, RecordBatch::try_new(lake_schema.clone(), columns).unwrap())
    };
    let batches = vec![stored(26, "a1"), stored(27, "a2"), stored(27, "b1")];
    let table = Arc::new(DayTable { schema: lake_schema.clone(), batches, read: parking_lot::Mutex::default() });
    let through = [(lane(0), 2), (lane(1), 1)].into();
    let tables = [("gps_pings".to_owned(), (table, through, BTreeMap::new()))].into();
    let history = Arc::new(MemoryLake { tables, ..MemoryLake::default() });
    let mut lanes = Fake::default();
    let held = vec![
        FreshRows {
            lane: lane(0),
            rows: vec![(1, ping(26, "a1")), (2, ping(27, "a2")), (3, ping(27, "a3"))],
            after: 0,
            durable: 9,
        },
        FreshRows { lane: lane(1), rows: vec![(2, ping(28, "b2"))], after: 0, durable: 9 },
        FreshRows { lane: lane(2), rows: vec![(1, ping(27, "c1"))], after: 0, durable: 9 },
    ];
    lanes.fresh.insert("gps_pings".to_owned(), held);
    let engine = engine(&history, lanes);
    let session = engine.session();
    let devices = "SELECT device_id FROM gps_pings ORDER BY 1";
    assert_eq!(table_of(session.as_ref(), devices).await, "a1\na2\na3\nb1\nb2\nc1");
    history.tables["gps_pings"].0.read.lock().clear();
    let of_day = "SELECT count(*) FROM gps_pings WHERE event_time::date = '2026-02-27'";
    assert_eq!(table_of(session.as_ref(), of_day).await, "4");
    assert_eq!(*history.tables["gps_pings"].0.read.lock(), [1, 1], "the day's two files alone");
    assert_eq!(table_of(session.as_ref(), "SELECT count(*) FROM (SELECT * FROM gps_pings LIMIT 5)").await, "5");
}

#[tokio::test]
async fn lanes_that_shut_down_are_an_error_and_nothing_may_be_written() {
    let (history, _) = movement();
    let shut = engine(&history, Fake { is_shut: true, ..Fake::default() });
    assert_eq!(failure(&shut, "SELECT count(*) FROM device_movement").await.kind, ErrorKind::Retry);
    let lake = engine(&history, Fake::default());
    for sql in [
        "INSERT INTO device_movement SELECT * FROM device_movement",
        "DELETE FROM device_movement",
        "UPDATE device_movement SET distance_m = 0",
        "DROP TABLE device_movement",
        "COPY device_movement TO '/tmp/x.parquet'",
        "SELECT * FROM '/tmp/x.parquet'",
    ] {
        assert_ne!(failure(&lake, sql).await.kind, ErrorKind::Bug, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_versions_are_resolved() {
    let of_rows = |n_keys: i64, n_versions: u32| {
        let rows = (0..n_keys).flat_map(move |key| (1..=n_versions).map(move |revision| version(2, key, revision, 4)));
        rows.collect::<Vec<_>>()
    };
    let with = |versions: &[Version], memory_bytes_max: usize| {
        let history = Arc::new(MemoryLake::default().table(Table::Orders, versions, &[], true));
        let options = QueryOptions { memory_bytes_max, ..options() };
        SqlEngine::with_history(Arc::new(Fake::default()), history, options).unwrap()
    };
    let sql = "SELECT count(*), sum(quantity), min(source) FROM orders";
    let single = with(&of_rows(200_000, 1), 16 << 20);
    let plan = table_of(single.session().as_ref(), &format!("EXPLAIN {sql}")).await;
    assert!(plan.contains("read_twice=1"), "{plan}");
    assert_eq!(
        table_of(single.session().as_ref(), sql).await,
        "200000,200000.0,source-4",
        "rows of one version stream"
    );
    let several = of_rows(200_000, 2);
    let error = failure(&with(&several, 16 << 20), sql).await;
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Limit, "53200"), "{error}");
    assert_eq!(table_of(with(&several, 256 << 20).session().as_ref(), sql).await, "200000,200000.0,source-4");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_for_a_rep_is_found_without_holding_all_movement() {
    let versions: Vec<Version> = (0..300_000).map(|key| version(0, key, 1, 4)).collect();
    let history = Arc::new(MemoryLake::default().table(Table::DeviceMovement, &versions, &[0], true));
    let options = QueryOptions { memory_bytes_max: 40 << 20, ..options() };
    let engine = SqlEngine::with_history(Arc::new(Fake::default()), history, options).unwrap();
    let sql = "SELECT count(*), sum(raw_m), sum(distance_m), sum(gap_m), sum(moving_s), sum(stationary_s), sum(gap_s),
                      sum(speed_mps_max), sum(odometer_m), max(first_fix_time), max(last_fix_time)
               FROM rep_device_movement WHERE is_main";
    // Of a third of the rows nobody knows the rep.
    let found = table_of(engine.session().as_ref(), sql).await;
    assert!(found.starts_with("200000,200000.0,200000.0,"), "{found}");
}
