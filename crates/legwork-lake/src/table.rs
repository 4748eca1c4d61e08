//! What a table of the lake is: its columns, how its rows are told apart, by what they are laid out.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use legwork_types::{Kind, Table};

use crate::LakeError;

/// Column that says from which lane a version comes, `topic/partition`.
pub const LANE: &str = "lane";
/// Partition column: the UTC day that a row belongs to.
pub const DAY: &str = "day";
/// Column with the number of the lane's checkpoint that wrote a version.
pub const REVISION: &str = "revision";
/// Column that says that a row was retracted.
pub const IS_DELETED: &str = "is_deleted";

/// How the rows of a table are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Rows are versions: of those with one key in one lane and day the largest revision counts, unless it is a retraction.
    Versions,
    /// Rows stand for themselves.
    Events,
}

/// A table of the lake.
#[derive(Clone, Debug)]
pub struct LakeTable {
    name: Arc<str>,
    shape: Shape,
    /// With `lane`, without `day`: what files hold.
    file_schema: SchemaRef,
    day_column: Arc<str>,
    sort: Vec<String>,
    skipping: Vec<String>,
}

impl LakeTable {
    /// The lake table of a table that lanes fill: [`Table::version_schema`], then `lane`, partitioned by `day`.
    /// *Returns* none for a table that the lake does not keep.
    pub fn versions(table: Table) -> Option<LakeTable> {
        let (def, schema) = (table.def(), table.version_schema());
        let day_column = def.day?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| plain(field)).collect();
        fields.push(Field::new(LANE, DataType::Utf8, false));
        let is_skipping = |name: &str| name == REVISION || name == day_column || name == "window_end";
        let is_key_time = |field: &Field| def.key.contains(&field.name().as_str()) && is_time(field.data_type());
        let skipping = fields.iter().filter(|field| is_skipping(field.name()) || is_key_time(field));
        Some(LakeTable {
            name: table.name().into(),
            shape: Shape::Versions,
            skipping: skipping.map(|field| field.name().clone()).collect(),
            file_schema: Arc::new(Schema::new(fields)),
            day_column: day_column.into(),
            sort: def.key.iter().map(|&column| column.to_owned()).collect(),
        })
    }

    /// The lake table of a kind's events. `columns`: those of its live table (the kind's own, then topic, partition, offset, arrival_time).
    pub fn events(kind: Kind, columns: &Schema) -> LakeTable {
        let fields: Vec<Field> = columns.fields().iter().map(|field| plain(field)).collect();
        let skipping = ["event_time", "arrival_time", "partition", "offset"];
        let skipping = skipping.into_iter().filter(|name| fields.iter().any(|field| field.name() == name));
        LakeTable {
            name: kind.table().into(),
            shape: Shape::Events,
            skipping: skipping.map(str::to_owned).collect(),
            file_schema: Arc::new(Schema::new(fields)),
            day_column: "event_time".into(),
            sort: vec![kind.key().to_owned(), "event_time".to_owned()],
        }
    }

    /// Name, of the table and of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its rows are to be read.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Columns that its files are sorted by once they are compacted; for versions also what identifies a row within its lane and day.
    pub fn sort(&self) -> &[String] {
        &self.sort
    }

    /// Timestamp column whose UTC day is the partition.
    pub fn day_column(&self) -> &str {
        &self.day_column
    }

    /// Every column, `day` last.
    pub fn schema(&self) -> SchemaRef {
        let day = Field::new(DAY, DataType::Date32, false);
        Arc::new(Schema::new(
            self.file_schema.fields().iter().map(|f| f.as_ref().clone()).chain([day]).collect::<Vec<_>>(),
        ))
    }

    /// What files hold: every column but `day`.
    pub(crate) fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// Columns with statistics in the table's log: times, offsets and revisions, which help to skip files. Never what names or places a
    /// person: the log outlives the files.
    pub(crate) fn skipping(&self) -> &[String] {
        &self.skipping
    }

    /// Checks what a caller put together.
    pub(crate) fn check(&self) -> Result<(), LakeError> {
        let lacks = |column: &str| self.file_schema.index_of(column).is_err();
        match self.sort.iter().map(String::as_str).chain([self.day_column.as_ref()]).find(|column| lacks(column)) {
            Some(column) => Err(LakeError::rows(&self.name, format!("no column {column}"))),
            None => Ok(()),
        }
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// Without metadata: docs of columns may change without the table's schema changing.
fn plain(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_statistics_name_or_place_a_person() {
        let skipped: Vec<_> = Table::ALL.iter().filter_map(|table| LakeTable::versions(*table)).collect();
        assert!(skipped.len() > 10);
        for table in &skipped {
            table.check().unwrap();
            for column in table.skipping() {
                let field = table.file_schema().field_with_name(column).unwrap();
                assert!(
                    is_time(field.data_type()) || *field.data_type() == DataType::Int64,
                    "{column} of {}",
                    table.name()
                );
            }
            assert!(
                table.skipping().contains(&REVISION.to_owned())
                    && table.skipping().contains(&table.day_column().to_owned())
            );
        }
        let movement = LakeTable::versions(Table::DeviceMovement).unwrap();
        assert_eq!(movement.skipping(), ["window_start", "window_end", "revision"]);
        assert_eq!(
            movement.schema().fields().iter().rev().take(2).map(|f| f.name().as_str()).collect::<Vec<_>>(),
            [DAY, LANE]
        );
        assert!(LakeTable::versions(Table::PipelineLanes).is_none());
        let pings = LakeTable::events(Kind::Gps, &Kind::Gps.schema());
        assert_eq!(
            (pings.skipping(), pings.sort()),
            (&["event_time".to_owned()][..], &["device_id".to_owned(), "event_time".to_owned()][..])
        );
    }
}
