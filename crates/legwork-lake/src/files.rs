//! Data files: rows of one day as Parquet, with the statistics that the log keeps of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, filter_record_batch, max, min};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{NaiveDate, TimeDelta};
use deltalake::kernel::Add;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::encode::encode;
use crate::footer::{log_stats, read_footer};
use crate::layout::same_type;
use crate::table::DAY;
use crate::{LakeError, LakeTable};

const DAY_US: i64 = 86_400_000_000;
/// Rows of a row group: what a reader skips or reads at once.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// 0001-01-01 and 9999-12-31: what every engine can read as the name of a day.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// A UTC day as the name of its partition.
pub(crate) fn day_name(day: i32) -> String {
    let day = day.clamp(*DAYS.start(), *DAYS.end());
    (NaiveDate::default() + TimeDelta::days(i64::from(day))).to_string()
}

/// The UTC day of a partition's name.
pub(crate) fn parse_day(name: &str) -> Option<i32> {
    let date: NaiveDate = name.parse().ok()?;
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// What a file is to whoever compacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileRole {
    /// As a commit of lanes wrote it.
    Part,
    /// Several merged, sorted.
    Merged,
    /// One of those that hold a day sorted and, for versions, resolved.
    Resolved,
}

impl FileRole {
    const ALL: [FileRole; 3] = [FileRole::Part, FileRole::Merged, FileRole::Resolved];

    const fn prefix(self) -> &'static str {
        match self {
            FileRole::Part => "part",
            FileRole::Merged => "merged",
            FileRole::Resolved => "resolved",
        }
    }

    /// By the name of a file. Another engine's files count as parts.
    pub(crate) fn of(path: &str) -> FileRole {
        let name = path.rsplit('/').next().unwrap_or(path);
        let prefix = name.split('-').next().unwrap_or(name);
        FileRole::ALL.into_iter().find(|role| role.prefix() == prefix).unwrap_or(FileRole::Part)
    }
}

/// *Returns* `rows` with the columns of `schema`, in its order: null where they lack one that may be null, without those that it does
/// not have. *Errors:* `Rows` where a column has another type, or must have a value and has none.
pub(crate) fn conform(table: &str, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, LakeError> {
        match rows.column_by_name(field.name()) {
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), rows.num_rows())),
            None => Err(LakeError::rows(table, format!("no column {}", field.name()))),
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) if same_type(column.data_type(), field.data_type()) => {
                cast(column, field.data_type()).map_err(|error| LakeError::rows(table, error))
            }
            Some(column) => {
                let (found, expected) = (column.data_type(), field.data_type());
                Err(LakeError::rows(table, format!("column {} is {found}, expected {expected}", field.name())))
            }
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| LakeError::rows(table, error))
}

/// The UTC day of a time. One beyond all calendars (files may have any) lies in the first or last day that there is.
pub(crate) fn day_of(us: i64) -> i32 {
    let (first, last) = (i64::from(*DAYS.start()), i64::from(*DAYS.end()));
    i32::try_from(us.div_euclid(DAY_US).clamp(first, last)).unwrap_or_default()
}

/// Parts rows by the UTC day of their day column. *Shape:* the columns of `rows`, each row in one of the days, in the order they came.
pub(crate) fn by_day(table: &LakeTable, rows: &RecordBatch) -> Result<Vec<(i32, RecordBatch)>, LakeError> {
    let column = rows
        .column_by_name(table.day_column())
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let column = column.ok_or_else(|| LakeError::rows(table.name(), format!("{} is no time", table.day_column())))?;
    if column.null_count() > 0 {
        return Err(LakeError::rows(table.name(), format!("{} is null", table.day_column())));
    }
    let (Some(first), Some(last)) = (min(column).map(day_of), max(column).map(day_of)) else { return Ok(Vec::new()) };
    if first == last {
        return Ok(vec![(first, rows.clone())]);
    }
    let days: Vec<i32> = column.values().iter().map(|us| day_of(*us)).collect();
    let mut distinct = days.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let part = |day: i32| {
        let mask = days.iter().map(|of| Some(*of == day)).collect();
        filter_record_batch(rows, &mask).map(|rows| (day, rows)).map_err(|error| LakeError::rows(table.name(), error))
    };
    distinct.into_iter().map(part).collect()
}

