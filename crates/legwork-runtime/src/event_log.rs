//! The accepted events of a lane as a table of their own. Columns that a producer never fills cost nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use legwork_types::{EventBatch, Kind, LaneId, TableSnapshot};

use crate::delivery::{EncodedRows, HeldBytes};
use crate::record_log::{LogSnapshot, RecordLog, Space};

/// Sets of filled columns that are told apart; a stream has one or two. All further ones share a log with every column.
const COLUMN_SETS_MAX: usize = 8;

static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| Kind::ALL.into_iter().map(with_origin).collect());

fn with_origin(kind: Kind) -> SchemaRef {
    let mut fields = kind.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("topic", DataType::Utf8, false)));
    fields.push(Arc::new(Field::new("partition", DataType::Int64, false)));
    fields.push(Arc::new(Field::new("offset", DataType::Int64, false)));
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    fields.push(Arc::new(Field::new("arrival_time", time, false)));
    Arc::new(Schema::new(fields))
}

/// Schema of the table of a kind's events: its columns, then `topic`, `partition`, `offset`, `arrival_time`.
pub fn event_table_schema(kind: Kind) -> SchemaRef {
    SCHEMAS[kind as usize].clone()
}

#[derive(Debug)]
pub(crate) struct EventLog {
    kind: Kind,
    topic: Arc<str>,
    partition: i32,
    space: Arc<Space>,
    /// The older events, encoded.
    files: Vec<EncodedRows>,
    /// They could not be encoded once; it is not tried again.
    is_refused: bool,
    /// By set of filled columns, one bit a column of the kind.
    logs: BTreeMap<u64, RecordLog>,
}

impl EventLog {
    pub(crate) fn new(kind: Kind, topic: Arc<str>, partition: i32, space: Arc<Space>) -> EventLog {
        EventLog { kind, topic, partition, space, files: Vec::new(), is_refused: false, logs: BTreeMap::new() }
    }

    /// Appends accepted events. *Returns* how many of the oldest had to go for them.
    pub(crate) fn push(&mut self, events: &EventBatch) -> u64 {
        let mut filled = filled_columns(&events.columns);
        if !self.logs.contains_key(&filled) && self.logs.len() >= COLUMN_SETS_MAX {
            filled = u64::MAX >> (64 - events.columns.num_columns());
        }
        let schema = event_table_schema(self.kind);
        let log = self
            .logs
            .entry(filled)
            .or_insert_with(|| RecordLog::new(stored_schema(&schema, self.kind, filled), self.space.clone()));
        let mut columns: Vec<ArrayRef> =
            stored_columns(self.kind, filled).map(|column| events.columns.column(column).clone()).collect();
        columns.push(Arc::new(Int64Array::from(events.offsets.clone())));
        columns.push(Arc::new(TimestampMicrosecondArray::from(events.arrival_us.clone()).with_timezone("UTC")));
        let batch = RecordBatch::try_new(stored_schema(&schema, self.kind, filled), columns)
            .expect("canonical columns fit the stored schema");
        log.push(batch)
    }

