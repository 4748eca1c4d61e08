//! What the tests of all operators share: events from JSON, tables as JSON, and the property that every operator must have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use legwork_types::time::LaneClock;
use legwork_types::{EventBatch, Kind, TableSnapshot, Verdict};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::{Map, Value, json};

use crate::{Operator, OperatorConfig, operator_for};

/// A row of a table: times as microseconds, nulls left out, `revision` left out.
pub(crate) type Row = BTreeMap<String, Value>;
/// Tables by name, rows in no order that matters.
pub(crate) type Tables = BTreeMap<&'static str, Vec<Row>>;
/// What a table must be, computed from the accepted events in order of acceptance.
pub(crate) type Oracle = fn(&[Value]) -> Tables;

/// Cases a property is tried with: `LEGWORK_CASES`, else 300.
pub(crate) fn cases() -> ProptestConfig {
    let n_cases = std::env::var("LEGWORK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    ProptestConfig { cases: n_cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A batch of events given as JSON objects; times as microseconds or RFC 3339, offsets counted from `offset`.
pub(crate) fn batch(kind: Kind, events: &[Value], offset: i64) -> EventBatch {
    let text: Vec<u8> = events.iter().flat_map(|event| format!("{event}\n").into_bytes()).collect();
    let mut reader = ReaderBuilder::new(kind.schema()).build(text.as_slice()).unwrap();
    let columns = reader.next().map_or_else(|| RecordBatch::new_empty(kind.schema()), Result::unwrap);
    assert!(columns.num_rows() == events.len() && reader.next().is_none(), "one batch holds them all");
    EventBatch {
        kind,
        topic: "topic".into(),
        partition: 0,
        offsets: (offset..).take(events.len()).collect(),
        arrival_us: vec![0; events.len()],
        keys: None,
        columns,
    }
}

/// A clock whose checkpoint is `revision`.
pub(crate) fn clock(revision: u32) -> LaneClock {
    LaneClock { revision, ..LaneClock::START }
}

fn plain_times(records: &RecordBatch) -> RecordBatch {
    let plain = |array: &ArrayRef| match array.data_type() {
        DataType::Timestamp(..) => cast(array, &DataType::Int64).unwrap(),
        _ => array.clone(),
    };
    let columns: Vec<ArrayRef> = records.columns().iter().map(plain).collect();
    let fields: Vec<Field> = records
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), field.is_nullable()))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// All rows of a snapshot, sorted, without their revisions.
pub(crate) fn rows(snapshot: &dyn TableSnapshot) -> Vec<Row> {
    let mut rows = revisions(snapshot);
    rows.iter_mut().for_each(|row| {
        row.remove("revision");
    });
    sorted(rows)
}

/// All rows of a snapshot, sorted, with their revisions.
pub(crate) fn revisions(snapshot: &dyn TableSnapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for chunk_idx in 0..snapshot.n_chunks() {
        let chunk = snapshot.chunk(chunk_idx, None);
        assert_eq!(chunk.schema(), snapshot.schema());
        rows.extend(records(&chunk));
    }
    assert_eq!(rows.len(), snapshot.n_rows());
    sorted(rows)
}

/// The rows of a batch, in its order, with their revisions.
pub(crate) fn records(records: &RecordBatch) -> Vec<Row> {
    let mut text = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut text);
    writer.write(&plain_times(records)).unwrap();
    writer.finish().unwrap();
    std::str::from_utf8(&text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows in a fixed order.
pub(crate) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_cached_key(|row| serde_json::to_string(row).unwrap());
    rows
}