/// What is spared in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sparing {
    /// Work: it is written while events wait, and is soon merged with others.
    Work,
    /// Bytes: it is there for years.
    Bytes,
}

impl Sparing {
    fn compression(self) -> Compression {
        match self {
            Sparing::Work => Compression::SNAPPY,
            Sparing::Bytes => Compression::ZSTD(ZstdLevel::default()),
        }
    }

    /// Whether a column is compressed. Encoded, numbers would lose little more.
    fn compresses(self, field: &Field) -> bool {
        self == Sparing::Bytes || !field.data_type().is_primitive()
    }
}

/// In the place of a dictionary, where looking each value up costs more than all the rest of writing.
fn encoding(field: &Field) -> Option<Encoding> {
    match (field.data_type(), field.name().as_str()) {
        (DataType::Float64, _) => Some(Encoding::PLAIN),
        (DataType::Timestamp(..) | DataType::Int64, _) => Some(Encoding::DELTA_BINARY_PACKED),
        (DataType::Utf8, "event_id") => Some(Encoding::DELTA_BYTE_ARRAY),
        _ => None,
    }
}

/// How a table's files are written.
#[derive(Clone, Debug)]
pub(crate) struct FileFormat {
    table: String,
    schema: SchemaRef,
    skipping: Vec<String>,
    properties: WriterProperties,
}

impl FileFormat {
    /// Of lanes' rows. `found`: the columns of the table as it is; those that this binary does not know are left out.
    pub(crate) fn new(table: &LakeTable, found: &Schema) -> FileFormat {
        let fields = found.fields().iter().filter(|field| table.file_schema().index_of(field.name()).is_ok());
        FileFormat::with_schema(table, Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())), Sparing::Work)
    }

    /// Of merged files, with every column that the table has, those included that only a newer binary knows: compaction loses none.
    pub(crate) fn whole(table: &LakeTable, found: &Schema) -> FileFormat {
        let fields = found.fields().iter().filter(|field| field.name() != DAY);
        FileFormat::with_schema(table, Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>())), Sparing::Bytes)
    }

    fn with_schema(table: &LakeTable, schema: SchemaRef, sparing: Sparing) -> FileFormat {
        let mut properties = WriterProperties::builder()
            .set_compression(sparing.compression())
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_data_page_row_count_limit(ROW_GROUP_ROWS)
            .set_statistics_enabled(EnabledStatistics::None);
        for field in schema.fields() {
            let column = ColumnPath::from(field.name().as_str());
            if !sparing.compresses(field) {
                properties = properties.set_column_compression(column.clone(), Compression::UNCOMPRESSED);
            }
            if let Some(encoding) = encoding(field) {
                properties = properties.set_column_dictionary_enabled(column.clone(), false);
                properties = properties.set_column_encoding(column, encoding);
            }
        }
        // In the footer also of what files are sorted by: a reader then finds a device's row group, and the footer lives as long as the rows.
        for column in table.skipping().iter().chain(table.sort()) {
            properties =
                properties.set_column_statistics_enabled(ColumnPath::from(column.as_str()), EnabledStatistics::Chunk);
        }
        FileFormat {
            table: table.name().to_owned(),
            schema,
            skipping: table.skipping().to_vec(),
            properties: properties.build(),
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A file under way, in memory.
    pub(crate) fn start(&self) -> Result<FileWriter, LakeError> {
        let writer = ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(self.properties.clone()));
        let writer = writer.map_err(|error| LakeError::rows(&self.table, error))?;
        Ok(FileWriter { table: self.table.clone(), writer })
    }

    /// Lanes' rows as a file.
    pub(crate) fn encode(&self, rows: &[RecordBatch]) -> Result<Bytes, LakeError> {
        encode(&self.schema, &self.properties, rows).map_err(|error| LakeError::rows(&self.table, error))
    }

    /// Writes a file and *returns* the action that adds it. Until that is committed nobody reads it.
    pub(crate) async fn put(
        &self,
        store: &dyn ObjectStore,
        bytes: Bytes,
        (role, day): (FileRole, i32),
        is_new_data: bool,
    ) -> Result<Add, LakeError> {
        let stats = log_stats(&read_footer(&self.table, &bytes)?, &self.skipping);
        let (day, size) = (day_name(day), bytes.len());
        let path = format!("{DAY}={day}/{}-{}.parquet", role.prefix(), uuid::Uuid::new_v4().simple());
        let written = store.put(&Path::from(path.as_str()), bytes.into()).await;
        written.map_err(|error| LakeError::store(&self.table, "written to", &error))?;
        Ok(Add {
            path,
            partition_values: HashMap::from([(DAY.to_owned(), Some(day))]),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            modification_time: chrono::Utc::now().timestamp_millis(),
            data_change: is_new_data,
            stats: Some(stats),
            ..Add::default()
        })
    }
}

