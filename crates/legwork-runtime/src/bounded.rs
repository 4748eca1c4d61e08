//! Bounded input: files run through the same lanes to their end, then answer questions.

use std::collections::BTreeMap;
use std::sync::Arc;

use legwork_codec::files::{FileBatch, FileError, FileInput, FileReader};
use legwork_types::{EventBatch, Kind, LaneState, LiveTables, Lookup, SnapshotFuture, Table};
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
    let space = Space::open(&config.spill);
    let config = Arc::new(config);
    let mut lanes: BTreeMap<Kind, Lane> = BTreeMap::new();
    let readers = inputs
        .into_iter()
        .map(|input| Ok((input.kind, FileReader::open(input)?)))
        .collect::<Result<Vec<_>, FileError>>()?;
    let bytes_total = readers.iter().map(|(_, reader)| reader.progress().1.unwrap_or(0)).sum();
    let mut done = FileProgress { bytes_read: 0, bytes_total, n_events: 0 };
    for (kind, mut reader) in readers {
        let lane = lanes.entry(kind).or_insert_with(|| {
            let name: Arc<str> = Arc::from(format!("{kind} (files)"));
            Lane::new(&LaneSpec {
                kind,
                topic: name,
                partition: 0,
                past_us_max: None,
                config: config.clone(),
                space: space.clone(),
                metrics: None,
            })
        });
        let bytes_before = done.bytes_read;
        while let Some(batch) = reader.next() {
            let FileBatch { events, mut rejects } = batch?;
            done.n_events += (events.n_rows() + rejects.len()) as u64;
            let events = validated(events, &mut rejects);
            lane.ingest(events, rejects, &[], &Rows);
            done.bytes_read = bytes_before + reader.progress().0;
            progress(done);
        }
    }
    for lane in lanes.values_mut() {
        lane.end();
    }
    let newest_us = lanes.values().filter_map(Lane::newest_us).max();
    Ok(Arc::new(EndedLanes { lanes: Mutex::new(lanes.into_values().collect()), reference, newest_us }))
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
fn validated(events: EventBatch, rejects: &mut Vec<legwork_types::Reject>) -> EventBatch {
    let events = EventBatch { columns: legwork_codec::normalise(events.kind, &events.columns), ..events };
    let wrong = legwork_codec::validate(events.kind, &events.columns);
    if wrong.is_empty() {
        return events;
    }
    let mut refused = Vec::with_capacity(wrong.len());
    for (row, reason, detail) in wrong {
        if refused.last() != Some(&row) {
            refused.push(row);
            rejects.push(reject_row(&events, row as usize, reason, &detail, &Rows));
        }
    }
    events.take(&rows::others(events.n_rows(), &refused))
}

/// Rows of files: what stands for the message is the row as JSON.
struct Rows;

impl Origin for Rows {
    fn message(&self, events: &EventBatch, row: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<u32>) {
        let json = rows::json_lines(&events.columns.slice(row, 1)).swap_remove(0);
        (json.into_bytes(), None, None)
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
            return Box::pin(std::future::ready(Ok(vec![snapshot])));
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
        Box::pin(std::future::ready(Ok(snapshots)))
    }

    fn lookup(&self, lookup: Lookup) -> SnapshotFuture {
        let batches: Vec<_> =
            self.lanes.lock().iter_mut().filter_map(|lane| lane.lookup(&lookup)).map(of_batch).collect();
        Box::pin(std::future::ready(Ok(batches)))
    }

    fn newest_event_time_us(&self) -> Option<i64> {
        self.newest_us
    }
}