/// A row from a JSON object, nulls left out.
pub(crate) fn row(object: Value) -> Row {
    let Value::Object(object) = object else { panic!("a row is an object") };
    object.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Every table of an operator.
pub(crate) fn tables(operator: &mut dyn Operator) -> Tables {
    let names = operator.tables();
    names.into_iter().map(|name| (name, rows(operator.snapshot(name, &clock(0)).unwrap().as_ref()))).collect()
}

/// A table as lines, for scripts.
pub(crate) fn script(operator: &mut dyn Operator, table: &str, columns: &[&str]) -> String {
    let snapshot = operator.snapshot(table, &clock(0)).unwrap();
    let line = |row: Row| {
        let value = |column: &&str| {
            row.get(*column).map_or("-".to_owned(), |value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        };
        columns.iter().map(value).collect::<Vec<_>>().join(" ") + "\n"
    };
    let mut lines: Vec<String> = rows(snapshot.as_ref()).into_iter().map(line).collect();
    lines.sort();
    lines.concat()
}

/// Order in which events arrive, which of them arrive again and when, and where the batches are cut.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    order: Vec<usize>,
    cuts: Vec<bool>,
}

/// Arrivals of `n_events` events, up to a fifth of them twice.
pub(crate) fn arrivals(n_events: usize) -> impl Strategy<Value = Arrival> {
    let again = prop::collection::vec(0..n_events.max(1), 0..n_events / 5 + 2);
    again.prop_flat_map(move |again| {
        let order: Vec<usize> = (0..n_events).chain(again.into_iter().filter(|_| n_events > 0)).collect();
        let n = order.len();
        (Just(order).prop_shuffle(), prop::collection::vec(prop::bool::weighted(0.3), n))
            .prop_map(|(order, cuts)| Arrival { order, cuts })
    })
}

impl Arrival {
    /// Events in order, once each.
    pub(crate) fn in_order(cuts: Vec<bool>) -> Arrival {
        Arrival { order: (0..cuts.len()).collect(), cuts }
    }

    /// The batches, each with the offset that it starts at.
    pub(crate) fn batches(&self, events: &[Value]) -> Vec<(usize, Vec<Value>)> {
        let ends = (1..=self.order.len()).filter(|end| *end == self.order.len() || self.cuts[*end]);
        let starts = [0].into_iter().chain(ends.clone());
        starts
            .zip(ends)
            .map(|(start, end)| (start, self.order[start..end].iter().map(|&idx| events[idx].clone()).collect()))
            .collect()
    }
}

fn operator(kind: Kind, config: &OperatorConfig) -> Box<dyn Operator> {
    operator_for(kind, config)
}

/// Applies events batch by batch; after each the tables must be the oracle's over what was accepted so far, and a snapshot taken
/// before must not have changed. Returns the events accepted.
pub(crate) fn check_at_every_moment(
    kind: Kind,
    config: &OperatorConfig,
    events: &[Value],
    arrival: &Arrival,
    oracle: Oracle,
) -> Result<(Tables, Vec<Value>), TestCaseError> {
    let mut operator = operator(kind, config);
    let (mut accepted, mut before) = (Vec::new(), tables(operator.as_mut()));
    for (start, arriving) in arrival.batches(events) {
        let end = start + arriving.len();
        let held: Vec<_> =
            operator.tables().into_iter().map(|name| (name, operator.snapshot(name, &clock(0)).unwrap())).collect();
        let verdicts = operator.apply(&batch(kind, &arriving, start as i64), &clock(end as u32));
        for (name, snapshot) in held {
            prop_assert_eq!(&rows(snapshot.as_ref()), &before[name], "a snapshot changed");
        }
        let refused: BTreeMap<u32, Verdict> = verdicts.refused.iter().copied().collect();
        prop_assert_eq!(refused.len(), verdicts.refused.len());
        prop_assert!(verdicts.refused.is_sorted_by_key(|(row, _)| *row));
        accepted.extend((0..).zip(arriving).filter(|(row, _)| !refused.contains_key(row)).map(|(_, event)| event));
        let now = tables(operator.as_mut());
        let expected: Tables = oracle(&accepted).into_iter().map(|(name, rows)| (name, sorted(rows))).collect();
        prop_assert_eq!(&now, &expected, "after {} events", end);
        assert_counts(&now)?;
        before = now;
    }
    Ok((before, accepted))
}

fn assert_counts(tables: &Tables) -> TestCaseResult {
    for row in tables.values().flatten() {
        for (column, value) in row.iter().filter(|(column, _)| column.starts_with("n_")) {
            prop_assert!(value.as_i64().unwrap() >= 0, "{} is negative", column);
        }
    }
    Ok(())
}

/// The property of every operator: however events arrive, its tables are right at every moment and the same in the end.
pub(crate) fn check_arrivals(
    kind: Kind,
    config: &OperatorConfig,
    events: &[Value],
    arrivals: [&Arrival; 2],
    oracle: Oracle,
) -> TestCaseResult {
    let (one, _) = check_at_every_moment(kind, config, events, arrivals[0], oracle)?;
    let (other, _) = check_at_every_moment(kind, config, events, arrivals[1], oracle)?;
    prop_assert_eq!(one, other);
    Ok(())
}

/// The common columns with others. `n` makes the event id.
pub(crate) fn event(n: usize, event_time_us: i64, sequence: Option<i64>, others: Value) -> Value {
    let mut event = Map::new();
    event.insert("event_id".into(), json!(format!("e{n:03}")));
    event.insert("source".into(), json!(if n.is_multiple_of(3) { "crm" } else { "phone" }));
    event.insert("event_time".into(), json!(event_time_us));
    event.insert("sequence".into(), json!(sequence));
    let Value::Object(others) = others else { panic!("an event is an object") };
    event.extend(others.into_iter().filter(|(_, value)| !value.is_null()));
    Value::Object(event)
}

/// A text of an event.
pub(crate) fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap()
}

/// A whole number of an event, or nothing.
pub(crate) fn number(event: &Value, field: &str) -> Option<i64> {
    event[field].as_i64()
}