/// A file under way, in memory.
#[derive(Debug)]
pub(crate) struct FileWriter {
    table: String,
    writer: ArrowWriter<Vec<u8>>,
}

impl FileWriter {
    /// *Shape:* the format's schema.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        self.writer.write(rows).map_err(|error| LakeError::rows(&self.table, error))
    }

    /// About how many bytes the file will have.
    pub(crate) fn n_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// The file as bytes.
    pub(crate) fn into_bytes(mut self) -> Result<Bytes, LakeError> {
        let n_bytes = self.writer.in_progress_size();
        self.writer.inner_mut().reserve(n_bytes + n_bytes / 8);
        self.writer.into_inner().map(Bytes::from).map_err(|error| LakeError::rows(&self.table, error))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use legwork_types::Table;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::rows;

    #[test]
    fn days_have_names_that_engines_read() {
        assert_eq!(
            [-1, 0, 20_777, i32::MIN, i32::MAX].map(day_name),
            ["1969-12-31", "1970-01-01", "2026-11-20", "0001-01-01", "9999-12-31"]
        );
        assert_eq!(parse_day("2026-11-20"), Some(20_777));
        assert_eq!(parse_day("__HIVE_DEFAULT_PARTITION__"), None);
    }

    #[test]
    fn roles_are_read_off_names() {
        let role = |name: &str| FileRole::of(&format!("day=2026-11-20/{name}"));
        assert_eq!(role("resolved-0af.parquet"), FileRole::Resolved);
        assert_eq!(role("merged-0af.parquet"), FileRole::Merged);
        assert_eq!([role("part-0af.parquet"), role("part-00000-x.c000.parquet"), role("x")], [FileRole::Part; 3]);
    }

    proptest! {
        #[test]
        fn each_row_lies_in_the_day_of_its_time(times in prop::collection::vec(prop_oneof![any::<i64>(), -10 * DAY_US..10 * DAY_US], 1..50)) {
            let table = LakeTable::versions(Table::Stays).unwrap();
            let stays: Vec<_> = times.iter().map(|us| ("a", *us, 1, 1, false)).collect();
            let parts = by_day(&table, &rows(&stays)).unwrap();
            let mut found = Vec::new();
            for (day, rows) in &parts {
                let column = rows.column_by_name("stay_start").unwrap().as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
                for us in column.values() {
                    let start = i128::from(*day) * i128::from(DAY_US);
                    let is_inside = (start..start + i128::from(DAY_US)).contains(&i128::from(*us));
                    prop_assert!(is_inside || *day == *DAYS.start() || *day == *DAYS.end());
                    found.push(*us);
                }
            }
            prop_assert!(parts.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let mut times = times;
            times.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(found, times);
        }
    }
}
