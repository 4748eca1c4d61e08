//! A lake in memory whose commits are atomic, and faulty.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use legwork_types::LaneId;
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::faults::Dice;
use crate::{LakeRows, LakeSink, Landed};

#[derive(Debug, Default)]
pub(super) struct LakeTable {
    pub(super) transactions: HashMap<LaneId, u32>,
    pub(super) rows: BTreeMap<LaneId, Vec<RecordBatch>>,
}

/// Shared by all instances; each sees it through its own dice.
#[derive(Clone, Debug)]
pub(super) struct Lake {
    pub(super) tables: Arc<Mutex<BTreeMap<String, LakeTable>>>,
    pub(super) dice: Dice,
}

impl Lake {
    /// Rows of a lane in a table.
    pub(super) fn rows(&self, table: &str, lane: &LaneId) -> Vec<RecordBatch> {
        self.tables.lock().get(table).and_then(|table| table.rows.get(lane).cloned()).unwrap_or_default()
    }

    /// A lane's transaction number in a table.
    pub(super) fn through(&self, table: &str, lane: &LaneId) -> u32 {
        self.tables.lock().get(table).and_then(|table| table.transactions.get(lane).copied()).unwrap_or(0)
    }
}

#[async_trait]
impl LakeSink for Lake {
    async fn commit(&self, table: &str, lanes: Vec<LakeRows>) -> Result<Vec<(LaneId, Landed)>, String> {
        self.dice.wait().await;
        if self.dice.fails() {
            return Err("the lake does not answer".to_owned());
        }
        let landed = {
            let mut tables = self.tables.lock();
            let table = tables.entry(table.to_owned()).or_default();
            let commit = |LakeRows { lane, through, rows, files }: LakeRows| {
                let now = table.transactions.get(&lane).copied().unwrap_or(0);
                if now >= through {
                    return (lane, if now == through { Landed::AlreadyThere } else { Landed::Ahead { at: now } });
                }
                table.transactions.insert(lane.clone(), through);
                let in_files = files.into_iter().flat_map(|(number, file)| read(file).map(move |rows| (number, rows)));
                let rows = rows.into_iter().chain(in_files).filter(|(number, _)| *number > now);
                table.rows.entry(lane.clone()).or_default().extend(rows.map(|(_, rows)| rows));
                (lane, Landed::Done)
            };
            lanes.into_iter().map(commit).collect()
        };
        self.dice.wait().await;
        if self.dice.fails() { Err("the lake did it and did not answer".to_owned()) } else { Ok(landed) }
    }

    async fn transactions(&self, table: &str) -> Result<Option<HashMap<LaneId, u32>>, String> {
        self.dice.wait().await;
        if self.dice.fails() {
            return Err("the lake does not answer".to_owned());
        }
        Ok(self.tables.lock().get(table).map(|table| table.transactions.clone()))
    }

    fn encode(&self, _table: &str, _lane: &LaneId, rows: &[RecordBatch]) -> Result<Vec<Bytes>, String> {
        let mut writer = ArrowWriter::try_new(Vec::new(), rows[0].schema(), None).unwrap();
        rows.iter().for_each(|rows| writer.write(rows).unwrap());
        Ok(vec![writer.into_inner().unwrap().into()])
    }
}

fn read(file: Bytes) -> impl Iterator<Item = RecordBatch> {
    ParquetRecordBatchReader::try_new(file, 1_024).unwrap().map(Result::unwrap)
}
