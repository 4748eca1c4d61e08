//! Questions about one device.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use legwork_types::time::window_start;
use legwork_types::{ColumnType, Lookup};

use crate::track::device::Device;
use crate::track::explain::Explained;
use crate::track::fold::{Decision, Params};
use crate::track::names::Names;
use crate::track::tables::{flags, measures, opt_measures, seconds, texts, times};

fn schema(columns: &[(&str, ColumnType, bool)]) -> SchemaRef {
    let field = |(name, column_type, nullable): &(&str, ColumnType, bool)| -> Field {
        let data_type: DataType = column_type.data_type();
        Field::new(*name, data_type, *nullable)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Columns of `explain_track`.
static EXPLAIN: LazyLock<SchemaRef> = LazyLock::new(|| {
    use ColumnType::{Flag, Measure, Text, Time};
    schema(&[
        ("device_id", Text, false),
        ("rep_id", Text, true),
        ("window_start", Time, false),
        ("event_time", Time, false),
        ("lat", Measure, false),
        ("lon", Measure, false),
        ("accuracy_m", Measure, true),
        ("mock", Flag, false),
        ("decision", Text, false),
        ("raw_m", Measure, false),
        ("distance_m", Measure, false),
        ("gap_m", Measure, false),
        ("moving_s", Measure, false),
        ("stationary_s", Measure, false),
        ("gap_s", Measure, false),
    ])
});

/// Columns of `track_at`.
static TRACK_AT: LazyLock<SchemaRef> = LazyLock::new(|| {
    use ColumnType::{Flag, Measure, Text, Time};
    schema(&[
        ("device_id", Text, false),
        ("side", Text, false),
        ("event_time", Time, false),
        ("lat", Measure, false),
        ("lon", Measure, false),
        ("accuracy_m", Measure, true),
        ("mock", Flag, false),
        ("decision", Text, false),
    ])
});

fn accuracies(pings: &[Explained]) -> ArrayRef {
    opt_measures(pings.iter().map(|e| f64::from(e.ping.accuracy_m)))
}

/// The pings of some chunks, and of those behind them until it stands what became of the pings before `until_us`; or first pings of chunks
/// that are needed for that and are not in memory, all that are known by now.
fn explained(
    device: &Device,
    params: &Params,
    chunks: RangeInclusive<usize>,
    until_us: i64,
) -> Result<Vec<Explained>, Vec<i64>> {
    let sealed = chunks.clone().filter_map(|chunk_idx| device.chunks().get(chunk_idx));
    let missing: Vec<i64> = sealed.filter(|chunk| chunk.body.is_none()).map(|chunk| chunk.first_us).collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    match device.explain(params, chunks, until_us) {
        (pings, None) => Ok(pings),
        (_, Some(first_us)) => Err(vec![first_us]),
    }
}

/// Chunks over a span.
fn chunks_over(device: &Device, lookup: &Lookup) -> RangeInclusive<usize> {
    device.chunk_of(lookup.from_us)..=device.chunk_of(lookup.to_us)
}

/// First pings of chunks that are needed to explain a span.
pub(crate) fn explain_wants(lookup: &Lookup, device: &Device, params: &Params) -> Vec<i64> {
    explained(device, params, chunks_over(device, lookup), lookup.to_us).err().unwrap_or_default()
}

/// The pings of a device in a span, with what each adds to its row: rows of a window and rep, added in order, give the row exactly.
pub(crate) fn explain_track(lookup: &Lookup, device: Option<&Device>, params: &Params, reps: &Names) -> RecordBatch {
    let mut pings =
        device.map_or_else(Vec::new, |device| device.explain(params, chunks_over(device, lookup), lookup.to_us).0);
    pings.retain(|e| (lookup.from_us..lookup.to_us).contains(&e.ping.time_us));
    let columns: Vec<ArrayRef> = vec![
        texts(pings.iter().map(|_| Some(lookup.key.as_str()))),
        texts(pings.iter().map(|e| device.and_then(|device| device.reps.name(reps, e.ping.rep)))),
        times(pings.iter().map(|e| Some(window_start(e.ping.time_us, params.window_us)))),
        times(pings.iter().map(|e| Some(e.ping.time_us))),
        measures(pings.iter().map(|e| e.ping.lat)),
        measures(pings.iter().map(|e| e.ping.lon)),
        accuracies(&pings),
        flags(pings.iter().map(|e| e.ping.mock)),
        texts(pings.iter().map(|e| Some(e.decision.as_str()))),
        measures(pings.iter().map(|e| e.raw_m)),
        measures(pings.iter().map(|e| e.share.distance_m)),
        measures(pings.iter().map(|e| e.share.gap_m)),
        measures(pings.iter().map(|e| seconds(e.share.moving_us))),
        measures(pings.iter().map(|e| seconds(e.share.still_us))),
        measures(pings.iter().map(|e| seconds(e.share.gap_us))),
    ];
    RecordBatch::try_new(EXPLAIN.clone(), columns).expect("the columns are built after the schema")
}

/// Fixes with a believable position around a moment; or first pings of chunks that are needed to be sure that they are the nearest.
fn around(lookup: &Lookup, device: &Device, params: &Params) -> Result<Vec<Explained>, Vec<i64>> {
    let at_us = lookup.from_us;
    let (mut first, mut last) = (device.chunk_of(at_us), device.chunk_of(at_us));
    let mut until_us = at_us.saturating_add(1);
    loop {
        let mut pings = explained(device, params, first..=last, until_us)?;
        pings.retain(|e| !matches!(e.decision, Decision::Invalid | Decision::Accuracy | Decision::Speed));
        let n_before = pings.partition_point(|e| e.ping.time_us <= at_us);
        let (lacks_before, lacks_after) =
            (n_before == 0 && first > 0, n_before == pings.len() && last < device.n_sealed());
        let after_us = pings.get(n_before).map_or(until_us, |after| after.ping.time_us.saturating_add(1));
        if !(lacks_before || lacks_after || after_us > until_us) {
            return Ok(pings);
        }
        (first, last) = (first - usize::from(lacks_before), last + usize::from(lacks_after));
        until_us = until_us.max(after_us);
    }
}

/// First pings of chunks that are needed to tell the fixes nearest to a moment.
pub(crate) fn track_at_wants(lookup: &Lookup, device: &Device, params: &Params) -> Vec<i64> {
    around(lookup, device, params).err().unwrap_or_default()
}

/// The fixes of a device nearest to a moment: the last at or before it, the first after it. Mock ones are among them and say so, since
/// they are evidence; fixes without a believable position are not.
pub(crate) fn track_at(lookup: &Lookup, device: Option<&Device>, params: &Params, _reps: &Names) -> RecordBatch {
    let pings = device.and_then(|device| around(lookup, device, params).ok()).unwrap_or_default();
    let n_before = pings.partition_point(|e| e.ping.time_us <= lookup.from_us);
    let mut sides = Vec::new();
    let mut near = Vec::new();
    if n_before > 0 {
        sides.push("before");
        near.push(pings[n_before - 1]);
    }
    if let Some(after) = pings.get(n_before) {
        sides.push("after");
        near.push(*after);
    }
    let columns: Vec<ArrayRef> = vec![
        texts(near.iter().map(|_| Some(lookup.key.as_str()))),
        texts(sides.into_iter().map(Some)),
        times(near.iter().map(|e| Some(e.ping.time_us))),
        measures(near.iter().map(|e| e.ping.lat)),
        measures(near.iter().map(|e| e.ping.lon)),
        accuracies(&near),
        flags(near.iter().map(|e| e.ping.mock)),
        texts(near.iter().map(|e| Some(e.decision.as_str()))),
    ];
    RecordBatch::try_new(TRACK_AT.clone(), columns).expect("the columns are built after the schema")
}