    /// Rows in all logs.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_plain_rows() + self.files.iter().map(TableSnapshot::n_rows).sum::<usize>()
    }

    /// Rows that are not encoded.
    pub(crate) fn n_plain_rows(&self) -> usize {
        self.logs.values().map(RecordLog::n_rows).sum()
    }

    /// Puts encoded rows in the place of all that are not: small, and ready for the lake.
    ///
    /// *Errors:* `encode`'s, once, or what it made is no Parquet; then nothing has changed.
    pub(crate) fn encode(
        &mut self,
        encode: impl Fn(&[RecordBatch]) -> Result<Vec<Bytes>, String>,
        held: &HeldBytes,
    ) -> Result<(), String> {
        if std::mem::replace(&mut self.is_refused, true) {
            return Ok(());
        }
        let lane = LaneId::new(self.topic.clone(), self.partition);
        let shown = shown_events(self.kind, &lane, self.stored().map_err(|error| error.to_string())?);
        let batches: Vec<RecordBatch> = (0..shown.n_chunks()).map(|idx| shown.chunk(idx, None)).collect();
        let open =
            |file| EncodedRows::open(file, event_table_schema(self.kind), held).map_err(|error| error.to_string());
        let files = encode(&batches)?.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        self.files.extend(files);
        self.logs.clear();
        self.is_refused = false;
        Ok(())
    }

    /// Files of encoded rows, in the order of their rows.
    pub(crate) fn files(&self) -> &[EncodedRows] {
        &self.files
    }

    /// Bytes of rows that are not encoded.
    pub(crate) fn n_plain_bytes(&self) -> u64 {
        self.logs.values().map(RecordLog::n_bytes).sum()
    }

    /// The batches as they are stored, but for what is encoded. *Errors:* a file of the cache folder cannot be read.
    pub(crate) fn stored(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let parts = self.logs.values().map(RecordLog::batches).collect::<Result<Vec<_>, _>>()?;
        Ok(parts.concat())
    }

    /// All rows.
    pub(crate) fn snapshot(&self) -> Arc<dyn TableSnapshot> {
        Arc::new(EventSnapshot {
            kind: self.kind,
            topic: self.topic.clone(),
            partition: self.partition,
            files: self.files.clone(),
            parts: self.logs.iter().map(|(&filled, log)| (filled, log.snapshot())).collect(),
        })
    }
}

/// Stored batches as the table that [`EventLog::snapshot`] shows.
pub(crate) fn shown_events(kind: Kind, lane: &LaneId, stored: Vec<RecordBatch>) -> Arc<dyn TableSnapshot> {
    let columns = kind.schema();
    let filled = |batch: &RecordBatch| {
        let is_stored = |(_, field): &(usize, &Arc<Field>)| batch.schema_ref().index_of(field.name()).is_ok();
        columns.fields().iter().enumerate().filter(is_stored).fold(0, |set, (idx, _)| set | (1 << idx))
    };
    let parts = stored.into_iter().map(|batch| (filled(&batch), LogSnapshot::of_batch(batch)));
    let parts = parts.collect();
    Arc::new(EventSnapshot { kind, topic: lane.topic.clone(), partition: lane.partition, files: Vec::new(), parts })
}

/// One bit for each column that holds anything: a value that is not null and, for strings, not empty.
fn filled_columns(batch: &RecordBatch) -> u64 {
    debug_assert!(batch.num_columns() < 64, "a set of columns is one u64");
    let is_filled = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => {
            let strings = column.as_string::<i32>();
            let offsets = strings.value_offsets();
            offsets[offsets.len() - 1] > offsets[0]
        }
        _ => column.null_count() < column.len(),
    };
    batch.columns().iter().enumerate().filter(|(_, column)| is_filled(column)).fold(0, |set, (idx, _)| set | (1 << idx))
}

fn stored_columns(kind: Kind, filled: u64) -> impl Iterator<Item = usize> {
    (0..kind.schema().fields().len()).filter(move |column| filled & (1 << column) != 0)
}

fn stored_schema(table: &SchemaRef, kind: Kind, filled: u64) -> SchemaRef {
    let n_columns = kind.schema().fields().len();
    let stored = stored_columns(kind, filled).chain([n_columns + 2, n_columns + 3]);
    Arc::new(Schema::new(stored.map(|column| table.fields()[column].clone()).collect::<Vec<_>>()))
}

/// Events at one moment.
#[derive(Debug)]
pub(crate) struct EventSnapshot {
    kind: Kind,
    topic: Arc<str>,
    partition: i32,
    files: Vec<EncodedRows>,
    parts: Vec<(u64, LogSnapshot)>,
}

