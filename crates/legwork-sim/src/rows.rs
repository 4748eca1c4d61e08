//! Rows of one kind on their way into a canonical batch. Columns that a row does not set become null.

use std::fmt::{Arguments, Write};

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;
use legwork_types::Kind;

#[derive(Debug)]
enum Cells {
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    I64(Int64Builder),
    I32(Int32Builder),
    F64(Float64Builder),
    F32(Float32Builder),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    Money(Decimal128Builder),
    Texts(ListBuilder<StringBuilder>),
    Dates(ListBuilder<Date32Builder>),
}

macro_rules! each {
    ($cells:expr, $builder:ident => $body:expr) => {
        match $cells {
            Cells::Text($builder) => $body,
            Cells::Time($builder) => $body,
            Cells::I64($builder) => $body,
            Cells::I32($builder) => $body,
            Cells::F64($builder) => $body,
            Cells::F32($builder) => $body,
            Cells::Bool($builder) => $body,
            Cells::Date($builder) => $body,
            Cells::Money($builder) => $body,
            Cells::Texts($builder) => $body,
            Cells::Dates($builder) => $body,
        }
    };
}

impl Cells {
    fn new(data_type: &DataType) -> Cells {
        match data_type {
            DataType::Utf8 => Cells::Text(StringBuilder::new()),
            DataType::Timestamp(..) => {
                Cells::Time(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()))
            }
            DataType::Int64 => Cells::I64(Int64Builder::new()),
            DataType::Int32 => Cells::I32(Int32Builder::new()),
            DataType::Float64 => Cells::F64(Float64Builder::new()),
            DataType::Float32 => Cells::F32(Float32Builder::new()),
            DataType::Boolean => Cells::Bool(BooleanBuilder::new()),
            DataType::Date32 => Cells::Date(Date32Builder::new()),
            DataType::Decimal128(..) => Cells::Money(Decimal128Builder::new().with_data_type(data_type.clone())),
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                Cells::Texts(ListBuilder::new(StringBuilder::new()).with_field(item.clone()))
            }
            DataType::List(item) => Cells::Dates(ListBuilder::new(Date32Builder::new()).with_field(item.clone())),
            other => unreachable!("canonical schemas do not use {other}"),
        }
    }
}

/// Rows of one kind. A row is a chain of setters that ends with [`Rows::end`]. Setting a column of another type is a mistake of ours
/// and panics.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) kind: Kind,
    cells: Vec<Cells>,
    pub(crate) sent_us: Vec<i64>,
}

macro_rules! setter {
    ($name:ident, $variant:ident, $value:ty) => {
        #[inline]
        pub(crate) fn $name(&mut self, column: usize, value: $value) -> &mut Rows {
            match &mut self.cells[column] {
                Cells::$variant(builder) => builder.append_value(value),
                other => unreachable!("column {column} of {} is {other:?}", self.kind),
            }
            self
        }
    };
}

impl Rows {
    pub(crate) fn new(kind: Kind) -> Rows {
        let cells = kind.schema().fields().iter().map(|field| Cells::new(field.data_type())).collect();
        Rows { kind, cells, sent_us: Vec::new() }
    }

    setter!(text, Text, &str);
    setter!(time, Time, i64);
    setter!(i64, I64, i64);
    setter!(i32, I32, i32);
    setter!(f64, F64, f64);
    setter!(f32, F32, f32);
    setter!(bool, Bool, bool);
    setter!(date, Date, i32);
    setter!(money, Money, i128);

    /// A formatted string, written straight into the column.
    #[inline]
    pub(crate) fn write(&mut self, column: usize, value: Arguments<'_>) -> &mut Rows {
        match &mut self.cells[column] {
            Cells::Text(builder) => {
                builder.write_fmt(value).expect("writing into memory does not fail");
                builder.append_value("");
            }
            other => unreachable!("column {column} of {} is {other:?}", self.kind),
        }
        self
    }

    pub(crate) fn texts(&mut self, column: usize, values: &[&str]) -> &mut Rows {
        match &mut self.cells[column] {
            Cells::Texts(builder) => {
                values.iter().for_each(|value| builder.values().append_value(value));
                builder.append(true);
            }
            other => unreachable!("column {column} of {} is {other:?}", self.kind),
        }
        self
    }

    pub(crate) fn dates(&mut self, column: usize, values: &[i32]) -> &mut Rows {
        match &mut self.cells[column] {
            Cells::Dates(builder) => {
                builder.values().append_slice(values);
                builder.append(true);
            }
            other => unreachable!("column {column} of {} is {other:?}", self.kind),
        }
        self
    }

    /// Ends the row; columns that were not set are null.
    #[inline]
    pub(crate) fn end(&mut self, sent_us: i64) {
        self.sent_us.push(sent_us);
        let n_rows = self.sent_us.len();
        for cells in &mut self.cells {
            each!(cells, builder => if builder.len() < n_rows { builder.append_null() });
        }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.sent_us.len()
    }

    /// The rows so far as a batch with their sending times; empties itself.
    pub(crate) fn finish(&mut self) -> (RecordBatch, Vec<i64>) {
        let columns: Vec<ArrayRef> =
            self.cells.iter_mut().map(|cells| each!(cells, builder => ArrayBuilder::finish(builder))).collect();
        let batch =
            RecordBatch::try_new(self.kind.schema(), columns).expect("rows set every column that needs a value");
        (batch, std::mem::take(&mut self.sent_us))
    }
}
