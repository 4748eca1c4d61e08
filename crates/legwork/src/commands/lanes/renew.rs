//! Lanes whose topics a broker has anew each time it starts.

use anyhow::{Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt, stream};
use legwork_runtime::lane_settings;
use legwork_state::StateStore;
use legwork_state::recovery::{Accepted, Decision, accept, decide};
use legwork_types::LaneId;

use super::accept::{Known, ask_broker, commit_head};
use super::{kind_of, tables_seen};
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::exit::Failure;
use crate::topics;

/// Lanes that are let go on at once.
const AT_ONCE: usize = 64;

/// Does to every halted lane of the store what `lanes accept` does, without a question: what was counted stays, and the topic is read from its
/// start. Nobody else may have the store. *Returns* how many there were.
///
/// *Errors:* lanes that would count anew what their topics have no more.
pub(crate) async fn accept_all(config: &Config, kept: &Kept) -> Result<usize> {
    let read = kept.store.lanes().await.map_err(data::store_error)?;
    let of_kind = |lane: &LaneId| kind_of(config, &lane.topic).filter(|kind| !kind.is_reference());
    let lanes = read.into_iter().filter_map(|(lane, head)| Some((of_kind(&lane)?, lane, head)));
    let lanes = lanes.map(|(kind, lane, head)| Ok((kind, lane, head.map_err(data::store_error)?)));
    let lanes = lanes.collect::<Result<Vec<_>>>()?;
    if lanes.is_empty() {
        return Ok(0);
    }
    let seen = ask_broker(config, lanes.iter().map(|(_, lane, _)| lane.clone()).collect()).await?;
    let (transactions, operators) = (data::transactions(kept).await?, topics::operators(config));
    let mut kept_heads = Vec::new();
    for ((kind, lane, head), topic) in lanes.into_iter().zip(seen) {
        let known = Known {
            lake: tables_seen(&transactions, &lane, Some(kind)),
            head: Some(head),
            pending: Vec::new(),
            topic,
            n_partitions_of_others: None,
            settings: lane_settings(kind, &operators),
            lane,
        };
        let Decision::Halt(halt) = decide(&known.found()) else { continue };
        match accept(&known.found()).map_err(|halt| anyhow!(halt))? {
            Accepted::Keep(head) => kept_heads.push((known.lane, head)),
            Accepted::Anew(_) => bail!(Failure::Usage(format!(
                "the history of lane {} was made with the settings {:?}, the configuration says {:?}: set them back, or begin anew ({halt})",
                known.lane,
                known.head.map(|head| head.settings).unwrap_or_default(),
                known.settings
            ))),
        }
    }
    let n_lanes = kept_heads.len();
    let commits = kept_heads.into_iter().map(|(lane, head)| async move {
        let claimed = kept.store.claim(&lane).await.map_err(data::store_error)?;
        commit_head(claimed.lane.as_ref(), head).await
    });
    stream::iter(commits).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(n_lanes)
}
