//! Rows of cells to canonical columns. A row with a bad cell keeps its place until the batch is finished, then it is left out.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanArray, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, RecordBatchOptions, StringArray,
    StringBuilder, TimestampMicrosecondBuilder, new_null_array,
};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use legwork_types::RejectReason;

use super::parse;

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: RejectReason,
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Fault {
        Fault { reason, detail: detail.into() }
    }

    pub(crate) fn missing(field: &str) -> Fault {
        Fault::new(RejectReason::MissingField, format!("{field} is needed and is missing"))
    }

    pub(crate) fn wrong_type(field: &str, expected: &DataType) -> Fault {
        Fault::new(RejectReason::WrongType, format!("{field} is no {}", type_name(expected)))
    }
}

/// What a user calls a type.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Int32 | DataType::Int64 => "whole number in range",
        DataType::Float32 | DataType::Float64 => "number",
        DataType::Boolean => "true or false",
        DataType::Timestamp(..) => {
            "time (such as 2026-01-05T08:00:00Z, UTC where no zone is given, or microseconds as an integer)"
        }
        DataType::Date32 => "date (YYYY-MM-DD)",
        DataType::Decimal128(..) => "amount with up to 14 digits before the point",
        DataType::List(item) if item.data_type() == &DataType::Date32 => "list of dates",
        DataType::List(_) => "list of texts",
        _ => "text in UTF-8",
    }
}

