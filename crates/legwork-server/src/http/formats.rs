//! Batches into bytes of each format, piece by piece.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::StructMode;
use arrow::json::writer::{JsonArray, Writer as JsonWriter, WriterBuilder};
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use super::negotiate::Format;

/// Rows of a Parquet file are kept until this many bytes are together.
const ROW_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The type's name as PostgreSQL has it, or Arrow's own.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match into_pg_type(data_type) {
        Ok(pg_type) if !matches!(data_type, DataType::Struct(_)) => match pg_type.name().strip_prefix('_') {
            Some(item) => format!("{item}[]"),
            None => pg_type.name().to_owned(),
        },
        _ => data_type.to_string(),
    }
}

/// Bytes written and not yet taken.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Writer {
    Json { writer: Box<JsonWriter<Buffer, JsonArray>>, schema: SchemaRef, n_rows: usize },
    Csv { writer: Box<csv::Writer<Buffer>>, schema: SchemaRef },
    Arrow(Box<StreamWriter<Buffer>>),
    Parquet(Box<ArrowWriter<Buffer>>),
}

/// Writes one result.
pub(crate) struct Encoder {
    writer: Writer,
    buffer: Buffer,
}

impl Encoder {
    /// *Errors:* a schema that the format cannot hold.
    pub(crate) fn new(format: Format, schema: &SchemaRef, notices: &[String]) -> Result<Encoder, ArrowError> {
        let mut buffer = Buffer::default();
        let writer = match format {
            Format::Json => {
                let columns = schema
                    .fields()
                    .iter()
                    .map(|field| json!({"name": field.name(), "type": type_name(field.data_type())}));
                let columns = serde_json::Value::Array(columns.collect());
                write!(buffer, "{{\"columns\":{columns},\"notices\":{},\"rows\":", json!(notices))?;
                let builder = WriterBuilder::new().with_explicit_nulls(true).with_struct_mode(StructMode::ListOnly);
                Writer::Json {
                    writer: Box::new(builder.build(buffer.clone())),
                    schema: text_schema(schema, is_exact),
                    n_rows: 0,
                }
            }
            Format::Csv => {
                let text_schema = csv_schema(schema);
                let mut writer = csv::WriterBuilder::new().with_header(true).build(buffer.clone());
                // The header stands even when there are no rows.
                writer.write(&RecordBatch::new_empty(text_schema.clone()))?;
                Writer::Csv { writer: Box::new(writer), schema: text_schema }
            }
            Format::Arrow => Writer::Arrow(Box::new(StreamWriter::try_new(buffer.clone(), schema)?)),
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                Writer::Parquet(Box::new(ArrowWriter::try_new(buffer.clone(), schema.clone(), Some(properties))?))
            }
        };
        Ok(Encoder { writer, buffer })
    }

    /// Bytes that are ready after this batch; maybe none.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match &mut self.writer {
            Writer::Json { writer, schema, n_rows } => {
                *n_rows += batch.num_rows();
                writer.write(&as_text(batch, schema)?)?;
            }
            Writer::Csv { writer, schema } => writer.write(&as_text(batch, schema)?)?,
            Writer::Arrow(writer) => writer.write(batch)?,
            Writer::Parquet(writer) => {
                writer.write(batch)?;
                if writer.in_progress_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
            }
        }
        Ok(self.buffer.take())
    }

    /// The end of the result.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, ArrowError> {
        match &mut self.writer {
            Writer::Json { writer, n_rows, .. } => {
                writer.finish()?;
                write!(self.buffer, ",\"row_count\":{n_rows}}}")?;
            }
            Writer::Csv { .. } => {}
            Writer::Arrow(writer) => writer.finish()?,
            Writer::Parquet(writer) => drop(writer.finish()?),
        }
        Ok(self.buffer.take())
    }
}

/// JSON numbers lose digits of these.
fn is_exact(data_type: &DataType) -> bool {
    data_type.is_decimal()
}

/// The schema of a result as CSV: what is nested is text.
pub fn csv_schema(schema: &SchemaRef) -> SchemaRef {
    text_schema(schema, |data_type| data_type.is_nested())
}

/// The schema with text in place of the types that `is_text` names.
fn text_schema(schema: &SchemaRef, is_text: fn(&DataType) -> bool) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match is_text(field.data_type()) {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        // Nullability of expressions is sometimes told wrongly; texts do not care.
        false => Arc::new(field.as_ref().clone().with_nullable(true)),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A batch with text where `schema` has it; the items of a list with `;` between them. *Errors:* what cannot be text.
pub fn as_text(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| match column.data_type() {
        data_type if data_type == field.data_type() => Ok(column.clone()),
        DataType::List(_) => joined(column),
        _ => cast(column, field.data_type()),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// Lists, as in files that are read.
fn joined(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let lists = column.as_list::<i32>();
    let rows = (0..lists.len()).map(|row_idx| {
        if lists.is_null(row_idx) {
            return Ok(None);
        }
        let items = cast(&lists.value(row_idx), &DataType::Utf8)?;
        let items: Vec<&str> = items.as_string::<i32>().iter().map(Option::unwrap_or_default).collect();
        Ok(Some(items.join(";")))
    });
    let rows = rows.collect::<Result<StringArray, ArrowError>>()?;
    Ok(Arc::new(rows))
}
