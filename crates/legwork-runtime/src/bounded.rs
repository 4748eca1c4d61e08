//! Bounded input: files run through the same lanes to their end, then answer questions.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use legwork_codec::files::{FileBatch, FileError, FileInput, FileReader, Places};
use legwork_operators::Need;
use legwork_types::{EventBatch, Kind, LaneId, LaneState, LiveTables, Lookup, SnapshotFuture, Table};
use parking_lot::Mutex;

use crate::lane::{Lane, LaneSpec, Origin, reject_row};
use crate::pipeline::of_batch;
use crate::record_log::Space;
use crate::reference::ReferenceTables;
use crate::{LaneConfig, rows};

/// Runs files to their end: one lane a kind, so that a key stays in its lane; its files in the order given. `progress` is told after
/// each batch how many bytes of how many were read, and how many events.
///
/// *Errors:* when a file cannot be opened or read; rows that are wrong are rejected and counted instead.
pub fn run_files(
    inputs: Vec<FileInput>,
    config: LaneConfig,
    reference: ReferenceTables,
    progress: &mut dyn FnMut(FileProgress),
) -> Result<Arc<dyn LiveTables>, FileError> {
    let name = |kind: Kind| Arc::from(format!("{kind} (files)"));
    let lanes = run_to_end(inputs, config, &name, progress)?;
    let newest_us = lanes.values().filter_map(Lane::newest_us).max();
    Ok(Arc::new(EndedLanes { lanes: Mutex::new(lanes.into_values().collect()), reference, newest_us }))
}

/// As [`run_files`], for what is to be kept: one lane a kind with the name that `name` gives it, and everything that it would hand over at
/// its first checkpoint, open rows closed. *Errors:* as there.
pub fn run_files_to_rows(
    inputs: Vec<FileInput>,
    config: LaneConfig,
    name: &dyn Fn(Kind) -> Arc<str>,
    progress: &mut dyn FnMut(FileProgress),
) -> Result<Vec<EndedLane>, FileError> {
    let lanes = run_to_end(inputs, config, name, progress)?;
    Ok(lanes.into_values().map(EndedLane::new).collect())
}

fn run_to_end(
    inputs: Vec<FileInput>,
    config: LaneConfig,
    name: &dyn Fn(Kind) -> Arc<str>,
    progress: &mut dyn FnMut(FileProgress),
) -> Result<BTreeMap<Kind, Lane>, FileError> {
    let space = Space::open(&config.spill, false);
    let config = Arc::new(config);
    // Each with its rows so far: numbers of rows go on from file to file, so that they tell all rows of a lane apart.
    let mut lanes: BTreeMap<Kind, (Lane, i64)> = BTreeMap::new();
    let readers = inputs
        .into_iter()
        .map(|input| Ok((input.kind, FileReader::open(input)?)))
        .collect::<Result<Vec<_>, FileError>>()?;
    let bytes_total = readers.iter().map(|(_, reader)| reader.progress().1.unwrap_or(0)).sum();
    let mut done = FileProgress { bytes_read: 0, bytes_total, n_events: 0 };
    for (kind, mut reader) in readers {
        let (lane, n_rows) = lanes.entry(kind).or_insert_with(|| {
            let spec = LaneSpec {
                kind,
                topic: name(kind),
                partition: 0,
                past_us_max: None,
                config: config.clone(),
                space: space.clone(),
                metrics: None,
            };
            (Lane::new(&spec), 0)
        });
        let bytes_before = done.bytes_read;
        let first = *n_rows;
        while let Some(batch) = reader.next() {
            let FileBatch { mut events, mut rejects, places } = batch?;
            let rows = Rows { places: &places, first };
            done.n_events += (events.n_rows() + rejects.len()) as u64;
            events.offsets.iter_mut().for_each(|offset| *offset += first);
            for reject in &mut rejects {
                reject.offset += first;
                reject.detail = rows.detail(reject.offset, &reject.detail);
            }
            let offsets = events.offsets.iter().copied().chain(rejects.iter().map(|reject| reject.offset));
            *n_rows = offsets.max().map_or(*n_rows, |newest| (*n_rows).max(newest + 1));
            let events = validated(events, &mut rejects, &rows);
            lane.ingest(events, rejects, &[], &rows, &[]);
            done.bytes_read = bytes_before + reader.progress().0;
            progress(done);
        }
    }
    let end = |(kind, (mut lane, _)): (Kind, (Lane, i64))| {
        lane.end();
        (kind, lane)
    };
    Ok(lanes.into_iter().map(end).collect())
}

/// A lane of files that has come to its end.
pub struct EndedLane {
    lane: Lane,
}

impl std::fmt::Debug for EndedLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndedLane").field("lane", &self.lane()).finish()
    }
}

impl EndedLane {
    fn new(mut lane: Lane) -> EndedLane {
        let settled = lane.settle(Need::Tables, &|_| Err("files have no store".to_owned()));
        settled.expect("an operator without a store wants nothing of it");
        EndedLane { lane }
    }

    /// Its name.
    pub fn lane(&self) -> LaneId {
        self.lane.id()
    }

    /// What its events are.
    pub fn kind(&self) -> Kind {
        self.lane.kind
    }

