//! Rows of the tables that every lane fills.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use legwork_types::{EventBatch, LaneStatus, Reject, Table};

/// The rows `from..to` of a batch.
pub(crate) fn slice(events: &EventBatch, from: usize, to: usize) -> EventBatch {
    EventBatch {
        kind: events.kind,
        topic: events.topic.clone(),
        partition: events.partition,
        columns: events.columns.slice(from, to - from),
        offsets: events.offsets[from..to].to_vec(),
        arrival_us: events.arrival_us[from..to].to_vec(),
        keys: events.keys.as_ref().map(|keys| keys.slice(from, to - from)),
    }
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn table(table: Table, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(table.schema(), columns).expect("columns were made for this table")
}

/// Events of a topic that was made anew `n_renewals` times: those without an id of their own get one that no event of the topic before it
/// has, as offsets begin again.
pub(crate) fn with_ids(events: EventBatch, n_renewals: i64) -> EventBatch {
    let ids = events.strings(legwork_types::gps::EVENT_ID);
    if n_renewals == 0 || (0..ids.len()).all(|row| !ids.value(row).is_empty()) {
        return events;
    }
    let stand_in = |offset: &i64| format!("{}@{n_renewals}-{}-{offset}", events.topic, events.partition);
    let ids = ids.iter().zip(&events.offsets).map(|(id, offset)| match id {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ => stand_in(offset),
    });
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
    let mut columns = events.columns.columns().to_vec();
    columns[legwork_types::gps::EVENT_ID] = ids;
    let columns = RecordBatch::try_new(events.columns.schema(), columns).expect("one column of text for another");
    EventBatch { columns, ..events }
}

/// Rows of `rejected_events`.
pub(crate) fn rejected_events(topic: &str, partition: i32, rejects: &[Reject]) -> RecordBatch {
    let n_rows = rejects.len();
    table(
        Table::RejectedEvents,
        vec![
            Arc::new(StringArray::from(vec![topic; n_rows])),
            Arc::new(Int64Array::from(vec![i64::from(partition); n_rows])),
            Arc::new(Int64Array::from_iter_values(rejects.iter().map(|r| r.offset))),
            times(rejects.iter().map(|r| Some(r.arrival_us))),
            Arc::new(StringArray::from_iter_values(rejects.iter().map(|r| r.reason.as_str()))),
            Arc::new(StringArray::from_iter_values(rejects.iter().map(|r| &r.detail))),
            Arc::new(rejects.iter().map(|r| r.schema_id.map(i64::from)).collect::<Int64Array>()),
            Arc::new(rejects.iter().map(|r| r.key.as_deref()).collect::<BinaryArray>()),
            Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|r| &r.payload))),
        ],
    )
}

/// Rows that are written once as versions of themselves.
pub(crate) fn versions(table: Table, rows: &RecordBatch, number: u32) -> RecordBatch {
    let n_rows = rows.num_rows();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![i64::from(number); n_rows])));
    columns.push(Arc::new(BooleanArray::from(vec![false; n_rows])));
    RecordBatch::try_new(table.version_schema(), columns).expect("a log's table has no revision of its own")
}

/// Rows of a snapshot as versions that the first checkpoint writes.
pub(crate) fn first_versions(table: Table, rows: &RecordBatch) -> RecordBatch {
    let column = |name: &str| -> ArrayRef {
        match (name, rows.column_by_name(name)) {
            ("revision", _) => Arc::new(Int64Array::from(vec![1; rows.num_rows()])),
            ("is_deleted", _) => Arc::new(BooleanArray::from(vec![false; rows.num_rows()])),
            (_, column) => column.expect("a snapshot has its table's columns").clone(),
        }
    };
    let schema = table.version_schema();
    let columns = schema.fields().iter().map(|field| column(field.name())).collect();
    RecordBatch::try_new(schema, columns).expect("columns have their table's types")
}

/// Each row of a batch as one line of JSON.
pub(crate) fn json_lines(columns: &RecordBatch) -> Vec<String> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    let written = writer.write(columns).and_then(|()| writer.finish());
    let bytes = writer.into_inner();
    match written {
        Ok(()) => String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect(),
        // A column that JSON cannot hold: the row is still listed, by its origin.
        Err(_) => vec!["{}".to_owned(); columns.num_rows()],
    }
}

