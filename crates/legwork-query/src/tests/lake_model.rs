//! Lanes that write versions of rows, a lake that holds some of them, and the answer row by row.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_types::{FreshRows, LaneId, Table};
use parking_lot::Mutex;

use crate::{History, HistoryError, LakeDay, PinnedTable};

/// 2026-02-26.
pub(super) const DAY_0: i32 = 20_510;
const DAY_US: i64 = 86_400_000_000;
pub(super) const BATCH_ROWS: usize = 8_192;

/// A version of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) lane: i32,
    pub(super) revision: u32,
    /// Days after [`DAY_0`].
    pub(super) day: i32,
    pub(super) key: i64,
    pub(super) is_deleted: bool,
    /// What its other columns say.
    pub(super) value: i64,
}

impl Version {
    pub(super) fn identity(&self) -> (i32, i32, i64) {
        (self.lane, self.day, self.key)
    }
}

/// The newest versions, without retractions.
pub(super) fn naive(versions: &[Version]) -> Vec<Version> {
    let mut newest: BTreeMap<_, Version> = BTreeMap::new();
    for version in versions {
        let known = newest.entry(version.identity()).or_insert(*version);
        if version.revision > known.revision {
            *known = *version;
        }
    }
    newest.into_values().filter(|version| !version.is_deleted).collect()
}

pub(super) fn lane(number: i32) -> LaneId {
    LaneId::new("field.topic.v1", number)
}

/// Rows of a table, `schema` its own, or that of its versions, or with `lane` and `day`.
pub(super) fn rows(table: Table, schema: &SchemaRef, versions: &[Version]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| column(table, field, versions)).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