impl EventSnapshot {
    /// A column of the table from a stored batch: stored, constant, stand-in or null.
    fn column(&self, column: usize, filled: u64, stored: &RecordBatch) -> ArrayRef {
        let n_rows = stored.num_rows();
        let n_columns = self.kind.schema().fields().len();
        let at = |wanted: usize| stored_columns(self.kind, filled).position(|stored| stored == wanted);
        let n_stored = stored.num_columns();
        let offsets = || stored.column(n_stored - 2).as_primitive::<Int64Type>();
        match column - column.min(n_columns) {
            0 if column < n_columns => match at(column) {
                Some(position) if column <= legwork_types::gps::SOURCE => {
                    self.with_stand_ins(column, stored.column(position), offsets())
                }
                Some(position) => stored.column(position).clone(),
                None if column <= legwork_types::gps::SOURCE => Arc::new(self.stand_ins(column, offsets())),
                None => {
                    let field = self.kind.schema().field(column).clone();
                    if field.is_nullable() {
                        new_null_array(field.data_type(), n_rows)
                    } else {
                        // Only a required string can be without any content.
                        Arc::new(repeated("", n_rows))
                    }
                }
            },
            0 => Arc::new(repeated(&self.topic, n_rows)),
            1 => Arc::new(Int64Array::from(vec![i64::from(self.partition); n_rows])),
            2 => stored.column(n_stored - 2).clone(),
            _ => stored.column(n_stored - 1).clone(),
        }
    }

    /// `event_id` and `source` with what stands in where the writer had none.
    fn with_stand_ins(&self, column: usize, values: &ArrayRef, offsets: &Int64Array) -> ArrayRef {
        let strings = values.as_string::<i32>();
        if (0..strings.len()).all(|row| !strings.value(row).is_empty()) {
            return values.clone();
        }
        let stand_ins = self.stand_ins(column, offsets);
        let rows = strings.iter().zip(&stand_ins);
        let filled = rows.map(|(value, stand_in)| value.filter(|value| !value.is_empty()).or(stand_in));
        Arc::new(filled.collect::<StringArray>())
    }

    /// What stands in for every `event_id`, or every `source`.
    fn stand_ins(&self, column: usize, offsets: &Int64Array) -> StringArray {
        if column != legwork_types::gps::EVENT_ID {
            return repeated(&self.topic, offsets.len());
        }
        let mut event_id = format!("{}-{}-", self.topic, self.partition);
        let (origin, mut digits) = (event_id.len(), itoa::Buffer::new());
        let mut event_ids = StringBuilder::with_capacity(offsets.len(), offsets.len() * (origin + 12));
        for offset in offsets.values() {
            event_id.truncate(origin);
            event_id.push_str(digits.format(*offset));
            event_ids.append_value(&event_id);
        }
        event_ids.finish()
    }
}

/// So many times the same string.
fn repeated(text: &str, n_rows: usize) -> StringArray {
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(text.len(), n_rows));
    StringArray::new(offsets, text.repeat(n_rows).into_bytes().into(), None)
}

impl TableSnapshot for EventSnapshot {
    fn schema(&self) -> SchemaRef {
        event_table_schema(self.kind)
    }

    fn n_chunks(&self) -> usize {
        let in_files: usize = self.files.iter().map(TableSnapshot::n_chunks).sum();
        in_files + self.parts.iter().map(|(_, part)| part.n_chunks()).sum::<usize>()
    }

    fn n_rows(&self) -> usize {
        let in_files: usize = self.files.iter().map(TableSnapshot::n_rows).sum();
        in_files + self.parts.iter().map(|(_, part)| part.n_rows()).sum::<usize>()
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let mut chunk_idx = chunk_idx;
        for file in &self.files {
            if chunk_idx < file.n_chunks() {
                return file.chunk(chunk_idx, projection);
            }
            chunk_idx -= file.n_chunks();
        }
        let (filled, part) = self
            .parts
            .iter()
            .find(|(_, part)| {
                let is_here = chunk_idx < part.n_chunks();
                if !is_here {
                    chunk_idx -= part.n_chunks();
                }
                is_here
            })
            .expect("chunk_idx is below n_chunks");
        let stored = part.chunk(chunk_idx, None);
        let schema = self.schema();
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let columns = wanted.iter().map(|&column| self.column(column, *filled, &stored)).collect();
        let schema = Arc::new(schema.project(wanted).expect("projected columns exist"));
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        RecordBatch::try_new_with_options(schema, columns, &options).expect("columns were made for this schema")
    }
}
