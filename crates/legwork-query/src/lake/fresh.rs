//! What the lanes hold beyond a version of the lake, made ready for scans.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Date32Array, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Date32Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;
use legwork_types::{FreshRows, LaneId};

use super::days::{DaySet, day_of_us};
use super::scan::conform;

/// Name of the lake's column that holds a row's lane.
pub(super) const LANE: &str = "lane";
/// Name of the lake's column that holds a row's UTC day.
pub(super) const DAY: &str = "day";

/// Rows of one lane and checkpoint.
#[derive(Debug)]
struct Batch {
    lane: Arc<str>,
    rows: RecordBatch,
    days: Date32Array,
    /// First and last day.
    span: (i32, i32),
}

/// What the lanes hold of a table.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    batches: Vec<Batch>,
    n_rows_by_day: BTreeMap<i32, u64>,
}

impl Fresh {
    /// Of rows whose day is that of `time_column`.
    pub(super) fn of_versions(lanes: Vec<FreshRows>, time_column: &str) -> Result<Fresh> {
        let mut fresh = Fresh::default();
        for FreshRows { lane, rows, .. } in lanes {
            let lane: Arc<str> = lane.to_string().into();
            for (_, rows) in rows {
                fresh.add(lane.clone(), rows, time_column)?;
            }
        }
        Ok(fresh)
    }

    /// Of events: those of checkpoints that the lake does not hold yet. Events have one version and are never written twice.
    pub(super) fn of_events(lanes: Vec<FreshRows>, through: &HashMap<LaneId, u32>, time_column: &str) -> Result<Fresh> {
        let beyond = |mut fresh: FreshRows| {
            if let Some(through) = through.get(&fresh.lane) {
                fresh.rows.retain(|(checkpoint, _)| checkpoint > through);
            }
            fresh
        };
        Fresh::of_versions(lanes.into_iter().map(beyond).collect(), time_column)
    }

    fn add(&mut self, lane: Arc<str>, rows: RecordBatch, time_column: &str) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let time = rows.column(rows.schema().index_of(time_column)?);
        let days: Date32Array = match time.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                time.as_primitive::<TimestampMicrosecondType>().unary(day_of_us)
            }
            _ => cast(time, &DataType::Date32)?.as_primitive::<Date32Type>().clone(),
        };
        let mut span = (i32::MAX, i32::MIN);
        for &day in days.values() {
            span = (span.0.min(day), span.1.max(day));
            *self.n_rows_by_day.entry(day).or_default() += 1;
        }
        self.batches.push(Batch { lane, rows, days, span });
        Ok(())
    }

    /// Days that have rows here, and how many.
    pub(super) fn days(&self) -> &BTreeMap<i32, u64> {
        &self.n_rows_by_day
    }

    /// Rows of these days. *Shape:* columns as in `schema`, [`LANE`] and [`DAY`] where it asks for them.
    pub(super) fn rows(&self, days: &DaySet, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let mut found = Vec::new();
        for batch in &self.batches {
            let is_within = days.contains_range(batch.span.0, batch.span.1);
            let rows = batch.with_place(schema)?;
            let rows = match is_within {
                true => rows,
                false => {
                    let wanted: BooleanArray =
                        batch.days.values().iter().map(|day| Some(days.contains(*day))).collect();
                    filter_record_batch(&rows, &wanted)?
                }
            };
            if rows.num_rows() > 0 {
                found.push(rows);
            }
        }
        Ok(found)
    }
}

impl Batch {
    fn with_place(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let own = self.rows.schema();
        let (mut fields, mut columns) = (own.fields().to_vec(), self.rows.columns().to_vec());
        let mut add = |name: &str, column: Arc<dyn Array>| {
            if let (Ok(field), Err(_)) = (schema.field_with_name(name), own.index_of(name)) {
                fields.push(Arc::new(field.clone()));
                columns.push(column);
            }
        };
        add(LANE, Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.lane, self.rows.num_rows()))));
        add(DAY, Arc::new(self.days.clone()));
        let rows = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns)?;
        Ok(conform(&rows, schema)?)
    }
}
