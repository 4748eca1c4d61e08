//! Other engines read the tables: Python's deltalake, and DuckDB with the documented query.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use legwork_types::{Kind, Table};
use serde_json::Value;

use crate::testing::{DAY_0, at, commit, config, lane, sql, stays};
use crate::{Lake, LakeTable, LaneCommit};

/// An interpreter with deltalake and DuckDB: of the environment, else the one that `scripts/setup` makes. Without one these tests say so
/// and pass, unless the environment names it.
pub(super) fn python(modules: &str) -> Option<PathBuf> {
    let named = std::env::var_os("LEGWORK_PYTHON").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let python = named.clone().unwrap_or(home.join(".cache/legwork/venv/bin/python"));
    let works =
        Command::new(&python).args(["-c", &format!("import {modules}")]).output().is_ok_and(|o| o.status.success());
    assert!(works || named.is_none(), "{} lacks one of {modules}", python.display());
    if !works {
        println!("not run: no Python with {modules}; scripts/setup makes one");
    }
    works.then_some(python)
}

pub(super) fn ask(python: &Path, tables: &[(&str, PathBuf)], query: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/read_lake.py");
    let tables = tables.iter().map(|(name, folder)| format!("{name}={}", folder.display()));
    let mut child = Command::new(python)
        .arg(script)
        .args(tables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(query.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A block of docs/lake.md.
pub(super) fn documented(engine: &str) -> String {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lake.md")).unwrap();
    let start = docs.find(&format!("```sql {engine}\n")).expect("the query is documented");
    let query = docs[start..].split_once('\n').unwrap().1;
    query[..query.find("```").unwrap()].to_owned()
}

/// `n_rows` rows with a value of its type in every column.
pub(super) fn filled(schema: &SchemaRef, n_rows: usize) -> RecordBatch {
    let numbers = || 0..i64::try_from(n_rows).unwrap();
    let column = |data_type: &DataType| -> ArrayRef {
        match data_type {
            DataType::Utf8 => Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("text {n}")))),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(numbers())),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(numbers().map(|n| Some(n % 2 == 1)))),
            DataType::Binary => Arc::new(BinaryArray::from_iter_values(numbers().map(|n| n.to_le_bytes()))),
            DataType::Timestamp(..) => Arc::new(
                TimestampMicrosecondArray::from_iter_values(numbers().map(|n| at(DAY_0, n % 24) + 123_456))
                    .with_timezone("UTC"),
            ),
            DataType::Decimal128(precision, scale) => {
                let money = Decimal128Array::from_iter_values(numbers().map(|n| 10_001 * i128::from(n) - 5));
                Arc::new(money.with_precision_and_scale(*precision, *scale).unwrap())
            }
            other => match arrow::compute::cast(&Int64Array::from_iter_values(numbers().map(|n| n + 20_000)), other) {
                Ok(column) => column,
                Err(_) => new_null_array(other, n_rows),
            },
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.data_type())).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_gives_the_newest_versions_by_the_documented_query() {
    let Some(python) = python("deltalake, duckdb") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&format!("file://{}", folder.path().display()), &HashMap::new(), config()).unwrap();
    let steps: [&[_]; 3] = [
        &[("a", at(DAY_0, 1), 1, 1, false), ("b", at(DAY_0, 2), 2, 1, false), ("c", at(DAY_0 + 1, 3), 3, 1, false)],
        &[("a", at(DAY_0, 1), 11, 2, false), ("c", at(DAY_0 + 1, 3), 3, 2, true), ("d", at(DAY_0 + 2, 3), 4, 2, false)],
        &[("a", at(DAY_0, 1), 111, 3, false), ("b", at(DAY_0, 2), 2, 3, true), ("b", at(DAY_0, 4), 22, 3, false)],
    ];
    for (through, step) in (1..).zip(steps) {
        lake.commit(
            &stays(),
            vec![commit(0, through, step), commit(1, through, &[("a", at(DAY_0, 1), 7, through.into(), false)])],
        )
        .await
        .unwrap();
    }
    let query = format!("SELECT lane, device_id, n_pings, revision FROM ({}) ORDER BY ALL", documented("duckdb"));
    let seen = ask(&python, &[("stays", folder.path().join("stays"))], &query);
    let table = &seen["tables"]["stays"];
    assert_eq!(
        (table["version"].as_u64(), table["n_rows"].as_u64(), table["transaction"].as_u64()),
        (Some(3), Some(12), Some(3))
    );
    assert_eq!(table["schema"]["stay_start"], "timestamp");
    assert_eq!(table["schema"]["day"], "date");
    let rows: Vec<Vec<&str>> = seen["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect())
        .collect();
    let (lane_0, lane_1) = ("field.gps-pings.v1/0", "field.gps-pings.v1/1");
    assert_eq!(rows, [[lane_0, "a", "111", "3"], [lane_0, "b", "22", "3"], [lane_1, "a", "7", "3"]]);
    // Ours, in the words for engines without QUALIFY.
    let ours = format!("SELECT sum(n_pings) FROM ({})", documented("trino").replace("FROM stays", "FROM t"));
    let ours = sql(&lake, &stays(), &ours).await;
    assert_eq!(ours[0].column(0).as_primitive::<Int64Type>().value(0), 111 + 22 + 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_is_read_by_other_engines() {
    let Some(python) = python("deltalake, duckdb") else { return };
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&format!("file://{}", folder.path().display()), &HashMap::new(), config()).unwrap();
    let versions = Table::ALL.iter().filter_map(|table| Some((LakeTable::versions(*table)?, table.version_schema())));
    let events = Kind::events().map(|kind| (LakeTable::events(kind, &kind.schema()), kind.schema()));
    let mut tables = Vec::new();
    for (table, schema) in versions.chain(events) {
        let rows = vec![(1, filled(&schema, 24))];
        lake.commit(&table, vec![LaneCommit::of_rows(lane(0), 1, rows)]).await.unwrap();
        tables.push((table.name().to_owned(), folder.path().join(table.name())));
    }
    assert!(tables.len() > 25);
    let named: Vec<(&str, PathBuf)> = tables.iter().map(|(name, folder)| (name.as_str(), folder.clone())).collect();
    let query = "SELECT sum(amount), max(event_time)::VARCHAR, count(DISTINCT order_id) FROM orders";
    let seen = ask(&python, &named, query);
    for (name, _) in &tables {
        assert_eq!(seen["tables"][name]["n_rows"], 24, "{name}");
        assert_eq!(seen["tables"][name]["transaction"], 1, "{name}");
    }
    assert_eq!(seen["tables"]["rejected_events"]["schema"]["payload"], "binary");
    assert_eq!(seen["tables"]["orders"]["schema"]["amount"], "decimal(18,4)");
    assert_eq!(seen["rows"][0][0], "276.0156", "sum of 1.0001 n - 0.0005 over n below 24");
    assert_eq!(seen["rows"][0][1], "2026-11-20 23:00:00.123456+00");
}
