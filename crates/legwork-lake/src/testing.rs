//! What tests share: rows of a small table, an object store that fails on purpose.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::{Int64Type, Schema};
use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use legwork_types::{LaneId, Table};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use url::Url;

use crate::{Lake, LakeConfig, LakeTable, LaneCommit};

pub(crate) const DAY_US: i64 = 86_400_000_000;
/// 2026-11-20.
pub(crate) const DAY_0: i32 = 20_777;

/// A row of `stays`: (device, start, pings, revision, retracted).
pub(crate) type Stay<'a> = (&'a str, i64, i64, i64, bool);

/// Microseconds of a day and hour.
pub(crate) fn at(day: i32, hour: i64) -> i64 {
    i64::from(day) * DAY_US + hour * 3_600_000_000
}

pub(crate) fn stays() -> LakeTable {
    LakeTable::versions(Table::Stays).unwrap()
}

pub(crate) fn lane(partition: i32) -> LaneId {
    LaneId::new("field.gps-pings.v1", partition)
}

pub(crate) fn rows(stays: &[Stay<'_>]) -> RecordBatch {
    let schema = Table::Stays.version_schema();
    let times = || TimestampMicrosecondArray::from_iter_values(stays.iter().map(|s| s.1)).with_timezone("UTC");
    let column = |name: &str| -> ArrayRef {
        match name {
            "device_id" => Arc::new(StringArray::from_iter_values(stays.iter().map(|s| s.0))),
            "stay_start" | "last_fix_time" => Arc::new(times()),
            "n_pings" => Arc::new(Int64Array::from_iter_values(stays.iter().map(|s| s.2))),
            "revision" => Arc::new(Int64Array::from_iter_values(stays.iter().map(|s| s.3))),
            "is_deleted" => Arc::new(BooleanArray::from_iter(stays.iter().map(|s| Some(s.4)))),
            "lat" | "lon" | "radius_m" => Arc::new(Float64Array::from(vec![1.5; stays.len()])),
            other => new_null_array(schema.field_with_name(other).unwrap().data_type(), stays.len()),
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.name())).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

pub(crate) fn commit(partition: i32, through: u32, stays: &[Stay<'_>]) -> LaneCommit {
    LaneCommit::of_rows(lane(partition), through, vec![(through, rows(stays))])
}

/// Without trust in clocks: tests maintain in years to come, with files of this moment.
pub(crate) fn config() -> LakeConfig {
    const AGE: Duration = Duration::from_secs(200 * 366 * 86_400);
    LakeConfig {
        pin_age_max: Duration::ZERO,
        request_timeout: Duration::from_secs(5),
        orphans_kept: AGE,
        clock_ahead_max: AGE,
        ..LakeConfig::default()
    }
}

pub(crate) fn lake_on(store: Arc<dyn ObjectStore>) -> Lake {
    lake_with(store, config())
}

pub(crate) fn lake_with(store: Arc<dyn ObjectStore>, config: LakeConfig) -> Lake {
    Lake::on(Url::parse("memory:///lake/").unwrap(), store, config)
}

/// Answers a query over the table `t`.
pub(crate) async fn sql(lake: &Lake, table: &LakeTable, sql: &str) -> Vec<RecordBatch> {
    let pinned = lake.pin(table).await.unwrap().unwrap();
    let context = SessionContext::new();
    context.register_table("t", pinned.provider).unwrap();
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

/// One number.
pub(crate) async fn number(lake: &Lake, table: &LakeTable, query: &str) -> i64 {
    sql(lake, table, query).await[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// (lane, device, pings, revision) of every row, sorted.
pub(crate) async fn contents(lake: &Lake, table: &LakeTable) -> Vec<(String, String, i64, i64)> {
    let batches = sql(lake, table, "SELECT lane, device_id, n_pings, revision FROM t ORDER BY 1, 2, 4, 3").await;
    let mut rows = Vec::new();
    for batch in batches {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
        let count = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        rows.extend((0..batch.num_rows()).map(|row| (text(0, row), text(1, row), count(2, row), count(3, row))));
    }
    rows
}

pub(crate) fn without(schema: &Schema, column: &str) -> Schema {
    Schema::new(schema.fields().iter().filter(|field| field.name() != column).cloned().collect::<Vec<_>>())
}

/// After the deadline of a request, before the last attempt of a commit.
const LATE: Duration = Duration::from_millis(5_150);

/// What a write does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is written, an error comes back.
    Fail,
    /// It is written, an error comes back.
    FailAfter,
    /// Nothing is written, nothing comes back.
    Hang,
    /// It is written, nothing comes back.
    HangAfter,
    /// Nothing comes back, and it is written when nobody waits any more.
    Late,
    /// It is written once [`FaultyStore::let_go`] is called.
    Held,
    /// It is written, an error comes back once [`FaultyStore::let_go`] is called.
    HeldAfter,
}

/// A store whose writes to paths that contain a word go wrong, in the order of the faults given.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<HashMap<&'static str, Vec<Option<Fault>>>>,
    pub(crate) n_calls: Mutex<HashMap<&'static str, usize>>,
    held: tokio::sync::Notify,
    n_held: AtomicUsize,
    /// Milliseconds that its clock is ahead; and was, when an object was written.
    clock: Mutex<(i64, HashMap<Path, i64>)>,
    /// Lists from an offset begin at the start.
    pub(crate) has_no_offsets: AtomicBool,
}

impl FaultyStore {
    pub(crate) fn new() -> Arc<FaultyStore> {
        FaultyStore::over(Arc::new(InMemory::new()))
    }

    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Arc<FaultyStore> {
        Arc::new(FaultyStore {
            inner,
            faults: Mutex::default(),
            n_calls: Mutex::default(),
            held: tokio::sync::Notify::new(),
            n_held: AtomicUsize::new(0),
            clock: Mutex::default(),
            has_no_offsets: AtomicBool::new(false),
        })
    }

    /// The next writes to paths that contain `word` go like this; none: well.
    pub(crate) fn fault(&self, word: &'static str, faults: impl IntoIterator<Item = Option<Fault>>) {
        let mut faults: Vec<_> = faults.into_iter().collect();
        faults.reverse();
        self.faults.lock().insert(word, faults);
    }

    /// Faults that have not happened yet.
    pub(crate) fn n_faults_left(&self) -> usize {
        self.faults.lock().values().map(Vec::len).sum()
    }

    /// Waits until a write is held.
    pub(crate) async fn holds(&self) {
        while self.n_held.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Lets the write go that is held.
    pub(crate) fn let_go(&self) {
        self.held.notify_one();
    }

    async fn hold(&self) {
        self.n_held.fetch_add(1, Ordering::Relaxed);
        self.held.notified().await;
        self.n_held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Time passes for the store.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock.lock().0 += i64::try_from(time.as_millis()).unwrap();
    }

    /// An object with the time at which it was written.
    fn dated(ahead_ms: &HashMap<Path, i64>, object: ObjectMeta) -> ObjectMeta {
        let ahead_ms = ahead_ms.get(&object.location).copied().unwrap_or(0);
        ObjectMeta { last_modified: object.last_modified + chrono::TimeDelta::milliseconds(ahead_ms), ..object }
    }

    fn next(&self, location: &Path) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (_, next) =
            faults.iter_mut().find(|(word, next)| location.as_ref().contains(**word) && !next.is_empty())?;
        next.pop().flatten()
    }

    fn count(&self, call: &'static str) {
        *self.n_calls.lock().entry(call).or_default() += 1;
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

fn broken() -> Error {
    Error::Generic { store: "FaultyStore", source: "broken on purpose".into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.count("put");
        let written_at = |clock: &mut (i64, HashMap<Path, i64>)| clock.1.insert(location.clone(), clock.0);
        if options.mode == PutMode::Overwrite || self.inner.head(location).await.is_err() {
            written_at(&mut self.clock.lock());
        }
        match self.next(location) {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::Fail) => Err(broken()),
            Some(Fault::FailAfter) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(broken())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Late) => {
                let (inner, location) = (self.inner.clone(), location.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    let _ = inner.put_opts(&location, payload, options).await;
                });
                std::future::pending().await
            }
            Some(Fault::HangAfter) => {
                self.inner.put_opts(location, payload, options).await?;
                std::future::pending().await
            }
            Some(Fault::Held) => {
                self.hold().await;
                self.inner.put_opts(location, payload, options).await
            }
            Some(Fault::HeldAfter) => {
                self.inner.put_opts(location, payload, options).await?;
                self.hold().await;
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count("get");
        let found = self.inner.get_opts(location, options).await?;
        Ok(GetResult { meta: FaultyStore::dated(&self.clock.lock().1, found.meta.clone()), ..found })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.count("delete");
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list");
        let ahead_ms = self.clock.lock().1.clone();
        let listed = self.inner.list(prefix);
        listed.map_ok(move |object| FaultyStore::dated(&ahead_ms, object)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list");
        match self.has_no_offsets.load(Ordering::Relaxed) {
            true => self.inner.list(prefix),
            false => self.inner.list_with_offset(prefix, offset),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count("list");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Lanes and what a table holds of them, in order.
pub(crate) fn numbers(transactions: &HashMap<LaneId, u32>) -> Vec<(String, u32)> {
    let mut numbers: Vec<_> = transactions.iter().map(|(lane, number)| (lane.to_string(), *number)).collect();
    numbers.sort();
    numbers
}

/// Paths below a folder of the store.
pub(crate) async fn paths(store: &dyn ObjectStore, folder: &str) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(&Path::from(folder))).try_collect().await.unwrap();
    let mut paths: Vec<String> = listed.into_iter().map(|object: ObjectMeta| object.location.to_string()).collect();
    paths.sort();
    paths
}
