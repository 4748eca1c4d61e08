//! Questions about one device.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use legwork_types::time::window_start;
use legwork_types::{ColumnType, Lookup};

use crate::track::device::Device;
use crate::track::explain::Explained;
use crate::track::fold::{Decision, Params};
use crate::track::names::Names;
use crate::track::tables::{flags, measures, opt_measures, rep_name, seconds, texts, times};

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

/// The pings of a device in a span, with what each adds to its row: rows of a window and rep, added in order, give the row exactly.
pub(crate) fn explain_track(lookup: &Lookup, device: Option<&Device>, params: &Params, reps: &Names) -> RecordBatch {
    let mut pings = device.map_or_else(Vec::new, |device| device.explain(params));
    pings.retain(|e| (lookup.from_us..lookup.to_us).contains(&e.ping.time_us));
    let columns: Vec<ArrayRef> = vec![
        texts(pings.iter().map(|_| Some(lookup.key.as_str()))),
        texts(pings.iter().map(|e| rep_name(reps, e.ping.rep))),
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

/// The fixes of a device nearest to a moment: the last at or before it, the first after it. Mock ones are among them and say so, since
/// they are evidence; fixes without a believable position are not.
pub(crate) fn track_at(lookup: &Lookup, device: Option<&Device>, params: &Params, _reps: &Names) -> RecordBatch {
    let mut pings = device.map_or_else(Vec::new, |device| device.explain(params));
    pings.retain(|e| !matches!(e.decision, Decision::Invalid | Decision::Accuracy | Decision::Speed));
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
