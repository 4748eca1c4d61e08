//! Live tables made by hand, from JSON rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use legwork_types::{
    Answer, BatchSnapshot, FreshFuture, FreshRows, Kind, LiveError, LiveTables, Lookup, MissingLane, SnapshotFuture,
    Table, TableSnapshot,
};
use serde_json::{Map, Value, json};

/// Lanes that are on their way have come when they have been looked for so often.
pub(super) const LOOKS: usize = 3;

/// Tables by name; those not set are unknown to it.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) tables: HashMap<String, Vec<Vec<RecordBatch>>>,
    pub(super) schemas: HashMap<String, SchemaRef>,
    /// Snapshots asked for so far.
    pub(super) n_snapshots: Arc<AtomicUsize>,
    pub(super) newest_us: Option<i64>,
    /// How often it was asked for lanes that are not there.
    pub(super) n_looks: AtomicUsize,
    pub(super) lookups: Arc<parking_lot::Mutex<Vec<Lookup>>>,
    pub(super) is_shut: bool,
    /// What lanes hold beyond the lake, by table.
    pub(super) fresh: HashMap<String, Vec<FreshRows>>,
    /// Lanes of every table that are not there.
    pub(super) missing: Arc<parking_lot::Mutex<Vec<MissingLane>>>,
}

impl Fake {
    /// Adds a lane of `table` with these rows, one chunk a row. Columns left out are null, or zero where they may not be.
    pub(super) fn lane(mut self, table: &str, rows: Value) -> Fake {
        let schema = schema_of(table);
        let rows = rows.as_array().unwrap();
        let batches = rows.iter().map(|row| batch(&schema, row.as_object().unwrap())).collect();
        self.schemas.insert(table.to_owned(), schema);
        self.tables.entry(table.to_owned()).or_default().push(batches);
        self
    }

    /// Adds a lane's answer of any columns, as to a look-up.
    pub(super) fn answering(mut self, table: &str, batch: RecordBatch) -> Fake {
        self.schemas.insert(table.to_owned(), batch.schema());
        self.tables.entry(table.to_owned()).or_default().push(vec![batch]);
        self
    }

    fn answer(&self, table: &str) -> Result<Answer<Arc<dyn TableSnapshot>>, LiveError> {
        if self.is_shut {
            return Err(LiveError::ShuttingDown);
        }
        let missing = self.missing.lock().clone();
        let Some(lanes) = self.tables.get(table) else {
            let unknown = LiveError::UnknownTable { table: table.to_owned() };
            return if missing.is_empty() { Err(unknown) } else { Ok(Answer { found: Vec::new(), missing }) };
        };
        let schema = &self.schemas[table];
        let found = lanes.iter().map(|lane| Arc::new(BatchSnapshot::new(schema.clone(), lane.clone())) as _).collect();
        Ok(Answer { found, missing })
    }
}

impl LiveTables for Fake {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        self.n_snapshots.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer(table);
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer
        })
    }

    fn fresh(&self, table: &str) -> FreshFuture {
        let missing = self.missing.lock().clone();
        let answer = match (self.is_shut, self.fresh.get(table)) {
            (true, _) => Err(LiveError::ShuttingDown),
            (false, None) if missing.is_empty() => Err(LiveError::UnknownTable { table: table.to_owned() }),
            (false, found) => Ok(Answer { found: found.cloned().unwrap_or_default(), missing }),
        };
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer
        })
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        let answer = self.answer(&lookup.table);
        self.lookups.lock().push(lookup);
        Box::pin(async move { answer })
    }

    fn missing(&self, _table: &str) -> Vec<MissingLane> {
        let mut missing = self.missing.lock();
        if self.n_looks.fetch_add(1, Ordering::Relaxed) == LOOKS {
            missing.retain(|lane| lane.coming_for.is_none());
        }
        missing.clone()
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        self.newest_us
    }
}

pub(super) fn schema_of(table: &str) -> SchemaRef {
    let kind = || Kind::ALL.into_iter().find(|kind| kind.table() == table).map(crate::catalog::kind_schema);
    Table::by_name(table).map(Table::schema).or_else(kind).unwrap()
}

pub(super) fn batch(schema: &SchemaRef, row: &Map<String, Value>) -> RecordBatch {
    for name in row.keys() {
        assert!(schema.index_of(name).is_ok(), "no column {name}");
    }
    let mut row = row.clone();
    for field in schema.fields() {
        if !field.is_nullable() && !row.contains_key(field.name()) {
            row.insert(field.name().clone(), zero(field.data_type()));
        }
    }
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.serialize(&[Value::Object(row)]).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    assert!(batch.columns().iter().zip(schema.fields()).all(|(c, f)| f.is_nullable() || c.null_count() == 0));
    batch
}

fn zero(data_type: &DataType) -> Value {
    match data_type {
        DataType::Utf8 => json!(""),
        DataType::Boolean => json!(false),
        DataType::Timestamp(..) => json!("1970-01-01T00:00:00Z"),
        DataType::List(_) => json!([]),
        DataType::Binary => json!(""),
        _ => json!(0),
    }
}
