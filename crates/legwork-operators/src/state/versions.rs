//! Versions of rows: what a checkpoint hands over of a table.

use std::hash::Hash;

use arrow::array::{ArrayRef, RecordBatch};
use hashbrown::HashMap;
use legwork_types::Table;
use legwork_types::time::DAY_US;

use super::table::{Rows, View, counts, flags};

/// A row that can be told from others, and compared with what it said before.
pub(crate) trait Versioned: Copy {
    /// What the table's key is made from.
    type Key: Copy + Eq + Hash;

    /// Its key.
    fn key(&self) -> Self::Key;

    /// The time whose UTC day it belongs to.
    fn day_time_us(&self) -> i64;

    /// Whether it says the same as `other` in every column but the revision.
    fn says_same(&self, other: &Self) -> bool;

    /// Takes over the revision of a row that says the same.
    fn keep_revision(&mut self, _before: &Self) {}
}

/// Newest versions of the rows that changed since the last checkpoint. For one day and key there is one at most.
#[derive(Debug)]
pub(crate) struct Versions<R> {
    rows: Vec<R>,
    is_deleted: Vec<bool>,
    /// Slots of rows that were touched and say the same as before, with what was there before.
    unchanged: Vec<(u32, R)>,
}

fn place<R: Versioned>(row: &R) -> (R::Key, i64) {
    (row.key(), row.day_time_us().div_euclid(DAY_US))
}

impl<R: Versioned> Versions<R> {
    /// Of all rows.
    pub(crate) fn of(rows: &Rows<R>) -> Versions<R> {
        let Some(touched) = rows.touched() else {
            let rows: Vec<R> = rows.iter().copied().collect();
            return Versions { is_deleted: vec![false; rows.len()], rows, unchanged: Vec::new() };
        };
        let mut versions = Versions { rows: Vec::new(), is_deleted: Vec::new(), unchanged: Vec::new() };
        // Rows that left their slot, or their key or day in it: they may be found in another one.
        let (mut left, mut came) = (Vec::new(), Vec::new());
        for (slot, before) in touched {
            match (before, rows.live(*slot)) {
                (Some(before), Some(now)) if place(before) == place(now) => versions.compare(*slot, now, Some(before)),
                (before, now) => {
                    left.extend(*before);
                    came.extend(now.map(|now| (*slot, now)));
                }
            }
        }
        let mut by_place: HashMap<_, R> = left.iter().map(|before| (place(before), *before)).collect();
        for (slot, now) in came {
            versions.compare(slot, now, by_place.remove(&place(now)).as_ref());
        }
        for before in left.iter().filter(|before| by_place.remove(&place(*before)).is_some()) {
            versions.push(before, true);
        }
        versions
    }

    fn compare(&mut self, slot: u32, now: &R, before: Option<&R>) {
        match before.filter(|before| before.says_same(now)) {
            Some(before) => self.unchanged.push((slot, *before)),
            None => self.push(now, false),
        }
    }

    fn push(&mut self, row: &R, is_deleted: bool) {
        self.rows.push(*row);
        self.is_deleted.push(is_deleted);
    }

    /// After they were handed over: `rows` counts as such. Rows that say the same as before keep their revision.
    pub(crate) fn settle(self, rows: &mut Rows<R>) {
        for (slot, before) in self.unchanged {
            let mut now = *rows.get(slot);
            now.keep_revision(&before);
            *rows.get_mut(slot) = now;
        }
        rows.forget_changes();
    }
}

/// What changed in each of the tables.
pub(crate) fn changed_rows(
    tables: &[Table],
    versions: impl Fn(Table) -> Option<RecordBatch>,
) -> Vec<(Table, RecordBatch)> {
    tables.iter().filter_map(|table| Some((*table, versions(*table)?))).collect()
}

/// Versions as Arrow, *shape:* [`Table::version_schema`]. None when there are none.
pub(crate) fn version_batch<V: View>(
    table: Table,
    versions: &Versions<V::Row>,
    view: &V,
    revision: u32,
) -> Option<RecordBatch> {
    if versions.rows.is_empty() {
        return None;
    }
    let rows: Vec<&V::Row> = versions.rows.iter().collect();
    let schema = table.version_schema();
    let n_own = table.def().columns.len();
    let column = |(idx, name): (usize, &str)| -> ArrayRef {
        match name {
            "revision" => counts(rows.iter().map(|_| i64::from(revision))),
            "is_deleted" if idx >= n_own => flags(versions.is_deleted.iter().copied()),
            _ => view.column(idx, &rows),
        }
    };
    let columns = schema.fields().iter().map(|field| field.name().as_str()).enumerate().map(column).collect();
    Some(RecordBatch::try_new(schema, columns).expect("views give the schema's types"))
}
