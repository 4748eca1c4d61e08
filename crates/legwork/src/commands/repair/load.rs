//! What is stored of the keys that late events name.

use std::collections::BTreeMap;

use anyhow::Result;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use legwork_query::{Engine, SqlEngine};
use legwork_runtime::StoredLane;
use legwork_types::{Kind, LaneId};

use super::is_repairable;
use super::recompute::{Stored, column_counts, column_text, column_times, decode_late};
use crate::commands::sql::unlimited;
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;

/// Keys of a lane that are to be repaired.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) lane: LaneId,
    pub(super) kind: Kind,
    pub(super) keys: BTreeMap<String, LateEvents>,
}

impl Touched {
    pub(super) fn n_late(&self) -> usize {
        self.keys.values().map(|late| late.n).sum()
    }
}

/// The late events of a key, of the time asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LateEvents {
    pub(super) n: usize,
    /// Event time of the newest.
    pub(super) newest_us: i64,
    /// Another one for others, in whatever order.
    pub(super) fingerprint: u64,
}

impl LateEvents {
    pub(super) const NONE: LateEvents = LateEvents { n: 0, newest_us: i64::MIN, fingerprint: 0 };

    pub(super) fn add(&mut self, offset: i64, time_us: i64) {
        self.n += 1;
        self.newest_us = self.newest_us.max(time_us);
        // The finaliser of splitmix64 (Steele, Lea, Flood 2014).
        let mut hash = (offset as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.fingerprint = self.fingerprint.wrapping_add(hash ^ (hash >> 31));
    }
}

/// Reads store and lake as SQL does.
pub(super) struct Loader {
    engine: SqlEngine,
}

impl Loader {
    /// Over these lanes of the store.
    pub(super) fn new(config: &Config, kept: &Kept, lanes: Vec<StoredLane>) -> Result<Loader> {
        let live = data::live(lanes, config)?;
        let options = legwork_query::QueryOptions { sql_bytes_max: usize::MAX, ..unlimited(config, None, None)? };
        Ok(Loader { engine: SqlEngine::with_history(live, kept.tables.clone(), options)? })
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.engine.session().query(sql).await?.batches.try_collect().await?)
    }

    /// Lanes and keys that have late events in this time; `before`: and before this one, by lane. With `all`, also keys without late events
    /// that have others.
    pub(super) async fn touched(
        &self,
        (from_us, to_us): (i64, i64),
        before: impl Fn(&LaneId) -> i64,
        all: bool,
    ) -> Result<Vec<Touched>> {
        let within = format!("event_time >= '{}' AND event_time < '{}'", time(from_us), time(to_us));
        let mut found: BTreeMap<(LaneId, Kind), BTreeMap<String, LateEvents>> = BTreeMap::new();
        let late =
            format!("SELECT topic, \"partition\", kind, key, \"offset\", event_time FROM late_events WHERE {within}");
        for rows in self.rows(&late).await? {
            let (kinds, keys) = (column_text(&rows, "kind")?, column_text(&rows, "key")?);
            let (offsets, times) = (column_counts(&rows, "offset")?, column_times(&rows, "event_time")?);
            for (row, lane) in lanes(&rows)?.into_iter().enumerate() {
                let Ok(kind) = kinds.value(row).parse::<Kind>() else { continue };
                if times.value(row) < before(&lane) {
                    let of_lane = found.entry((lane, kind)).or_default();
                    let late = of_lane.entry(keys.value(row).to_owned()).or_insert(LateEvents::NONE);
                    late.add(offsets.value(row), times.value(row));
                }
            }
        }
        for kind in Kind::events().filter(|kind| all && is_repairable(*kind)) {
            let (key, table) = (kind.key(), kind.table());
            let stored = format!("SELECT DISTINCT topic, \"partition\", {key} AS key FROM {table} WHERE {within}");
            for rows in self.rows(&stored).await? {
                let keys = column_text(&rows, "key")?;
                for (row, lane) in lanes(&rows)?.into_iter().enumerate() {
                    let of_lane = found.entry((lane, kind)).or_default();
                    of_lane.entry(keys.value(row).to_owned()).or_insert(LateEvents::NONE);
                }
            }
        }
        Ok(found.into_iter().map(|((lane, kind), keys)| Touched { lane, kind, keys }).collect())
    }

    /// Everything that is stored of some of the keys, whenever it happened: what is counted in one day may follow from another.
    pub(super) async fn stored(&self, touched: &Touched, keys: &[String]) -> Result<Stored> {
        let Touched { lane, kind, .. } = touched;
        let list = keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(", ");
        let of_lane = format!("topic = {} AND \"partition\" = {}", text(&lane.topic), lane.partition);
        let columns: Vec<String> = kind.schema().fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
        let accepted = format!(
            "SELECT {}, \"offset\", arrival_time FROM {} WHERE {of_lane} AND {} IN ({list})",
            columns.join(", "),
            kind.table(),
            kind.key()
        );
        let late = format!(
            "SELECT event, \"offset\", arrival_time FROM late_events WHERE {of_lane} AND kind = {} AND key IN ({list})",
            text(kind.name())
        );
        let late = self.rows(&late).await?;
        let late = late.iter().map(|rows| decode_late(*kind, rows)).collect::<Result<_>>()?;
        Ok(Stored { accepted: self.rows(&accepted).await?, late })
    }
}

/// The lane of each row.
fn lanes(rows: &RecordBatch) -> Result<Vec<LaneId>> {
    let (topics, partitions) = (column_text(rows, "topic")?, column_counts(rows, "partition")?);
    let lane = |row: usize| Ok(LaneId::new(topics.value(row), i32::try_from(partitions.value(row))?));
    (0..rows.num_rows()).map(lane).collect()
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn time(time_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(time_us).map_or_else(
        || "1970-01-01T00:00:00Z".to_owned(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
    )
}
