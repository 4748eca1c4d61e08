//! Reference data: the newest record of each identity.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;
use legwork_types::time::LaneClock;
use legwork_types::{EventBatch, Kind, TableSnapshot, Verdicts};

use crate::Operator;
use crate::state::{Outcome, Tally};

/// Rows of a piece of Arrow: small batches are gathered until one is full.
const PIECE_ROWS: usize = 8192;

/// Records of a reference kind, newest per identity: the key columns, and `valid_from` where there is one. Of two with one identity
/// the one with the later offset counts. A tombstone removes every record that came with its record key; files have no record keys.
///
/// It has no state to keep and no rows to hand over: its lanes read their compacted topic from the start each time.
#[derive(Debug)]
pub struct Reference {
    kind: Kind,
    schema: SchemaRef,
    identity_columns: Vec<usize>,
    identities: RowConverter,
    places: HashMap<Box<[u8]>, Place>,
    by_record_key: HashMap<Vec<u8>, CameWith>,
    n_record_keys: u32,
    pieces: Vec<Piece>,
    n_dead: usize,
    n_live: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    piece: u32,
    row: u32,
    offset: i64,
    /// Number of the record key that it came with; 0 without one.
    record_key: u32,
}

/// What came with a record key: its number, and identities, of which some may have come with another one since.
#[derive(Clone, Debug, Default)]
struct CameWith {
    number: u32,
    identities: Vec<Box<[u8]>>,
}

#[derive(Clone, Debug)]
struct Piece {
    records: RecordBatch,
    live: Arc<Vec<bool>>,
}

/// Columns that identify a record of a kind besides `valid_from`.
fn identity(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Reps => &["rep_id"],
        Kind::DeviceAssignments => &["device_id"],
        Kind::Teams => &["team_id"],
        Kind::Territories => &["territory_id"],
        Kind::Accounts => &["account_id"],
        Kind::Products => &["product_id"],
        Kind::Stages => &["pipeline_id", "stage"],
        Kind::Quotas => &["rep_id", "metric", "period"],
        Kind::Calendars => &["calendar_id"],
        Kind::FxRates => &["currency", "as_of"],
        _ => unreachable!("{kind} is no reference kind"),
    }
}

impl Reference {
    /// Without records. Panics when `kind` is no reference kind.
    pub fn new(kind: Kind) -> Reference {
        let schema = kind.schema();
        let identity_columns: Vec<usize> = Reference::identity(kind)
            .into_iter()
            .map(|name| schema.index_of(name).expect("an identity is made of columns"))
            .collect();
        let fields = identity_columns.iter().map(|&column| SortField::new(schema.field(column).data_type().clone()));
        let identities = RowConverter::new(fields.collect()).expect("identities are strings, times and dates");
        Reference {
            kind,
            schema,
            identity_columns,
            identities,
            places: HashMap::new(),
            by_record_key: HashMap::new(),
            n_record_keys: 0,
            pieces: Vec::new(),
            n_dead: 0,
            n_live: 0,
        }
    }