/// One value of a row as a file has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Null,
    /// Text of any type; empty text is no value except in a text column.
    Text(&'a [u8]),
    /// A JSON array.
    JsonArray(&'a str),
}

/// Values of one column. Refused values are not appended.
pub(crate) enum ColumnBuilder {
    Text(StringBuilder),
    Long(Int64Builder),
    Int(Int32Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Day(Date32Builder),
    Money(Decimal128Builder),
    Texts(ListBuilder<StringBuilder>),
    Days(ListBuilder<Date32Builder>),
}

/// Calls the same method of whichever builder it is.
macro_rules! each {
    ($column:expr, $builder:ident => $call:expr) => {
        match $column {
            ColumnBuilder::Text($builder) => $call,
            ColumnBuilder::Long($builder) => $call,
            ColumnBuilder::Int($builder) => $call,
            ColumnBuilder::Double($builder) => $call,
            ColumnBuilder::Float($builder) => $call,
            ColumnBuilder::Bool($builder) => $call,
            ColumnBuilder::Time($builder) => $call,
            ColumnBuilder::Day($builder) => $call,
            ColumnBuilder::Money($builder) => $call,
            ColumnBuilder::Texts($builder) => $call,
            ColumnBuilder::Days($builder) => $call,
        }
    };
}

impl ColumnBuilder {
    pub(crate) fn new(data_type: &DataType) -> ColumnBuilder {
        let own = data_type.clone();
        match data_type {
            DataType::Int64 => ColumnBuilder::Long(Int64Builder::new()),
            DataType::Int32 => ColumnBuilder::Int(Int32Builder::new()),
            DataType::Float64 => ColumnBuilder::Double(Float64Builder::new()),
            DataType::Float32 => ColumnBuilder::Float(Float32Builder::new()),
            DataType::Boolean => ColumnBuilder::Bool(BooleanBuilder::new()),
            DataType::Timestamp(..) => ColumnBuilder::Time(TimestampMicrosecondBuilder::new().with_data_type(own)),
            DataType::Date32 => ColumnBuilder::Day(Date32Builder::new()),
            DataType::Decimal128(..) => ColumnBuilder::Money(Decimal128Builder::new().with_data_type(own)),
            DataType::List(item) if item.data_type() == &DataType::Date32 => {
                ColumnBuilder::Days(ListBuilder::new(Date32Builder::new()).with_field(item.clone()))
            }
            DataType::List(item) => {
                ColumnBuilder::Texts(ListBuilder::new(StringBuilder::new()).with_field(item.clone()))
            }
            _ => ColumnBuilder::Text(StringBuilder::new()),
        }
    }

    /// Appends a cell. False when it is no value of this column; nothing is appended then.
    #[inline]
    pub(crate) fn push(&mut self, cell: Cell<'_>) -> bool {
        match cell {
            Cell::Text(text) => self.push_text(text),
            Cell::Null => {
                self.push_null();
                true
            }
            Cell::JsonArray(json) => self.push_json_array(json),
        }
    }

    #[inline]
    fn push_text(&mut self, text: &[u8]) -> bool {
        /// Appends what could be parsed.
        macro_rules! parsed {
            ($builder:expr, $value:expr) => {
                match $value {
                    Some(value) => $builder.append_value(value),
                    None => return false,
                }
            };
        }
        if text.is_empty() && !matches!(self, ColumnBuilder::Text(_)) {
            self.push_null();
            return true;
        }
        match self {
            ColumnBuilder::Text(builder) => parsed!(builder, std::str::from_utf8(text).ok()),
            ColumnBuilder::Double(builder) => parsed!(builder, parse::double(text)),
            ColumnBuilder::Float(builder) => parsed!(builder, float(text)),
            ColumnBuilder::Time(builder) => parsed!(builder, parse::time_us(text)),
            ColumnBuilder::Long(builder) => parsed!(builder, parse::integer(text)),
            ColumnBuilder::Int(builder) => parsed!(builder, parse::integer(text).and_then(|v| i32::try_from(v).ok())),
            ColumnBuilder::Bool(builder) => parsed!(builder, parse::boolean(text)),
            ColumnBuilder::Day(builder) => parsed!(builder, parse::day(text)),
            ColumnBuilder::Money(builder) => parsed!(builder, parse::money(text)),
            ColumnBuilder::Texts(builder) => {
                let Ok(text) = std::str::from_utf8(text) else { return false };
                items(text).for_each(|item| builder.values().append_value(item));
                builder.append(true);
            }
            ColumnBuilder::Days(builder) => {
                let Ok(text) = std::str::from_utf8(text) else { return false };
                let days: Option<Vec<i32>> = items(text).map(|item| parse::day(item.as_bytes())).collect();
                let Some(days) = days else { return false };
                builder.values().append_slice(&days);
                builder.append(true);
            }
        }
        true
    }

    fn push_json_array(&mut self, json: &str) -> bool {
        use serde_json::Value;
        let Ok(values) = serde_json::from_str::<Vec<Value>>(json) else { return false };
        match self {
            ColumnBuilder::Texts(builder) => {
                let Some(texts) = values.iter().map(Value::as_str).collect::<Option<Vec<_>>>() else { return false };
                texts.iter().for_each(|text| builder.values().append_value(text));
                builder.append(true);
            }
            ColumnBuilder::Days(builder) => {
                let day = |value: &Value| match value {
                    Value::String(text) => parse::day(text.as_bytes()),
                    other => i32::try_from(other.as_i64()?).ok(),
                };
                let Some(days) = values.iter().map(day).collect::<Option<Vec<_>>>() else { return false };
                builder.values().append_slice(&days);
                builder.append(true);
            }
            _ => return false,
        }
        true
    }

    pub(crate) fn push_null(&mut self) {
        each!(self, builder => builder.append_null());
    }

    #[inline]
    fn len(&self) -> usize {
        each!(self, builder => builder.len())
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        each!(self, builder => Arc::new(builder.finish()))
    }
}

/// A float that is the nearest to the text, not to the double nearest to the text.
fn float(text: &[u8]) -> Option<f32> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Entries of a list in one cell.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|item| !item.is_empty())
}

struct BoundColumn {
    field_idx: usize,
    field: FieldRef,
    is_required: bool,
    builder: ColumnBuilder,
}

/// Builds batches of canonical columns row by row, for the fields that a file has.
pub(crate) struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<BoundColumn>,
    /// Number of the next row in the file.
    next_row: i64,
    /// Rows begun in this batch, good and bad.
    n_rows: usize,
    /// Places of the bad rows of this batch, ascending.
    bad_rows: Vec<usize>,
    fault: Option<Fault>,
}

impl RowBuilder {
    /// For the fields at these positions; cells are pushed by their place in this list.
    pub(crate) fn new(schema: SchemaRef, field_idxs: impl IntoIterator<Item = usize>) -> RowBuilder {
        let columns = field_idxs
            .into_iter()
            .map(|field_idx| {
                let field = schema.fields()[field_idx].clone();
                let is_required = !field.is_nullable() && !super::bind::may_be_absent(field.name());
                BoundColumn { field_idx, builder: ColumnBuilder::new(field.data_type()), field, is_required }
            })
            .collect();
        RowBuilder { schema, columns, next_row: 0, n_rows: 0, bad_rows: Vec::new(), fault: None }
    }