    /// Newest event time, microseconds.
    pub fn newest_us(&self) -> Option<i64> {
        self.lane.newest_us()
    }

    /// The accounting.
    pub fn status(&self) -> legwork_types::LaneStatus {
        self.lane.status(LaneState::Ended, "", 0, None, false)
    }

    /// Rows of a table of facts, of rejected or of late events, as versions of the first checkpoint. *Shape:* [`Table::version_schema`]; their
    /// order may differ from run to run.
    pub fn versions(&mut self, table: Table) -> Vec<RecordBatch> {
        let Some(rows) = self.lane.snapshot(table.name()) else { return Vec::new() };
        let chunks = (0..rows.n_chunks()).map(|chunk_idx| rows.chunk(chunk_idx, None));
        chunks.map(|rows| rows::first_versions(table, &rows)).collect()
    }

    /// The accepted events as their table has them, in chunks; none where they are not kept. Their order is that of the files.
    pub fn events(&mut self) -> Option<Arc<dyn legwork_types::TableSnapshot>> {
        self.lane.snapshot(self.lane.kind.table())
    }
}

/// How far a run over files has come.
#[derive(Clone, Copy, Debug)]
pub struct FileProgress {
    /// Bytes read of all files.
    pub bytes_read: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Rows read.
    pub n_events: u64,
}

/// Takes out rows whose values are wrong.
fn validated(events: EventBatch, rejects: &mut Vec<legwork_types::Reject>, origin: &Rows<'_>) -> EventBatch {
    let events = EventBatch { columns: legwork_codec::normalise(events.kind, &events.columns), ..events };
    let wrong = legwork_codec::validate(events.kind, &events.columns);
    if wrong.is_empty() {
        return events;
    }
    let mut refused = Vec::with_capacity(wrong.len());
    for (row, reason, detail) in wrong {
        if refused.last() != Some(&row) {
            refused.push(row);
            rejects.push(reject_row(&events, row as usize, reason, &detail, origin));
        }
    }
    events.without(&refused)
}

/// Rows of a file: what stands for the message is the row as JSON.
struct Rows<'b> {
    places: &'b Places,
    /// Number of the file's first row in its lane.
    first: i64,
}

impl Origin for Rows<'_> {
    fn message(&self, events: &EventBatch, row: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<u32>) {
        let json = rows::json_lines(&events.columns.slice(row, 1)).swap_remove(0);
        (json.into_bytes(), None, None)
    }

    fn detail(&self, offset: i64, detail: &str) -> String {
        format!("{}: {detail}", self.places.of(offset - self.first))
    }
}

struct EndedLanes {
    lanes: Mutex<Vec<Lane>>,
    reference: ReferenceTables,
    newest_us: Option<i64>,
}

impl std::fmt::Debug for EndedLanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndedLanes")
    }
}

impl LiveTables for EndedLanes {
    fn snapshot(&self, table: &str) -> SnapshotFuture {
        if let Some(snapshot) = self.reference.get(table) {
            return Box::pin(std::future::ready(Ok(vec![snapshot].into())));
        }
        let mut lanes = self.lanes.lock();
        let snapshots = if table == Table::PipelineLanes.name() {
            let statuses: Vec<_> = lanes
                .iter()
                .map(|lane| {
                    let status = lane.status(LaneState::Ended, "", 0, None, false);
                    let n_read = status.n_read;
                    legwork_types::LaneStatus { next_offset: n_read, end_offset: Some(n_read), ..status }
                })
                .collect();
            vec![of_batch(rows::pipeline_lanes(&statuses))]
        } else {
            lanes.iter_mut().filter_map(|lane| lane.snapshot(table)).collect()
        };
        Box::pin(std::future::ready(Ok(snapshots.into())))
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        let batches: Vec<_> =
            self.lanes.lock().iter_mut().filter_map(|lane| lane.lookup(&lookup)).map(of_batch).collect();
        Box::pin(std::future::ready(Ok(batches.into())))
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        self.newest_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_two_faults_is_one_reject() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pings.csv");
        let text = "device_id,event_time,lat,lon\na,2026-01-05T08:00:00Z,91,181\nb,2026-01-05T08:00:00Z,1,1\nc,2026-01-05T08:00:00Z,91,181\n";
        std::fs::write(&path, text).expect("a file");
        let input = FileInput { kind: Kind::Gps, path, map: Vec::new(), arrival_us: 0, batch_rows: 10 };
        let mut reader = FileReader::open(input).expect("a file of pings");
        let FileBatch { events, mut rejects, places } = reader.next().expect("a batch").expect("rows");
        let events = validated(events, &mut rejects, &Rows { places: &places, first: 0 });
        assert_eq!((events.n_rows(), &*events.offsets), (1, &[1][..]));
        let rejects: Vec<_> = rejects.iter().map(|reject| (reject.offset, reject.detail.as_str())).collect();
        let ends = |end: &str| format!("pings.csv line {end}: field lat is no latitude from -90 to 90");
        assert_eq!(rejects.len(), 2, "{rejects:?}");
        for ((offset, detail), (expected, line)) in rejects.into_iter().zip([(0, "2"), (2, "4")]) {
            assert!(offset == expected && detail.ends_with(&ends(line)), "{offset} {detail}");
        }
    }
}