    /// Columns that tell the records of a kind apart; together the record key with which a compacted topic keeps them all.
    pub fn identity(kind: Kind) -> Vec<&'static str> {
        let has_history = kind.schema().column_with_name("valid_from").is_some();
        identity(kind).iter().copied().chain(has_history.then_some("valid_from")).collect()
    }

    /// Appends a batch's rows, all dead for now; gives where they start.
    fn store(&mut self, columns: &RecordBatch) -> (u32, u32) {
        let columns = RecordBatch::try_new(self.schema.clone(), columns.columns().to_vec())
            .expect("batches have the columns of their kind");
        let piece_idx = match self.pieces.last_mut() {
            Some(last) if last.records.num_rows() + columns.num_rows() <= PIECE_ROWS => {
                let start = last.records.num_rows();
                last.records = concat_batches(&self.schema, [&last.records, &columns]).expect("one schema for all");
                Arc::make_mut(&mut last.live).resize(start + columns.num_rows(), false);
                return (number(self.pieces.len() - 1), number(start));
            }
            _ => self.pieces.len(),
        };
        let live = Arc::new(vec![false; columns.num_rows()]);
        self.pieces.push(Piece { records: columns, live });
        (number(piece_idx), 0)
    }

    fn set_live(&mut self, place: Place, live: bool) {
        Arc::make_mut(&mut self.pieces[place.piece as usize].live)[place.row as usize] = live;
    }

    fn put(&mut self, identity: &[u8], mut place: Place, record_key: Option<&[u8]>) -> Outcome {
        if let Some(record_key) = record_key {
            let came_with = self.by_record_key.entry_ref(record_key).or_default();
            if came_with.number == 0 {
                self.n_record_keys += 1;
                came_with.number = self.n_record_keys;
            }
            if !came_with.identities.iter().any(|known| **known == *identity) {
                came_with.identities.push(identity.into());
            }
            place.record_key = came_with.number;
        }
        match self.places.get_mut(identity) {
            Some(old) if old.offset >= place.offset => {
                self.n_dead += 1;
                return Outcome::Duplicate;
            }
            Some(old) => {
                let old = std::mem::replace(old, place);
                self.set_live(old, false);
                self.n_dead += 1;
            }
            None => {
                self.places.insert(identity.into(), place);
                self.n_live += 1;
            }
        }
        self.set_live(place, true);
        Outcome::Accepted { is_reordered: false }
    }

    /// Copies the live rows together once they are fewer than the dead ones.
    fn compact(&mut self) {
        if self.n_dead <= self.n_live + PIECE_ROWS {
            return;
        }
        let mut moved = Vec::with_capacity(self.pieces.len());
        let mut live = Vec::with_capacity(self.pieces.len());
        let mut n_rows = 0;
        for piece in &self.pieces {
            let kept: Vec<u32> = (0..number(piece.live.len())).filter(|&row| piece.live[row as usize]).collect();
            let mut new_rows = vec![0; piece.live.len()];
            for &row in &kept {
                new_rows[row as usize] = n_rows;
                n_rows += 1;
            }
            moved.push(new_rows);
            live.push(take_record_batch(&piece.records, &UInt32Array::from(kept)).expect("rows lie within the piece"));
        }
        let records = concat_batches(&self.schema, &live).expect("one schema for all");
        for place in self.places.values_mut() {
            let row = moved[place.piece as usize][place.row as usize];
            (place.piece, place.row) = (row / number(PIECE_ROWS), row % number(PIECE_ROWS));
        }
        self.pieces = (0..records.num_rows())
            .step_by(PIECE_ROWS)
            .map(|start| {
                let n_rows = PIECE_ROWS.min(records.num_rows() - start);
                Piece { records: records.slice(start, n_rows), live: Arc::new(vec![true; n_rows]) }
            })
            .collect();
        self.n_dead = 0;
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).expect("reference data has fewer than 2^32 rows")
}

impl Operator for Reference {
    fn apply(&mut self, events: &EventBatch, _clock: &LaneClock) -> Verdicts {
        let (piece, start) = self.store(&events.columns);
        let columns: Vec<_> = self.identity_columns.iter().map(|&c| events.columns.column(c).clone()).collect();
        let identities = self.identities.convert_columns(&columns).expect("batches have the columns of their kind");
        let mut tally = Tally::default();
        for row in 0..events.n_rows() {
            let place = Place { piece, row: start + number(row), offset: events.offsets[row], record_key: 0 };
            let record_key = events.keys.as_ref().filter(|keys| keys.is_valid(row)).map(|keys| keys.value(row));
            let outcome = self.put(identities.row(row).as_ref(), place, record_key);
            tally.count(row, outcome);
        }
        self.compact();
        tally.verdicts()
    }

    fn delete(&mut self, keys: &[&[u8]], _clock: &LaneClock) {
        for key in keys {
            let came_with = self.by_record_key.remove(*key).unwrap_or_default();
            for identity in came_with.identities {
                if self.places.get(&identity).is_none_or(|place| place.record_key != came_with.number) {
                    continue;
                }
                if let Some(place) = self.places.remove(&identity) {
                    self.set_live(place, false);
                    self.n_live -= 1;
                    self.n_dead += 1;
                }
            }
        }
        self.compact();
    }

    fn tables(&self) -> Vec<&'static str> {
        vec![self.kind.table()]
    }

    fn snapshot(&mut self, table: &str, _clock: &LaneClock) -> Option<Arc<dyn TableSnapshot>> {
        (table == self.kind.table()).then(|| {
            let (schema, pieces, n_rows) = (self.schema.clone(), self.pieces.clone(), self.n_live);
            Arc::new(PieceSnapshot { schema, pieces, n_rows }) as Arc<dyn TableSnapshot>
        })
    }

    fn memory_bytes(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|p| p.records.get_array_memory_size() + p.live.capacity()).sum();
        // An identity is a box of some 32 bytes in one map, and in the other with its record key.
        pieces + self.places.len() * 64 + self.by_record_key.len() * 96
    }
}

#[derive(Debug)]
struct PieceSnapshot {
    schema: SchemaRef,
    pieces: Vec<Piece>,
    n_rows: usize,
}

impl TableSnapshot for PieceSnapshot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn n_chunks(&self) -> usize {
        self.pieces.len()
    }

    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn chunk(&self, chunk_idx: usize, projection: Option<&[usize]>) -> RecordBatch {
        let piece = &self.pieces[chunk_idx];
        let records = match projection {
            Some(columns) => piece.records.project(columns).expect("projected columns exist"),
            None => piece.records.clone(),
        };
        let live = BooleanArray::from(piece.live.as_ref().clone());
        filter_record_batch(&records, &live).expect("a flag per row")
    }
}