fn column(table: Table, field: &Field, versions: &[Version]) -> ArrayRef {
    let name = field.name().as_str();
    let key_idx = table.def().key.iter().position(|key| *key == name);
    let is_null = |v: &Version| field.is_nullable() && (if key_idx.is_some() { v.key } else { v.value }) % 3 == 0;
    let each = |v: &Version| (!is_null(v)).then_some(if key_idx.is_some() { v.key } else { v.value });
    let counts = || versions.iter().map(each);
    match field.data_type() {
        _ if name == "revision" => Arc::new(versions.iter().map(|v| i64::from(v.revision)).collect::<Int64Array>()),
        _ if name == "is_deleted" => Arc::new(versions.iter().map(|v| Some(v.is_deleted)).collect::<BooleanArray>()),
        _ if name == "lane" => {
            Arc::new(versions.iter().map(|v| Some(lane(v.lane).to_string())).collect::<StringArray>())
        }
        _ if name == "day" => Arc::new(versions.iter().map(|v| Some(DAY_0 + v.day)).collect::<Date32Array>()),
        DataType::Utf8 => Arc::new(counts().map(|n| n.map(|n| format!("{name}-{n}"))).collect::<StringArray>()),
        DataType::Int64 => Arc::new(counts().collect::<Int64Array>()),
        DataType::Float64 => Arc::new(counts().map(|n| n.map(|n| n as f64 / 4.0)).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(counts().map(|n| n.map(|n| n % 2 == 0)).collect::<BooleanArray>()),
        DataType::Date32 => Arc::new(counts().map(|n| n.map(|n| DAY_0 + n as i32)).collect::<Date32Array>()),
        DataType::Timestamp(..) => {
            let is_day = table.def().day == Some(name);
            // Within its day the row's time follows from its key where it is one, else from what the row says.
            let hours = |v: &Version| if is_day && table.def().key.contains(&name) { v.key } else { v.value };
            let time = |v: &Version| i64::from(DAY_0 + v.day) * DAY_US + hours(v).rem_euclid(24) * 3_600_000_000;
            let times = versions.iter().map(|v| (is_day || !is_null(v)).then(|| time(v)));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        DataType::Decimal128(precision, scale) => Arc::new(
            counts()
                .map(|n| n.map(i128::from))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
        ),
        DataType::Binary => Arc::new(BinaryArray::from_iter(counts().map(|n| n.map(i64::to_be_bytes)))),
        other => panic!("no column of {other}"),
    }
}

/// What the lake's table looks like.
pub(super) fn lake_schema(table: Table) -> SchemaRef {
    let versions = table.version_schema();
    let mut fields = versions.fields().to_vec();
    fields.push(Arc::new(Field::new("lane", DataType::Utf8, false)));
    fields.push(Arc::new(Field::new("day", DataType::Date32, false)));
    Arc::new(Schema::new(fields))
}

/// Rows of a lane that holds these versions, one batch a checkpoint.
pub(super) fn fresh(table: Table, versions: &[Version]) -> Vec<FreshRows> {
    let mut lanes: BTreeMap<i32, BTreeMap<u32, Vec<Version>>> = BTreeMap::new();
    for version in versions {
        lanes.entry(version.lane).or_default().entry(version.revision).or_default().push(*version);
    }
    let schema = table.version_schema();
    let fresh = lanes.into_iter().map(|(number, checkpoints)| FreshRows {
        lane: lane(number),
        after: 0,
        durable: u32::MAX,
        rows: checkpoints.into_iter().map(|(number, written)| (number, rows(table, &schema, &written))).collect(),
    });
    fresh.collect()
}

/// A table's rows, transactions and days.
type Stored = (Arc<DayTable>, HashMap<LaneId, u32>, BTreeMap<i32, LakeDay>);

/// A lake of batches in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryLake {
    pub(super) tables: HashMap<String, Stored>,
    /// Tables asked for so far.
    pub(super) pins: Mutex<Vec<String>>,
    pub(super) failure: Option<HistoryError>,
}

impl MemoryLake {
    /// Adds a table with days of batches as a file's reader gives them; `resolved`: days of which the versions are the newest alone.
    pub(super) fn table(
        mut self,
        table: Table,
        versions: &[Version],
        resolved: &[i32],
        knows_days: bool,
    ) -> MemoryLake {
        let mut by_day: BTreeMap<i32, Vec<Version>> = BTreeMap::new();
        for version in versions {
            by_day.entry(version.day).or_default().push(*version);
        }
        let (mut batches, mut days) = (Vec::new(), BTreeMap::new());
        for (day, written) in by_day {
            let is_resolved = resolved.contains(&day);
            days.insert(DAY_0 + day, LakeDay { n_rows: written.len() as u64, is_resolved });
            // Slices of one batch would each count as all of it wherever a query holds them.
            let read = written.chunks(BATCH_ROWS).map(|written| rows(table, &lake_schema(table), written));
            batches.extend(read.map(|batch| (DAY_0 + day, batch)));
        }
        let through = HashMap::new();
        let days = if knows_days { days } else { BTreeMap::new() };
        let provider = Arc::new(DayTable { schema: lake_schema(table), batches, read: Mutex::default() });
        self.tables.insert(table.name().to_owned(), (provider, through, days));
        self
    }

    /// Days of `table` read since the last call, as days after [`DAY_0`], sorted.
    pub(super) fn days_read(&self, table: Table) -> Vec<i32> {
        let mut days = std::mem::take(&mut *self.tables[table.name()].0.read.lock());
        days.sort_unstable();
        days
    }
}

impl History for MemoryLake {
    fn pin<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Option<PinnedTable>, HistoryError>> {
        async move {
            self.pins.lock().push(table.to_owned());
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
            Ok(self.tables.get(table).map(|(provider, through, days)| PinnedTable {
                provider: provider.clone(),
                version: 7,
                through: through.clone(),
                days: days.clone(),
            }))
        }
        .boxed()
    }
}

/// A table that reads only days that pass the filters on `day`, as one partitioned by day does.
#[derive(Debug)]
pub(super) struct DayTable {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<(i32, RecordBatch)>,
    /// Days after [`DAY_0`] that were read.
    pub(super) read: Mutex<Vec<i32>>,
}

fn is_of_day(filter: &Expr) -> bool {
    filter.column_refs().iter().all(|column| column.name == "day")
}

#[async_trait]
impl TableProvider for DayTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match is_of_day(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let day_schema = Schema::new(vec![Field::new("day", DataType::Date32, false)]);
        let df_schema = DFSchema::try_from(day_schema.clone())?;
        let filters = filters.iter().filter(|filter| is_of_day(filter));
        let filters = filters.map(|filter| {
            let filter = datafusion::logical_expr::expr_rewriter::unnormalize_col(filter.clone());
            state.create_physical_expr(filter, &df_schema)
        });
        let filters = filters.collect::<Result<Vec<_>>>()?;
        let mut found = Vec::new();
        for (day, batch) in &self.batches {
            let column: ArrayRef = Arc::new(arrow::array::PrimitiveArray::<Date32Type>::from_value(*day, 1));
            let row = RecordBatch::try_new(Arc::new(day_schema.clone()), vec![column])?;
            let passes = |filter: &Arc<dyn datafusion::physical_expr::PhysicalExpr>| {
                let passed = filter.evaluate(&row)?.into_array(1)?;
                Ok(arrow::array::AsArray::as_boolean(passed.as_ref()).value(0))
            };
            if filters.iter().map(passes).collect::<Result<Vec<bool>>>()?.into_iter().all(|passed| passed) {
                self.read.lock().push(day - DAY_0);
                found.push(vec![batch.clone()]);
            }
        }
        Ok(MemorySourceConfig::try_new_exec(&found, self.schema.clone(), projection.cloned())?)
    }
}
