//! Builders of canonical columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;

use super::cell::Cell;

/// Builds one canonical column.
#[derive(Debug)]
pub(crate) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Texts(ListBuilder<StringBuilder>),
    Days(ListBuilder<Date32Builder>),
}

impl ColumnBuilder {
    pub(crate) fn new(data_type: &DataType) -> ColumnBuilder {
        match data_type {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Timestamp(..) => Self::Time(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone())),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone())),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                Self::Texts(ListBuilder::new(StringBuilder::new()).with_field(item.clone()))
            }
            DataType::List(item) if *item.data_type() == DataType::Date32 => {
                Self::Days(ListBuilder::new(Date32Builder::new()).with_field(item.clone()))
            }
            other => unreachable!("no canonical column has the type {other}"),
        }
    }

    /// Appends a value that was parsed for this column's type.
    pub(crate) fn append(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Bool(builder), Cell::Bool(value)) => builder.append_value(value),
            (Self::Int32(builder), Cell::Int(value)) => builder.append_option(i32::try_from(value).ok()),
            (Self::Int64(builder), Cell::Int(value)) => builder.append_value(value),
            (Self::Float32(builder), Cell::Float(value)) => builder.append_value(value as f32),
            (Self::Float64(builder), Cell::Float(value)) => builder.append_value(value),
            (Self::Time(builder), Cell::Int(value)) => builder.append_value(value),
            (Self::Date(builder), Cell::Int(value)) => builder.append_option(i32::try_from(value).ok()),
            (Self::Decimal(builder), Cell::Decimal(value)) => builder.append_value(value),
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Texts(builder), Cell::Texts(texts)) => builder.append_value(texts.into_iter().map(Some)),
            (Self::Days(builder), Cell::Days(days)) => builder.append_value(days.into_iter().map(Some)),
            (builder, cell) => {
                debug_assert_eq!(cell, Cell::Null, "a cell is parsed for its column's type");
                builder.append_null();
            }
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Decimal(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Texts(builder) => builder.append_null(),
            Self::Days(builder) => builder.append_null(),
        }
    }

    /// The column; the builder starts anew.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Texts(builder) => Arc::new(builder.finish()),
            Self::Days(builder) => Arc::new(builder.finish()),
        }
    }
}
