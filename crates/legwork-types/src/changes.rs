//! What an operator hands over at a checkpoint, and the lanes that it belongs to.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::{Table, TableSnapshot};

/// A lane: one topic-partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
}

impl LaneId {
    /// Of a topic and a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> LaneId {
        LaneId { topic: topic.into(), partition }
    }

    /// The lane that [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<LaneId> {
        let (topic, partition) = text.rsplit_once('/')?;
        let partition: i32 = partition.parse().ok()?;
        (!topic.is_empty() && partition >= 0).then(|| LaneId::new(topic, partition))
    }
}

/// `topic/partition`: what the column `lane` of lake tables holds. A topic's name has no slash.
impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A piece of an operator's state under a key of its own. Without a value it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The operator's key, of any bytes.
    pub key: Vec<u8>,
    /// Its value, checksummed by the store, versioned by the operator.
    pub value: Option<Vec<u8>>,
}

impl StateEntry {
    /// Of a value that becomes bytes now.
    pub fn of((key, value): (Vec<u8>, Arc<dyn StateValue>)) -> StateEntry {
        StateEntry { key, value: Some(value.to_bytes()) }
    }
}

/// The value of an entry as the operator holds it, which changes no more. It becomes bytes when it is written, on another thread than the
/// lane's.
pub trait StateValue: fmt::Debug + Send + Sync {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
}

/// What has changed in an operator since its last checkpoint. What takes long to make is made by whoever writes or reads it first: the lane
/// does not wait for it.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// State that is loaded whole when the lane starts again.
    pub hot: Vec<StateEntry>,
    /// State that is read when it is asked for.
    pub cold: Vec<StateEntry>,
    /// Newest versions of rows that changed, retractions included. *Shape:* [`Table::version_schema`].
    pub rows: Vec<(Table, RecordBatch)>,
    /// More cold state, by key.
    pub cold_later: Vec<(Vec<u8>, Arc<dyn StateValue>)>,
    /// Rows of more tables, maybe none.
    pub rows_later: Vec<(Table, Arc<dyn TableSnapshot>)>,
}

impl Changes {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        let has_later = !self.cold_later.is_empty() || self.rows_later.iter().any(|(_, rows)| rows.n_rows() > 0);
        let has_rows = self.rows.iter().any(|(_, rows)| rows.num_rows() > 0);
        self.hot.is_empty() && self.cold.is_empty() && !has_rows && !has_later
    }

    /// With all made that was left for later.
    pub fn complete(mut self) -> Changes {
        self.cold.extend(std::mem::take(&mut self.cold_later).into_iter().map(StateEntry::of));
        for (table, rows) in std::mem::take(&mut self.rows_later) {
            let batches = (0..rows.n_chunks()).map(|chunk_idx| (table, rows.chunk(chunk_idx, None)));
            self.rows.extend(batches.filter(|(_, batch)| batch.num_rows() > 0));
        }
        self
    }
}

/// State from a store that an operator cannot take up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// A newer binary wrote it.
    #[error(
        "state {what} has format {found}, this binary reads up to {known}: start the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// Which entry.
        what: String,
        /// Its format.
        found: u8,
        /// The newest format known here.
        known: u8,
    },
    /// It is not what was written.
    #[error("state {what} is damaged: {detail}")]
    Damaged {
        /// Which entry.
        what: String,
        /// How.
        detail: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_reads_as_it_was_written() {
        let lane = LaneId::new("field.gps-pings.v1", 12);
        assert_eq!(
            (lane.to_string().as_str(), LaneId::parse(&lane.to_string())),
            ("field.gps-pings.v1/12", Some(lane))
        );
        assert!(["", "topic", "/3", "topic/-1", "topic/x"].iter().all(|text| LaneId::parse(text).is_none()));
    }
}
