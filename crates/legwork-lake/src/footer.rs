//! What a Parquet file says of itself, and files put together as they are.

use bytes::Bytes;
use chrono::DateTime;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Map, Value, json};

use crate::LakeError;
use crate::files::day_name;

/// *Errors:* `Rows`: it is no Parquet file.
pub(crate) fn read_footer(table: &str, file: &Bytes) -> Result<ParquetMetaData, LakeError> {
    ParquetMetaDataReader::new().parse_and_finish(file).map_err(|error| LakeError::rows(table, error))
}

/// Least and greatest value of a column over all row groups, and its nulls; no range where a row group with values tells none.
fn column_range(footer: &ParquetMetaData, column_idx: usize) -> (Option<(i64, i64)>, u64) {
    let (mut range, mut is_known, mut n_nulls) = (None::<(i64, i64)>, true, 0);
    for group in footer.row_groups() {
        let statistics = group.column(column_idx).statistics();
        let group_nulls = statistics.and_then(Statistics::null_count_opt).unwrap_or(0);
        n_nulls += group_nulls;
        let group_range = match statistics {
            Some(Statistics::Int64(values)) => values.min_opt().copied().zip(values.max_opt().copied()),
            Some(Statistics::Int32(values)) => {
                let wide = |value: Option<&i32>| value.map(|value| i64::from(*value));
                wide(values.min_opt()).zip(wide(values.max_opt()))
            }
            _ => None,
        };
        match (group_range, range) {
            (Some((low, high)), Some((before_low, before_high))) => {
                range = Some((low.min(before_low), high.max(before_high)))
            }
            (Some(found), None) => range = Some(found),
            (None, _) => is_known &= group_nulls == u64::try_from(group.num_rows()).unwrap_or(0),
        }
    }
    (range.filter(|_| is_known), n_nulls)
}

fn column_idx(footer: &ParquetMetaData, name: &str) -> Option<usize> {
    let columns = footer.file_metadata().schema_descr().columns();
    columns.iter().position(|column| column.path().parts() == [name])
}

/// Range of a column of times or counts.
pub(crate) fn range(footer: &ParquetMetaData, name: &str) -> Option<(i64, i64)> {
    column_range(footer, column_idx(footer, name)?).0
}

/// Statistics of some columns of times and counts as a table's log has them.
pub(crate) fn log_stats(footer: &ParquetMetaData, columns: &[String]) -> String {
    let (mut low, mut high, mut nulls) = (Map::new(), Map::new(), Map::new());
    for name in columns {
        let Some(idx) = column_idx(footer, name) else { continue };
        let (range, n_nulls) = column_range(footer, idx);
        nulls.insert(name.clone(), json!(n_nulls));
        let column = &footer.file_metadata().schema_descr().columns()[idx];
        if let Some((from, to)) = range
            && let (Some(from), Some(to)) = (log_value(column, from), log_value(column, to))
        {
            low.insert(name.clone(), from);
            high.insert(name.clone(), to);
        }
    }
    let n_rows = footer.file_metadata().num_rows();
    json!({ "numRecords": n_rows, "minValues": low, "maxValues": high, "nullCount": nulls }).to_string()
}

fn log_value(column: &ColumnDescriptor, value: i64) -> Option<Value> {
    match (column.logical_type_ref(), column.converted_type(), column.physical_type()) {
        (Some(LogicalType::Timestamp { .. }), ..) => DateTime::from_timestamp_micros(value)
            .map(|time| Value::String(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())),
        (_, ConvertedType::DATE, _) => i32::try_from(value).ok().map(|day| Value::String(day_name(day))),
        (_, _, Type::INT64 | Type::INT32) => Some(json!(value)),
        _ => None,
    }
}

/// Files of one schema as one file: their row groups one after the other, copied as they are.
pub(crate) fn join(table: &str, files: Vec<Bytes>) -> Result<Bytes, LakeError> {
    match <[Bytes; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(files) => join_several(&files).map_err(|error| LakeError::rows(table, error)),
    }
}

fn join_several(files: &[Bytes]) -> Result<Bytes, ParquetError> {
    let footers = files.iter().map(|file| ParquetMetaDataReader::new().parse_and_finish(file));
    let footers = footers.collect::<Result<Vec<_>, _>>()?;
    let first = footers.first().ok_or_else(|| ParquetError::General("no file to join".to_owned()))?.file_metadata();
    let properties = WriterProperties::builder().set_key_value_metadata(first.key_value_metadata().cloned()).build();
    let capacity = files.iter().map(Bytes::len).sum();
    let schema = first.schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(Vec::with_capacity(capacity), schema, properties.into())?;
    for (file, footer) in files.iter().zip(&footers) {
        for group in footer.row_groups() {
            let mut copy = writer.next_row_group()?;
            for column in group.columns() {
                let close = ColumnCloseResult {
                    bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
                    rows_written: u64::try_from(group.num_rows()).unwrap_or(0),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                copy.append_column(file, close)?;
            }
            copy.close()?;
        }
    }
    writer.into_inner().map(Bytes::from)
}

/// The Arrow schema of a file. *Errors:* `Rows`: it is no Parquet file.
pub(crate) fn arrow_metadata(table: &str, file: &Bytes) -> Result<ArrowReaderMetadata, LakeError> {
    ArrowReaderMetadata::load(file, Default::default()).map_err(|error| LakeError::rows(table, error))
}