    /// Number of the row that is being built.
    pub(crate) fn row(&self) -> i64 {
        self.next_row
    }

    /// Rows of this batch so far, good and bad.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Appends a cell of the current row. A second value for the same column is a fault.
    #[inline]
    pub(crate) fn push(&mut self, column: usize, cell: Cell<'_>) {
        let bound = &mut self.columns[column];
        if bound.builder.len() > self.n_rows {
            let detail = format!("{} is given twice", bound.field.name());
            self.fault.get_or_insert_with(|| Fault::new(RejectReason::Malformed, detail));
            return;
        }
        let is_absent = matches!(cell, Cell::Null) || matches!(cell, Cell::Text([]));
        if is_absent && bound.is_required {
            self.fault.get_or_insert_with(|| Fault::missing(bound.field.name()));
            bound.builder.push_null();
        } else if is_absent && !bound.field.is_nullable() {
            bound.builder.push(Cell::Text(b""));
        } else if !bound.builder.push(cell) {
            self.fault.get_or_insert_with(|| Fault::wrong_type(bound.field.name(), bound.field.data_type()));
            bound.builder.push_null();
        }
    }

    /// Ends the current row, which has this fault besides, if any. *Returns* the row's first fault; the row is then left out.
    #[inline]
    pub(crate) fn end_row(&mut self, fault: Option<Fault>) -> Result<(), Fault> {
        // What is wrong with the row as a whole explains more than what it makes of its cells.
        self.fault = fault.or(self.fault.take());
        for column in 0..self.columns.len() {
            if self.columns[column].builder.len() == self.n_rows {
                self.push(column, Cell::Null);
            }
        }
        let place = self.n_rows;
        self.n_rows += 1;
        self.next_row += 1;
        match self.fault.take() {
            None => Ok(()),
            Some(fault) => {
                self.bad_rows.push(place);
                Err(fault)
            }
        }
    }

    /// *Returns* the good rows in canonical columns with their numbers, and starts the next batch.
    pub(crate) fn finish(&mut self) -> (RecordBatch, Vec<i64>) {
        let n_rows = std::mem::take(&mut self.n_rows);
        let bad_rows = std::mem::take(&mut self.bad_rows);
        let first_row = self.next_row - n_rows as i64;
        let built: Vec<(usize, ArrayRef)> =
            self.columns.iter_mut().map(|column| (column.field_idx, column.builder.finish())).collect();
        good_rows(&self.schema, built, n_rows, &bad_rows, first_row)
    }
}

/// Puts columns in their places, fills those that a file lacks, and leaves the bad rows out. `bad_rows` are places, ascending.
pub(crate) fn good_rows(
    schema: &SchemaRef,
    built: Vec<(usize, ArrayRef)>,
    n_rows: usize,
    bad_rows: &[usize],
    first_row: i64,
) -> (RecordBatch, Vec<i64>) {
    let mut offsets: Vec<i64> = (first_row..first_row + n_rows as i64).collect();
    let mut columns: Vec<Option<ArrayRef>> = vec![None; schema.fields().len()];
    if bad_rows.is_empty() {
        built.into_iter().for_each(|(field_idx, array)| columns[field_idx] = Some(array));
    } else {
        let mut is_good = vec![true; n_rows];
        bad_rows.iter().for_each(|&place| is_good[place] = false);
        let mut good = is_good.iter();
        offsets.retain(|_| *good.next().expect("one flag a row"));
        let mask = BooleanArray::from(is_good);
        for (field_idx, array) in built {
            let kept = arrow::compute::filter(&array, &mask).expect("the mask has a flag a row");
            columns[field_idx] = Some(kept);
        }
    }
    let n_good = offsets.len();
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| column.unwrap_or_else(|| absent(field, n_good)))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n_good));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("columns were built for this schema and faulty rows left out");
    (batch, offsets)
}

/// A column that the file lacks: nulls, or empty texts where there is a stand-in.
fn absent(field: &FieldRef, n_rows: usize) -> ArrayRef {
    if field.is_nullable() {
        return new_null_array(field.data_type(), n_rows);
    }
    Arc::new(StringArray::new(arrow::buffer::OffsetBuffer::new_zeroed(n_rows), arrow::buffer::Buffer::default(), None))
}
