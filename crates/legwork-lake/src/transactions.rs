//! Which checkpoint of each lane a version of a table holds: the `txn` actions of its log.
//!
//! delta-rs answers for one application id at a time and reads the whole log for each. Here all are read at once, and from one version to
//! the next only the commits between them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use deltalake::logstore::LogStore;
use futures::TryStreamExt;
use legwork_types::LaneId;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use crate::LakeError;

/// Newest checkpoint number by lane.
pub(crate) type Transactions = Arc<HashMap<LaneId, u32>>;

/// Prefix of our application ids.
const APP: &str = "legwork:";
const READ: &str = "read";

/// Field of a commit's `commitInfo` that tells it from all others, as other engines call it, too.
pub(crate) const COMMIT_ID: &str = "txnId";

/// The application id of a lane.
pub(crate) fn app_id(lane: &LaneId) -> String {
    format!("{APP}{lane}")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    txn_id: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

fn note(table: &str, found: &mut HashMap<LaneId, u32>, app_id: &str, version: i64) -> Result<(), LakeError> {
    let Some(lane) = app_id.strip_prefix(APP).and_then(LaneId::parse) else { return Ok(()) };
    let number = u32::try_from(version);
    let number =
        number.map_err(|_| LakeError::damaged(table, format!("{app_id} is at {version}, not a checkpoint")))?;
    found.insert(lane, number);
    Ok(())
}

fn lines(table: &str, commit: &[u8]) -> impl Iterator<Item = Result<Line, LakeError>> {
    let lines = commit.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(move |line| {
        serde_json::from_slice(line)
            .map_err(|error| LakeError::damaged(table, format!("a commit of its log is not JSON: {error}")))
    })
}

/// Adds what one commit says.
fn apply_commit(table: &str, found: &mut HashMap<LaneId, u32>, commit: &[u8]) -> Result<(), LakeError> {
    for line in lines(table, commit) {
        if let Some(txn) = line?.txn {
            note(table, found, &txn.app_id, txn.version)?;
        }
    }
    Ok(())
}

/// Lanes of a commit that was made under this id; none of another one.
pub(crate) fn lanes_under(table: &str, id: &str, commit: &[u8]) -> Result<Vec<LaneId>, LakeError> {
    let (mut found, mut is_ours) = (HashMap::new(), false);
    for line in lines(table, commit) {
        let Line { txn, commit_info } = line?;
        is_ours |= commit_info.is_some_and(|info| info.txn_id.is_some_and(|found| found == id));
        if let Some(txn) = txn {
            note(table, &mut found, &txn.app_id, txn.version)?;
        }
    }
    Ok(if is_ours { found.into_keys().collect() } else { Vec::new() })
}

/// What version `version` holds. `known`: what an older version holds.
pub(crate) async fn read(
    table: &str,
    log: &dyn LogStore,
    version: u64,
    known: Option<(u64, Transactions)>,
) -> Result<Transactions, LakeError> {
    match known {
        Some((at, transactions)) if at == version => Ok(transactions),
        Some((at, transactions)) if at < version => {
            let mut found = transactions.as_ref().clone();
            match apply_commits(table, log, at + 1, version, &mut found).await? {
                true => Ok(Arc::new(found)),
                false => read_all(table, log, version).await,
            }
        }
        _ => read_all(table, log, version).await,
    }
}

/// *Returns* false when a commit is not there any more.
async fn apply_commits(
    table: &str,
    log: &dyn LogStore,
    from: u64,
    to: u64,
    found: &mut HashMap<LaneId, u32>,
) -> Result<bool, LakeError> {
    for version in from..=to {
        let commit = log.read_commit_entry(version).await.map_err(|error| LakeError::delta(table, READ, error))?;
        let Some(commit) = commit else { return Ok(false) };
        apply_commit(table, found, &commit)?;
    }
    Ok(true)
}

async fn read_all(table: &str, log: &dyn LogStore, version: u64) -> Result<Transactions, LakeError> {
    let store = log.object_store(None);
    let mut found = HashMap::new();
    let checkpoint = newest_checkpoint(table, store.as_ref(), version).await?;
    let mut from = 0;
    if let Some((at, parts)) = checkpoint {
        from = at + 1;
        for part in parts {
            let bytes = get(table, store.as_ref(), &part).await?;
            match part.as_ref().ends_with(".json") {
                true => apply_commit(table, &mut found, &bytes)?,
                false => apply_checkpoint(table, &mut found, bytes)?,
            }
        }
    }
    match apply_commits(table, log, from, version, &mut found).await? {
        true => Ok(Arc::new(found)),
        false => Err(LakeError::damaged(table, format!("a commit between {from} and {version} of its log is missing"))),
    }
}

async fn get(table: &str, store: &dyn ObjectStore, path: &Path) -> Result<Bytes, LakeError> {
    let refused = |error| LakeError::store(table, READ, &error);
    store.get(path).await.map_err(refused)?.bytes().await.map_err(refused)
}

/// Name of a checkpoint's file: its version, and how many parts it has.
fn parse_checkpoint(name: &str) -> Option<(u64, usize)> {
    let (version, rest) = name.split_once(".checkpoint.")?;
    let version = (version.len() == 20).then(|| version.parse().ok())??;
    let n_parts = match rest.split('.').collect::<Vec<_>>()[..] {
        ["parquet"] | [_, "parquet" | "json"] => 1,
        [_, n_parts, "parquet"] => n_parts.parse().ok()?,
        _ => return None,
    };
    Some((version, n_parts))
}

/// The newest complete checkpoint not newer than `version`, with the files that hold it. Those of the same version say the same.
async fn newest_checkpoint(
    table: &str,
    store: &dyn ObjectStore,
    version: u64,
) -> Result<Option<(u64, Vec<Path>)>, LakeError> {
    let mut checkpoints: HashMap<(u64, usize, String), Vec<Path>> = HashMap::new();
    let mut listed = store.list(Some(&Path::from("_delta_log")));
    while let Some(object) = listed.try_next().await.map_err(|error| LakeError::store(table, READ, &error))? {
        let name = object.location.filename().unwrap_or_default();
        let in_folder = object.location.parts().count() == 2;
        let Some((at, n_parts)) = parse_checkpoint(name).filter(|(at, _)| in_folder && *at <= version) else {
            continue;
        };
        let alone = if n_parts == 1 { name.to_owned() } else { String::new() };
        checkpoints.entry((at, n_parts, alone)).or_default().push(object.location);
    }
    let complete = checkpoints.into_iter().filter(|((_, n_parts, _), parts)| parts.len() == *n_parts);
    Ok(complete.max_by(|(a, _), (b, _)| a.cmp(b)).map(|((at, ..), parts)| (at, parts)))
}

fn apply_checkpoint(table: &str, found: &mut HashMap<LaneId, u32>, bytes: Bytes) -> Result<(), LakeError> {
    let damaged =
        |error: &dyn std::fmt::Display| LakeError::damaged(table, format!("a checkpoint of its log: {error}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| damaged(&error))?;
    let columns = ProjectionMask::columns(reader.parquet_schema(), ["txn.appId", "txn.version"]);
    for batch in reader.with_projection(columns).build().map_err(|error| damaged(&error))? {
        apply_checkpoint_batch(table, found, &batch.map_err(|error| damaged(&error))?)?;
    }
    Ok(())
}

fn apply_checkpoint_batch(table: &str, found: &mut HashMap<LaneId, u32>, batch: &RecordBatch) -> Result<(), LakeError> {
    let Some(txn) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt()) else { return Ok(()) };
    let column = |name: &str, data_type: &DataType| {
        let column = txn
            .column_by_name(name)
            .ok_or_else(|| LakeError::damaged(table, format!("no txn.{name} in a checkpoint")))?;
        cast(column, data_type).map_err(|error| LakeError::damaged(table, error))
    };
    let (app_ids, versions) = (column("appId", &DataType::Utf8)?, column("version", &DataType::Int64)?);
    let (app_ids, versions) = (app_ids.as_string::<i32>(), versions.as_primitive::<Int64Type>());
    for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && app_ids.is_valid(*row)) {
        note(table, found, app_ids.value(row), versions.value(row))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_every_kind_are_told_apart() {
        let name = |rest: &str| format!("{:020}.checkpoint.{rest}", 42);
        assert_eq!(parse_checkpoint(&name("parquet")), Some((42, 1)));
        assert_eq!(parse_checkpoint(&name("0000000001.0000000003.parquet")), Some((42, 3)));
        assert_eq!(parse_checkpoint(&name("80a083e8-7026-4e79-81be-64bd76c43a11.parquet")), Some((42, 1)));
        assert_eq!(parse_checkpoint(&name("80a083e8-7026-4e79-81be-64bd76c43a11.json")), Some((42, 1)));
        for other in
            ["_last_checkpoint", "00000000000000000042.json", "42.checkpoint.parquet", "00000000000000000042.crc"]
        {
            assert_eq!(parse_checkpoint(other), None, "{other}");
        }
    }

    #[test]
    fn a_commit_is_told_by_its_id() {
        let commit = br#"{"commitInfo":{"txnId":"one","operation":"WRITE"}}
{"txn":{"appId":"legwork:field.calls.v1/3","version":7,"lastUpdated":1}}
"#;
        assert_eq!(lanes_under("calls", "one", commit).unwrap(), [LaneId::new("field.calls.v1", 3)]);
        assert_eq!(lanes_under("calls", "two", commit).unwrap(), []);
        assert_eq!(lanes_under("calls", "7", br#"{"commitInfo":{"txnId":7}}"#).unwrap(), [], "of another engine");
    }

    #[test]
    fn foreign_application_ids_are_left_alone() {
        let mut found = HashMap::new();
        let commit = br#"{"commitInfo":{}}
{"txn":{"appId":"legwork:field.calls.v1/3","version":7,"lastUpdated":1}}
{"txn":{"appId":"spark-job","version":9}}
"#;
        apply_commit("calls", &mut found, commit).unwrap();
        assert_eq!(found, HashMap::from([(LaneId::new("field.calls.v1", 3), 7)]));
        let negative = br#"{"txn":{"appId":"legwork:field.calls.v1/3","version":-1}}"#;
        assert!(matches!(apply_commit("calls", &mut found, negative), Err(LakeError::Damaged { .. })));
        assert!(matches!(apply_commit("calls", &mut found, b"{\"txn\":"), Err(LakeError::Damaged { .. })));
    }
}
