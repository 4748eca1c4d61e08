//! What is stored of the keys that late events name.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use legwork_query::{Engine, SqlEngine};
use legwork_types::{Kind, LaneId};

use super::recompute::{Stored, column_counts, column_text, decode_late};
use crate::commands::sql::unlimited;
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;

/// Keys of a lane with late events.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) lane: LaneId,
    pub(super) kind: Kind,
    pub(super) keys: Vec<String>,
    pub(super) n_late: usize,
}

/// Reads store and lake as SQL does.
pub(super) struct Loader {
    engine: SqlEngine,
}

impl Loader {
    pub(super) async fn new(config: &Config, kept: &Kept) -> Result<Loader> {
        let live = data::stored_lanes(kept, config).await?;
        let options = legwork_query::QueryOptions { sql_bytes_max: usize::MAX, ..unlimited(config, None, None)? };
        Ok(Loader { engine: SqlEngine::with_history(live, kept.tables.clone(), options)? })
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.engine.session().query(sql).await?.batches.try_collect().await?)
    }

    /// Lanes and keys that have late events in this time.
    pub(super) async fn touched(&self, from_us: i64, to_us: i64) -> Result<Vec<Touched>> {
        let sql = format!(
            "SELECT topic, \"partition\", kind, key FROM late_events WHERE event_time >= '{}' AND event_time < '{}'",
            time(from_us),
            time(to_us)
        );
        let mut found: BTreeMap<(LaneId, Kind), (BTreeSet<String>, usize)> = BTreeMap::new();
        for rows in self.rows(&sql).await? {
            let [topics, kinds, keys] = ["topic", "kind", "key"].map(|name| column_text(&rows, name));
            let (topics, kinds, keys) = (topics?, kinds?, keys?);
            let partitions = column_counts(&rows, "partition")?;
            for row in 0..rows.num_rows() {
                let Ok(kind) = kinds.value(row).parse::<Kind>() else { continue };
                let lane = LaneId::new(topics.value(row), i32::try_from(partitions.value(row))?);
                let (of_lane, n_late) = found.entry((lane, kind)).or_default();
                of_lane.insert(keys.value(row).to_owned());
                *n_late += 1;
            }
        }
        let touched = found.into_iter().map(|((lane, kind), (keys, n_late))| Touched {
            lane,
            kind,
            keys: keys.into_iter().collect(),
            n_late,
        });
        Ok(touched.collect())
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

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn time(time_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(time_us).map_or_else(
        || "1970-01-01T00:00:00Z".to_owned(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
    )
}
