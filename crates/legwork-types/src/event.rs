//! A batch of decoded events, and what was wrong with those that could not be decoded.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, BinaryArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};

use crate::Kind;

/// Decoded events of one kind from one partition, in the order of their offsets.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// Kind of every row.
    pub kind: Kind,
    /// Topic, or the file's name.
    pub topic: Arc<str>,
    /// Partition; 0 for files.
    pub partition: i32,
    /// *Shape:* N rows, columns as [`Kind::schema`]. An empty `event_id` or `source` stands for the stand-in.
    pub columns: RecordBatch,
    /// *Shape:* N. Offset of each row; the row's number for files.
    pub offsets: Vec<i64>,
    /// *Shape:* N. Arrival time of each row, microseconds since 1970-01-01 UTC.
    pub arrival_us: Vec<i64>,
    /// *Shape:* N. Record keys, present only for reference kinds read from a topic.
    pub keys: Option<BinaryArray>,
}

impl EventBatch {
    /// Number of events.
    pub fn n_rows(&self) -> usize {
        self.columns.num_rows()
    }

    /// A string column by position. Panics when the column is no Utf8: canonical batches are checked where they are made.
    pub fn strings(&self, column: usize) -> &StringArray {
        self.columns.column(column).as_string()
    }

    /// A time column by position, microseconds.
    pub fn times(&self, column: usize) -> &arrow::array::TimestampMicrosecondArray {
        self.columns.column(column).as_primitive::<TimestampMicrosecondType>()
    }

    /// A Float64 column by position.
    pub fn f64s(&self, column: usize) -> &arrow::array::Float64Array {
        self.columns.column(column).as_primitive::<Float64Type>()
    }

    /// An Int64 column by position.
    pub fn i64s(&self, column: usize) -> &arrow::array::Int64Array {
        self.columns.column(column).as_primitive::<Int64Type>()
    }

    /// Event times of all rows, microseconds. Events only.
    pub fn event_time_us(&self) -> &[i64] {
        self.times(crate::gps::EVENT_TIME).values()
    }

    /// Event id of a row, with topic-partition-offset standing in for an empty one.
    pub fn event_id(&self, row: usize) -> std::borrow::Cow<'_, str> {
        match self.strings(crate::gps::EVENT_ID).value(row) {
            "" => format!("{}-{}-{}", self.topic, self.partition, self.offsets[row]).into(),
            id => id.into(),
        }
    }

    /// Source of a row, with the topic standing in for an empty one.
    pub fn source(&self, row: usize) -> &str {
        match self.strings(crate::gps::SOURCE).value(row) {
            "" => &self.topic,
            source => source,
        }
    }

    /// The rows whose numbers are given, in that order.
    pub fn take(&self, rows: &[u32]) -> EventBatch {
        let indices = arrow::array::UInt32Array::from(rows.to_vec());
        let pick = |values: &[i64]| rows.iter().map(|&row| values[row as usize]).collect();
        EventBatch {
            kind: self.kind,
            topic: self.topic.clone(),
            partition: self.partition,
            columns: arrow::compute::take_record_batch(&self.columns, &indices)
                .expect("row numbers lie within the batch"),
            offsets: pick(&self.offsets),
            arrival_us: pick(&self.arrival_us),
            keys: self.keys.as_ref().map(|keys| {
                let taken = arrow::compute::take(keys, &indices, None).expect("row numbers lie within the batch");
                taken.as_binary().clone()
            }),
        }
    }

    /// All rows but those whose numbers are given.
    pub fn without(&self, rows: &[u32]) -> EventBatch {
        let keep = all_but(self.n_rows(), rows);
        let kept = |values: &[i64]| {
            let mut kept = Vec::with_capacity(values.len());
            keep.values().set_slices().for_each(|(from, to)| kept.extend_from_slice(&values[from..to]));
            kept
        };
        EventBatch {
            kind: self.kind,
            topic: self.topic.clone(),
            partition: self.partition,
            columns: arrow::compute::filter_record_batch(&self.columns, &keep)
                .expect("the mask has the batch's length"),
            offsets: kept(&self.offsets),
            arrival_us: kept(&self.arrival_us),
            keys: self.keys.as_ref().map(|keys| {
                let kept = arrow::compute::filter(keys, &keep).expect("the mask has the batch's length");
                kept.as_binary().clone()
            }),
        }
    }
}

/// *Returns* a mask of `n_rows` rows that is false for those whose numbers are given. Few of many are left out faster by a mask than by
/// the numbers of all others.
pub fn all_but(n_rows: usize, rows: &[u32]) -> BooleanArray {
    let mut keep = BooleanBufferBuilder::new(n_rows);
    keep.append_n(n_rows, true);
    rows.iter().for_each(|&row| keep.set_bit(row as usize, false));
    BooleanArray::new(keep.finish(), None)
}

