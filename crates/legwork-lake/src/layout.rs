//! The schema and the properties of a Delta table, and how they grow.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake::kernel::{Action, MetadataExt as _, Protocol, StructField, StructType, new_metadata};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use url::Url;

use crate::table::DAY;
use crate::{LakeError, LakeTable};

/// Commits between two checkpoints of a log.
pub(crate) const CHECKPOINT_EVERY: u64 = 100;

/// Properties of a new table. `delta.setTransactionRetentionDuration` is not among them, and must not be: a lane may be silent for
/// years, and its transaction still says what it has delivered.
fn properties(table: &LakeTable) -> Vec<(&'static str, String)> {
    vec![
        // Statistics only of what helps to skip files. Other writers honour it, too.
        ("delta.dataSkippingStatsColumns", [table.skipping(), &[DAY.to_owned()]].concat().join(",")),
        ("delta.checkpointInterval", CHECKPOINT_EVERY.to_string()),
        ("delta.enableExpiredLogCleanup", "true".to_owned()),
        ("delta.logRetentionDuration", "interval 7 days".to_owned()),
        ("delta.deletedFileRetentionDuration", "interval 7 days".to_owned()),
    ]
}

fn struct_type(table: &LakeTable, schema: &Schema) -> Result<StructType, LakeError> {
    schema.try_into_kernel().map_err(|error| LakeError::rows(table.name(), format!("no Delta type: {error}")))
}

/// Version 0 of a table.
pub(crate) fn creation(table: &LakeTable, url: &Url) -> Result<(Vec<Action>, DeltaOperation), LakeError> {
    let bug = |error: &dyn std::fmt::Display| LakeError::rows(table.name(), error);
    let schema = struct_type(table, &table.schema())?;
    let metadata = new_metadata(&schema, [DAY], properties(table)).map_err(|error| bug(&error))?;
    let metadata = metadata.with_name(table.name().to_owned()).map_err(|error| bug(&error))?;
    // The oldest protocol: nothing that an old reader cannot read is used.
    let protocol = serde_json::json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
    let protocol: Protocol = serde_json::from_value(protocol).map_err(|error| bug(&error))?;
    let operation = DeltaOperation::Create {
        mode: SaveMode::ErrorIfExists,
        location: url.clone(),
        protocol: protocol.clone(),
        metadata: metadata.clone(),
    };
    Ok((vec![Action::Protocol(protocol), Action::Metadata(metadata)], operation))
}

/// Whether two types are the same apart from the names of list elements and what may be null.
pub(crate) fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_type(a.data_type(), b.data_type()),
        (DataType::Timestamp(a, a_zone), DataType::Timestamp(b, b_zone)) => {
            a == b && a_zone.is_some() == b_zone.is_some()
        }
        _ => a == b,
    }
}

/// The metadata that gives a table the columns it lacks, and lets those be null that now may; none when it has all. Columns that only the table has stay: a newer binary
/// added them.
pub(crate) fn evolution(
    table: &LakeTable,
    delta: &DeltaTableState,
) -> Result<Option<(Vec<Action>, DeltaOperation)>, LakeError> {
    let partitions = delta.metadata().partition_columns();
    if partitions != [DAY.to_owned()] {
        return Err(LakeError::Layout {
            table: table.name().to_owned(),
            detail: format!(
                "it is partitioned by {partitions:?}, expected by {DAY}: move the table away, or set lake.url to another place"
            ),
        });
    }
    let found = delta.snapshot().arrow_schema();
    let wanted = table.schema();
    let (mut added, mut relaxed) = (Vec::new(), Vec::new());
    for field in wanted.fields() {
        match found.field_with_name(field.name()) {
            Ok(there) if same_type(there.data_type(), field.data_type()) => {
                if field.is_nullable() && !there.is_nullable() {
                    relaxed.push(field.name().as_str());
                }
            }
            Ok(there) => {
                return Err(LakeError::ColumnType {
                    table: table.name().to_owned(),
                    column: field.name().clone(),
                    found: there.data_type().to_string(),
                    expected: field.data_type().to_string(),
                });
            }
            // Rows that are there have no value.
            Err(_) => added.push(Field::new(field.name(), field.data_type().clone(), true)),
        }
    }
    let is_missing =
        |field: &&arrow::datatypes::FieldRef| !field.is_nullable() && wanted.index_of(field.name()).is_err();
    if let Some(field) = found.fields().iter().find(is_missing) {
        return Err(LakeError::Newer {
            table: table.name().to_owned(),
            detail: format!("its column {} must have a value, and this binary does not know it", field.name()),
        });
    }
    if added.is_empty() && relaxed.is_empty() {
        return Ok(None);
    }
    let bug = |error: &dyn std::fmt::Display| LakeError::rows(table.name(), error);
    let new: StructType = struct_type(table, &Schema::new(Fields::from(added)))?;
    let old = delta.metadata().parse_schema().map_err(|error| bug(&error))?;
    let relax = |field: &StructField| StructField {
        nullable: field.nullable || relaxed.contains(&field.name().as_str()),
        ..field.clone()
    };
    let all = old.fields().map(relax).chain(new.fields().cloned());
    let all = StructType::try_new(all).map_err(|error| bug(&error))?;
    let metadata = delta.metadata().clone().with_schema(&all).map_err(|error| bug(&error))?;
    let operation = DeltaOperation::AddColumn { fields: new.fields().cloned().collect() };
    Ok(Some((vec![Action::Metadata(metadata)], operation)))
}