/// Rows of `late_events`.
pub(crate) fn late_events(events: &EventBatch) -> RecordBatch {
    let n_rows = events.n_rows();
    let key = events.columns.schema().index_of(events.kind.key()).expect("a kind's key is one of its columns");
    table(
        Table::LateEvents,
        vec![
            Arc::new(StringArray::from(vec![&*events.topic; n_rows])),
            Arc::new(Int64Array::from(vec![i64::from(events.partition); n_rows])),
            Arc::new(Int64Array::from(events.offsets.clone())),
            times(events.arrival_us.iter().map(|&time| Some(time))),
            Arc::new(StringArray::from(vec![events.kind.name(); n_rows])),
            events.columns.column(key).clone(),
            times(events.event_time_us().iter().map(|&time| Some(time))),
            Arc::new(StringArray::from(json_lines(&events.columns))),
        ],
    )
}

/// Rows of `pipeline_lanes`.
pub(crate) fn pipeline_lanes(lanes: &[LaneStatus]) -> RecordBatch {
    let counts =
        |of: fn(&LaneStatus) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(lanes.iter().map(of))) };
    let lag = |lane: &LaneStatus| lane.end_offset.map(|end| (end - lane.next_offset).max(0));
    table(
        Table::PipelineLanes,
        vec![
            Arc::new(StringArray::from_iter_values(lanes.iter().map(|l| &*l.topic))),
            counts(|l| i64::from(l.partition)),
            Arc::new(StringArray::from_iter_values(lanes.iter().map(|l| l.state.as_str()))),
            Arc::new(StringArray::from_iter_values(lanes.iter().map(|l| &l.detail))),
            Arc::new(StringArray::from_iter_values(lanes.iter().map(|l| &*l.owner))),
            counts(|l| l.next_offset),
            Arc::new(lanes.iter().map(|l| l.end_offset).collect::<Int64Array>()),
            Arc::new(lanes.iter().map(lag).collect::<Int64Array>()),
            times(lanes.iter().map(|l| l.watermark_us)),
            times(lanes.iter().map(|l| l.last_event_time_us)),
            Arc::new(lanes.iter().map(|l| Some(l.is_idle)).collect::<BooleanArray>()),
            Arc::new(lanes.iter().map(|l| l.checkpoint_seq).collect::<Int64Array>()),
            counts(|l| l.n_read),
            counts(|l| l.n_accepted),
            counts(|l| l.n_late),
            counts(|l| l.n_rejected),
            counts(|l| l.n_duplicates),
            counts(|l| l.n_tombstones),
            counts(|l| l.n_reordered),
            counts(|l| l.n_misrouted),
        ],
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use legwork_types::Kind;
    use legwork_types::gps::EVENT_ID;

    use super::*;

    #[test]
    fn ids_of_a_topic_that_was_made_anew_are_its_own() {
        let schema = Kind::Emails.schema();
        let column = |(idx, field): (usize, &Arc<arrow::datatypes::Field>)| -> ArrayRef {
            match idx {
                EVENT_ID => Arc::new(StringArray::from(vec!["", "e1", ""])),
                _ => arrow::array::new_null_array(field.data_type(), 3),
            }
        };
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let nullable = Arc::new(arrow::datatypes::Schema::new(nullable.collect::<Vec<_>>()));
        let columns = schema.fields().iter().enumerate().map(column).collect();
        let events = EventBatch {
            kind: Kind::Emails,
            topic: "mails".into(),
            partition: 2,
            columns: RecordBatch::try_new(nullable, columns).unwrap(),
            offsets: vec![7, 8, 9],
            arrival_us: vec![0; 3],
            keys: None,
        };
        let ids = |n_renewals| {
            let events = with_ids(events.clone(), n_renewals);
            events.strings(EVENT_ID).iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(ids(0), ["", "e1", ""], "what stands in has no text before it is needed");
        assert_eq!(ids(3), ["mails@3-2-7", "e1", "mails@3-2-9"]);
    }
}