/// What became of an event that was handed to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Counted, or stored as a version.
    Accepted,
    /// The same event again, or one that loses against the one already there.
    Duplicate,
    /// Behind its key's clock by more than the late horizon.
    Late,
}

/// Verdicts of one batch: a list only of the rows that were not accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Rows that were not accepted, ascending by row, with what became of them.
    pub refused: Vec<(u32, Verdict)>,
    /// Accepted rows that were older than the newest event of their key.
    pub n_reordered: u64,
}

impl Verdicts {
    /// Rows with this verdict among the refused ones.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.refused.iter().filter(|(_, v)| *v == verdict).count() as u64
    }
}

/// Why a message was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// No magic byte and schema id in front, or too short for them.
    BadFraming,
    /// The registry does not know the schema id.
    UnknownSchema,
    /// The writer's schema cannot be resolved with ours.
    IncompatibleSchema,
    /// The body ended before its schema did.
    Truncated,
    /// Bytes follow the body.
    TrailingBytes,
    /// The body contradicts its schema or is no JSON.
    Malformed,
    /// A field has a value of the wrong type.
    WrongType,
    /// A field that is needed is missing or null.
    MissingField,
    /// A value outside its range: a latitude of 91, a status nobody knows.
    InvalidValue,
    /// Larger than `kafka.message_bytes_max`.
    Oversized,
    /// Event time too far after arrival.
    FromFuture,
    /// Event time older than `past_max`.
    TooOld,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [RejectReason; 12] = [
        RejectReason::BadFraming,
        RejectReason::UnknownSchema,
        RejectReason::IncompatibleSchema,
        RejectReason::Truncated,
        RejectReason::TrailingBytes,
        RejectReason::Malformed,
        RejectReason::WrongType,
        RejectReason::MissingField,
        RejectReason::InvalidValue,
        RejectReason::Oversized,
        RejectReason::FromFuture,
        RejectReason::TooOld,
    ];

    /// Name in tables, headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RejectReason::BadFraming => "bad_framing",
            RejectReason::UnknownSchema => "unknown_schema",
            RejectReason::IncompatibleSchema => "incompatible_schema",
            RejectReason::Truncated => "truncated",
            RejectReason::TrailingBytes => "trailing_bytes",
            RejectReason::Malformed => "malformed",
            RejectReason::WrongType => "wrong_type",
            RejectReason::MissingField => "missing_field",
            RejectReason::InvalidValue => "invalid_value",
            RejectReason::Oversized => "oversized",
            RejectReason::FromFuture => "from_future",
            RejectReason::TooOld => "too_old",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message that could not become an event. It carries no personal data beyond its own bytes: `detail` names fields, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Offset of the message; the row's number for files.
    pub offset: i64,
    /// Arrival time, microseconds since 1970-01-01 UTC.
    pub arrival_us: i64,
    /// Why.
    pub reason: RejectReason,
    /// What was expected and what was found; lowercase, no full stop.
    pub detail: String,
    /// Schema id of the framing, where there was one.
    pub schema_id: Option<u32>,
    /// Record key, where there was one.
    pub key: Option<Vec<u8>>,
    /// The message's value as it came.
    pub payload: Vec<u8>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{ArrayRef, StringArray, new_null_array};
    use proptest::prelude::*;

    use super::*;

    fn batch(n_rows: usize) -> EventBatch {
        let schema = Kind::Gps.schema();
        let numbers: ArrayRef = Arc::new(StringArray::from_iter_values((0..n_rows).map(|row| row.to_string())));
        let column = |field: &Arc<arrow::datatypes::Field>| match field.name().as_str() {
            "rep_id" => numbers.clone(),
            _ => new_null_array(field.data_type(), n_rows),
        };
        let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let columns = schema.fields().iter().map(column).collect();
        EventBatch {
            kind: Kind::Gps,
            topic: "t".into(),
            partition: 3,
            columns: RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap(),
            offsets: (0..n_rows as i64).collect(),
            arrival_us: (0..n_rows as i64).map(|row| row * 10).collect(),
            keys: Some(BinaryArray::from_iter_values((0..n_rows).map(|row| row.to_string()))),
        }
    }

    proptest! {
        #[test]
        fn without_some_rows_are_the_others(n_rows in 0usize..200, some in proptest::collection::vec(0u32..200, 0..20)) {
            let batch = batch(n_rows);
            let some: BTreeSet<u32> = some.into_iter().filter(|row| (*row as usize) < n_rows).collect();
            let others: Vec<u32> = (0..n_rows as u32).filter(|row| !some.contains(row)).collect();
            let (left, taken) = (batch.without(&some.into_iter().collect::<Vec<_>>()), batch.take(&others));
            prop_assert_eq!((left.columns, left.offsets, left.arrival_us, left.keys), (taken.columns, taken.offsets, taken.arrival_us, taken.keys));
        }
    }
}
