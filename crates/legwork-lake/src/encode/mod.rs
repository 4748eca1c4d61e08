//! Files of lanes' rows, which are written while events wait. What most of their columns hold - times, counts, strings that repeat or count up,
//! no nulls - is encoded here at several times the library's speed; every other column, and all that makes a file of them, is the library's.

mod chunk;
#[cfg(test)]
mod tests;
mod values;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedRowGroupWriter;

/// Rows as a Parquet file. *Shape:* `schema`, in every batch; no column is a struct.
pub(crate) fn encode(
    schema: &SchemaRef,
    properties: &WriterProperties,
    rows: &[RecordBatch],
) -> Result<Bytes, ParquetError> {
    let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties.clone()))?;
    let (mut file, factory) = writer.into_serialized_writer()?;
    if file.schema_descr().num_columns() != schema.fields().len() {
        return Err(ParquetError::NYI("a column of lanes' rows is a struct".to_owned()));
    }
    let n_rows_max = properties.max_row_group_row_count().unwrap_or(usize::MAX);
    for (group_idx, rows) in groups(rows, n_rows_max).into_iter().enumerate() {
        let writers = factory.create_column_writers(group_idx)?;
        let columns = file.schema_descr().columns().to_vec();
        let mut group = file.next_row_group()?;
        for (column_idx, (writer, column)) in writers.into_iter().zip(&columns).enumerate() {
            let parts: Vec<ArrayRef> = rows.iter().map(|rows| rows.column(column_idx).clone()).collect();
            match chunk::encode(column, properties, &parts)? {
                Some((bytes, close)) => group.append_column(&bytes, close)?,
                None => put_by_library(writer, schema.field(column_idx), &parts, &mut group)?,
            }
        }
        group.close()?;
    }
    file.into_inner().map(Bytes::from)
}

fn put_by_library(
    mut writer: ArrowColumnWriter,
    field: &Field,
    parts: &[ArrayRef],
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
) -> Result<(), ParquetError> {
    for part in parts {
        compute_leaves(field, part)?.iter().try_for_each(|leaf| writer.write(leaf))?;
    }
    let mut chunk = writer.close()?;
    // Of all columns or of none: the library panics otherwise. A joined file has none either.
    chunk.close_mut().column_index = None;
    chunk.close_mut().offset_index = None;
    chunk.append_to_row_group(group)
}

/// Rows in groups of at most so many.
fn groups(rows: &[RecordBatch], n_rows_max: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups: Vec<Vec<RecordBatch>> = Vec::new();
    let mut n_free = 0;
    for rows in rows {
        let mut start = 0;
        while start < rows.num_rows() {
            if n_free == 0 {
                groups.push(Vec::new());
                n_free = n_rows_max;
            }
            let n_rows = n_free.min(rows.num_rows() - start);
            groups.last_mut().expect("there is one").push(rows.slice(start, n_rows));
            (start, n_free) = (start + n_rows, n_free - n_rows);
        }
    }
    groups
}
