//! Versions of rows: which is the newest, which are open.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;
use legwork_types::time::DAY_US;
use legwork_types::{Openness, Table};

/// The newest version of each row, retractions included, in the order in which rows first came. Of two with the same revision the later.
/// *Shape* of all: [`Table::version_schema`].
pub(crate) fn newest(table: Table, versions: &[RecordBatch]) -> RecordBatch {
    let schema = table.version_schema();
    let all = concat_batches(&schema, versions).expect("versions have the table's schema");
    if all.num_rows() < 2 {
        return all;
    }
    let keys = keys(table, &all);
    let revisions = all.column_by_name("revision").expect("versions have it").as_primitive::<Int64Type>();
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(all.num_rows());
    let mut kept: Vec<u32> = Vec::with_capacity(all.num_rows());
    for row in 0..all.num_rows() {
        let place = *places.entry(keys.row(row).data()).or_insert(kept.len());
        match kept.get_mut(place) {
            None => kept.push(row as u32),
            Some(held) if revisions.value(row) >= revisions.value(*held as usize) => *held = row as u32,
            Some(_) => {}
        }
    }
    if kept.len() == all.num_rows() {
        return all;
    }
    take_record_batch(&all, &UInt32Array::from(kept)).expect("rows lie within the batch")
}

/// What identifies a row among the versions of a lane: its day and its key.
fn keys(table: Table, versions: &RecordBatch) -> arrow::row::Rows {
    let column = |name: &str| versions.column_by_name(name).expect("keys are columns").clone();
    let mut columns: Vec<ArrayRef> = table.def().key.iter().map(|name| column(name)).collect();
    if let Some(day) = table.def().day {
        let times = column(day);
        let days = times.as_primitive::<TimestampMicrosecondType>().values().iter();
        columns.push(Arc::new(Int64Array::from_iter_values(days.map(|time_us| time_us.div_euclid(DAY_US)))));
    }
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).expect("keys are of plain types");
    converter.convert_columns(&columns).expect("columns have the converter's types")
}

/// Parts versions into those whose row is settled and those whose row is open. A retraction is settled.
pub(crate) fn split_open(table: Table, versions: &RecordBatch) -> (RecordBatch, RecordBatch) {
    let is_open: BooleanArray = match table.def().open {
        Openness::Never => return (versions.clone(), versions.slice(0, 0)),
        Openness::Always => vec![true; versions.num_rows()].into(),
        Openness::While(column) => versions.column_by_name(column).expect("it is a column").as_boolean().clone(),
        Openness::Until(column) => {
            let column = versions.column_by_name(column).expect("it is a column");
            (0..column.len()).map(|row| Some(column.is_null(row))).collect()
        }
    };
    let is_deleted = versions.column_by_name("is_deleted").expect("versions have it").as_boolean();
    let open: BooleanArray =
        (0..versions.num_rows()).map(|row| Some(is_open.value(row) && !is_deleted.value(row))).collect();
    let closed: BooleanArray = open.values().iter().map(|is_open| Some(!is_open)).collect();
    let rows = |mask: &BooleanArray| filter_record_batch(versions, mask).expect("the mask has a value a row");
    (rows(&closed), rows(&open))
}

/// Versions by the number of the checkpoint that wrote them, ascending.
pub(crate) fn by_revision(versions: &RecordBatch) -> Vec<(u32, RecordBatch)> {
    let revisions = versions.column_by_name("revision").expect("versions have it").as_primitive::<Int64Type>();
    if let Some(&first) = revisions.values().first()
        && revisions.values().iter().all(|revision| *revision == first)
    {
        return vec![(u32::try_from(first).unwrap_or(u32::MAX), versions.clone())];
    }
    let mut rows: Vec<(i64, u32)> = (0..).zip(revisions.values()).map(|(row, revision)| (*revision, row)).collect();
    rows.sort_unstable();
    let order = UInt32Array::from_iter_values(rows.iter().map(|(_, row)| *row));
    let sorted = take_record_batch(versions, &order).expect("rows lie within the batch");
    let mut start = 0;
    let run = |run: &[(i64, u32)]| {
        let batch = sorted.slice(start, run.len());
        start += run.len();
        (u32::try_from(run[0].0).unwrap_or(u32::MAX), batch)
    };
    rows.chunk_by(|a, b| a.0 == b.0).map(run).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{Float64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    const MORNING: i64 = 8 * 3_600_000_000;
    const NOON: i64 = 12 * 3_600_000_000;

    /// Device, start, end, revision, whether it is retracted.
    type Stay = (&'static str, i64, Option<i64>, i64, bool);

    fn stays(rows: &[Stay]) -> RecordBatch {
        let times = |times: Vec<Option<i64>>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0; rows.len()]));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::new_null(rows.len())),
            times(rows.iter().map(|row| Some(row.1)).collect()),
            times(rows.iter().map(|row| row.2).collect()),
            zeros.clone(),
            zeros.clone(),
            zeros,
            counts.clone(),
            times(rows.iter().map(|row| Some(row.1)).collect()),
            counts,
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.4)))),
        ];
        RecordBatch::try_new(Table::Stays.version_schema(), columns).unwrap()
    }

    #[test]
    fn the_newest_version_counts_and_open_rows_are_told_apart() {
        let versions = [
            stays(&[("a", MORNING, None, 1, false), ("b", MORNING, Some(NOON), 1, false)]),
            stays(&[("a", MORNING, Some(NOON), 3, false), ("a", NOON, None, 3, false), ("b", MORNING, None, 2, true)]),
            stays(&[("a", MORNING, None, 2, false)]),
        ];
        let newest = newest(Table::Stays, &versions);
        let revisions = |rows: &RecordBatch| rows["revision"].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(revisions(&newest), [3, 2, 3]);
        let (closed, open) = split_open(Table::Stays, &newest);
        assert_eq!((revisions(&closed), revisions(&open)), (vec![3, 2], vec![3]));
        let parts: Vec<_> = by_revision(&newest).iter().map(|(number, rows)| (*number, revisions(rows))).collect();
        assert_eq!(parts, [(2, vec![2]), (3, vec![3, 3])]);
        assert!(by_revision(&newest.slice(0, 0)).is_empty());
        let (closed, open) = split_open(Table::Stays, &newest.slice(0, 0));
        assert_eq!((closed.num_rows(), open.num_rows()), (0, 0));
    }
}
