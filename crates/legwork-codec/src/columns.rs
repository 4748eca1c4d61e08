//! Decoded columns on their way to a canonical batch: merged in the order of their messages, without the faulty rows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_empty_array};
use arrow::compute::{filter, interleave};
use legwork_types::{Kind, RejectReason, all_but};

use crate::validate::{normalise, validate};

/// A message that cannot become a row: message index, reason, detail.
pub(crate) type MessageFault = (u32, RejectReason, String);

/// Columns of the canonical types; required ones may still hold nulls.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) kind: Kind,
    pub(crate) arrays: Vec<ArrayRef>,
    /// Message index of each row, ascending.
    pub(crate) message_rows: Vec<u32>,
    pub(crate) faults: Vec<MessageFault>,
}

impl Columns {
    pub(crate) fn empty(kind: Kind) -> Columns {
        let arrays = kind.schema().fields().iter().map(|field| new_empty_array(field.data_type())).collect();
        Columns { kind, arrays, message_rows: Vec::new(), faults: Vec::new() }
    }

    pub(crate) fn all_faulty(mut self, rows: &[u32], reason: RejectReason, detail: &str) -> Columns {
        self.faults.extend(rows.iter().map(|&row| (row, reason, detail.to_owned())));
        self
    }

    /// Columns of several decoders as one, in the order of their messages.
    pub(crate) fn merge(kind: Kind, mut parts: Vec<Columns>) -> Columns {
        if parts.len() == 1 {
            return parts.swap_remove(0);
        }
        let mut merged = Columns::empty(kind);
        for part in &mut parts {
            merged.faults.append(&mut part.faults);
        }
        parts.retain(|part| !part.message_rows.is_empty());
        if parts.is_empty() {
            return merged;
        }
        let mut order: Vec<(u32, usize, usize)> = Vec::new();
        for (part_idx, part) in parts.iter().enumerate() {
            order.extend(part.message_rows.iter().enumerate().map(|(row, &message)| (message, part_idx, row)));
        }
        order.sort_unstable();
        let indices: Vec<_> = order.iter().map(|&(_, part_idx, row)| (part_idx, row)).collect();
        merged.arrays = (0..merged.arrays.len())
            .map(|column| {
                let arrays: Vec<&dyn Array> = parts.iter().map(|part| part.arrays[column].as_ref()).collect();
                interleave(&arrays, &indices).expect("all parts have the canonical types")
            })
            .collect();
        merged.message_rows = order.into_iter().map(|(message, ..)| message).collect();
        merged
    }

    /// The canonical batch without faulty rows: required values that are null, and values that are out of range, are faults too.
    pub(crate) fn into_batch(mut self) -> (RecordBatch, Vec<u32>, Vec<MessageFault>) {
        let schema = self.kind.schema();
        for (column_idx, field) in schema.fields().iter().enumerate() {
            let array = &self.arrays[column_idx];
            if field.is_nullable() || array.logical_null_count() == 0 {
                continue;
            }
            if stands_in_for_null(self.kind, column_idx) {
                let texts = array.as_string::<i32>().iter().map(|text| Some(text.unwrap_or_default()));
                self.arrays[column_idx] = Arc::new(texts.collect::<StringArray>());
                continue;
            }
            let nulls = (0..array.len()).filter(|&row| array.is_null(row));
            let faults = nulls.map(|row| {
                (self.message_rows[row], RejectReason::MissingField, format!("field {} is null", field.name()))
            });
            self.faults.extend(faults);
        }
        self.drop_faulty();
        let batch = RecordBatch::try_new(schema, std::mem::take(&mut self.arrays)).expect("columns are canonical");
        let batch = normalise(self.kind, &batch);
        let found = validate(self.kind, &batch);
        self.arrays = batch.columns().to_vec();
        let rows = found.into_iter().map(|(row, reason, detail)| (self.message_rows[row as usize], reason, detail));
        self.faults.extend(rows);
        self.drop_faulty();
        let batch = RecordBatch::try_new(batch.schema(), self.arrays).expect("columns are canonical");
        (batch, self.message_rows, self.faults)
    }

    /// Keeps the first fault of each message and drops the rows of all that have one.
    fn drop_faulty(&mut self) {
        if self.faults.is_empty() {
            return;
        }
        let mut faulty = HashSet::with_capacity(self.faults.len());
        self.faults.retain(|(message, ..)| faulty.insert(*message));
        // Few messages are at fault: each is looked for among the rows, not each row among them.
        let rows = faulty.iter().filter_map(|message| self.message_rows.binary_search(message).ok());
        let rows: Vec<u32> = rows.map(|row| row as u32).collect();
        if rows.is_empty() {
            return;
        }
        let keep = all_but(self.message_rows.len(), &rows);
        for array in &mut self.arrays {
            *array = filter(array, &keep).expect("the mask has the column's length");
        }
        let mut kept = keep.values().iter();
        self.message_rows.retain(|_| kept.next().is_some_and(|is_kept| is_kept));
    }
}

/// Whether null in a required column means the empty text: event_id and source of events.
pub(crate) fn stands_in_for_null(kind: Kind, column_idx: usize) -> bool {
    use legwork_types::gps::{EVENT_ID, SOURCE};
    !kind.is_reference() && (column_idx == EVENT_ID || column_idx == SOURCE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The rest of the crate knows two defaults only: null, and the empty text of event_id and source.
    #[test]
    fn schemas_have_no_other_defaults() {
        for kind in Kind::ALL {
            let avro: serde_json::Value = serde_json::from_str(kind.avro()).unwrap();
            for (idx, field) in kind.schema().fields().iter().enumerate() {
                let expected = match (field.is_nullable(), stands_in_for_null(kind, idx)) {
                    (true, _) => Some(serde_json::Value::Null),
                    (false, true) => Some(serde_json::Value::from("")),
                    (false, false) => None,
                };
                assert_eq!(avro["fields"][idx].get("default").cloned(), expected, "{kind} {}", field.name());
            }
        }
    }
}
