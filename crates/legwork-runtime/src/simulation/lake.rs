//! A lake in memory whose commits are atomic, and faulty.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use legwork_types::LaneId;
use parking_lot::Mutex;

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
            let commit = |LakeRows { lane, through, rows }: LakeRows| {
                let now = table.transactions.get(&lane).copied().unwrap_or(0);
                if now >= through {
                    return (lane, if now == through { Landed::AlreadyThere } else { Landed::Ahead { at: now } });
                }
                table.transactions.insert(lane.clone(), through);
                let rows = rows.into_iter().filter(|(number, _)| *number > now).map(|(_, rows)| rows);
                table.rows.entry(lane.clone()).or_default().extend(rows);
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
}
