//! Patches as they come in a batch.

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, ListArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, TimestampMicrosecondType};
use legwork_types::EventBatch;

use super::super::{Common, Interner};
use super::{Field, FieldType, Patches};

/// A column of values that patches may set.
pub(super) enum FieldColumn<'a> {
    Text(&'a StringArray),
    Time(&'a TimestampMicrosecondArray),
    Date(&'a Date32Array),
    Real(&'a Float64Array),
    Money(&'a Decimal128Array),
    Flag(&'a BooleanArray),
}

impl FieldColumn<'_> {
    /// Appends a row's value; false when there is none.
    pub(super) fn push(&self, row: usize, words: &mut Vec<u32>, texts: &mut Interner) -> bool {
        let push_long = |words: &mut Vec<u32>, long: u64| words.extend([long as u32, (long >> 32) as u32]);
        match self {
            FieldColumn::Text(column) if column.is_valid(row) => words.push(texts.intern(column.value(row))),
            FieldColumn::Date(column) if column.is_valid(row) => words.push(column.value(row).cast_unsigned()),
            FieldColumn::Flag(column) if column.is_valid(row) => words.push(u32::from(column.value(row))),
            FieldColumn::Time(column) if column.is_valid(row) => push_long(words, column.value(row).cast_unsigned()),
            FieldColumn::Real(column) if column.is_valid(row) => push_long(words, column.value(row).to_bits()),
            FieldColumn::Money(column) if column.is_valid(row) => {
                push_long(words, money_units(column.value(row)).cast_unsigned());
            }
            _ => return false,
        }
        true
    }
}

/// decimal(18,4) in units of 0.0001 fits 64 bits; what a decoder let through beyond that is cut.
pub(crate) fn money_units(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Columns of a batch of patches.
pub(super) struct Columns<'a> {
    pub(super) common: Common<'a>,
    pub(super) key: &'a StringArray,
    pub(super) fields: Vec<FieldColumn<'a>>,
    cleared: &'a ListArray,
    cleared_names: &'a StringArray,
}

impl<'a> Columns<'a> {
    pub(super) fn of<W>(events: &'a EventBatch, patches: &Patches<W>) -> Columns<'a> {
        let column = |field: &Field| {
            let array = events.columns.column(field.column);
            match field.field_type {
                FieldType::Text => FieldColumn::Text(array.as_string()),
                FieldType::Time => FieldColumn::Time(array.as_primitive::<TimestampMicrosecondType>()),
                FieldType::Date => FieldColumn::Date(array.as_primitive::<Date32Type>()),
                FieldType::Real => FieldColumn::Real(array.as_primitive::<Float64Type>()),
                FieldType::Money => FieldColumn::Money(array.as_primitive::<Decimal128Type>()),
                FieldType::Flag => FieldColumn::Flag(array.as_boolean()),
            }
        };
        let cleared: &ListArray = events.columns.column(patches.cleared_column).as_list();
        Columns {
            common: Common::of(events),
            key: events.strings(patches.key_column),
            fields: patches.fields.iter().map(column).collect(),
            cleared,
            cleared_names: cleared.values().as_string(),
        }
    }

    /// Bit per field named. Names that are no fields mean nothing.
    pub(super) fn cleared(&self, row: usize, fields: &[Field]) -> u16 {
        if self.cleared.is_null(row) {
            return 0;
        }
        let offsets = self.cleared.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize)
            .filter_map(|idx| fields.iter().position(|field| field.name == self.cleared_names.value(idx)))
            .fold(0, |bits, field| bits | 1 << field)
    }
}
