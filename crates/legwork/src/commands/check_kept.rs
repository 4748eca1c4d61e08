//! `legwork check`, the hops behind the lanes: store and lake.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Result;
use legwork_runtime::lane_settings;
use legwork_state::recovery::TopicSeen;
use legwork_state::{Head, StateStore, StoreError};
use legwork_types::LaneId;

use super::check::{Findings, Status};
use super::lanes::{ask_broker, kind_of, problem, tables_seen};
use crate::config::{Config, without_password};
use crate::data;
use crate::delivery::{Kept, lake_url};
use crate::service::wall_clock_us;
use crate::topics;

/// The lease that shows that the lake can be written ends at once: nobody has to wait for it.
const LEASE: Duration = Duration::from_millis(1);

pub(super) async fn check_kept(config: &Config, findings: &mut Findings) {
    let hop = format!("store {}", without_password(&config.store.url));
    let kept = match Kept::open(config).await {
        Ok(Some(kept)) => kept,
        Ok(None) => {
            findings.add(hop, Status::Ok, "nothing is kept: lanes read their topics anew after a restart");
            return;
        }
        Err(error) => {
            findings.is_config = crate::exit::is_config(&error);
            findings.add(hop, Status::Failed, format!("{error:#}"));
            return;
        }
    };
    let lanes = match kept.store.lanes().await {
        Ok(lanes) => lanes,
        Err(error) => {
            findings.add(hop, Status::Failed, format!("{error}; check store.url and store.options"));
            return;
        }
    };
    findings.add(hop, Status::Ok, format!("answers; {} lanes", lanes.len()));
    let hop = format!("lake {}", without_password(&lake_url(config)));
    match check_lake(config, &kept).await {
        Ok((message, transactions)) => {
            findings.add(hop, Status::Ok, message);
            check_lanes(config, lanes.into_iter().collect(), &transactions, findings).await;
        }
        Err(error) => findings.add(hop, Status::Failed, format!("{error:#}; check lake.url and store.options")),
    }
}

type ReadHeads = HashMap<LaneId, Result<Head, StoreError>>;
type Transactions = Vec<(String, HashMap<LaneId, u32>)>;

/// Reads every table's newest version, and makes an object that must not be there yet, as commits do.
async fn check_lake(config: &Config, kept: &Kept) -> Result<(String, Transactions)> {
    let transactions = data::transactions(kept).await?;
    let lease = kept.tables.lake().lease(&config.instance.id, wall_clock_us() / 1_000, LEASE).await;
    let lease = lease.map_err(|error| anyhow::anyhow!("it cannot be written: {error}"))?;
    let writer = if lease.is_some() { "can be written" } else { "is maintained by a running instance" };
    Ok((format!("answers and {writer}; {} tables", transactions.len()), transactions))
}

/// Lanes that will not go on by themselves, as far as store, lake, configuration and brokers can tell.
async fn check_lanes(config: &Config, read: ReadHeads, transactions: &Transactions, findings: &mut Findings) {
    let in_lake = transactions.iter().flat_map(|(_, known)| known.keys());
    let lanes: BTreeSet<&LaneId> = read.keys().chain(in_lake).collect();
    let operators = topics::operators(config);
    let with_topic: Vec<LaneId> = lanes
        .iter()
        .filter(|lane| kind_of(config, &lane.topic).is_some_and(|kind| !kind.is_reference()))
        .map(|lane| (*lane).clone())
        .collect();
    // Brokers that do not answer are a finding of their own.
    let asked = match with_topic.is_empty() {
        true => Ok(Vec::new()),
        false => ask_broker(config, with_topic.clone()).await,
    };
    let fit = if asked.is_ok() {
        "fit their topics, the lake and the configuration"
    } else {
        "fit the lake and the configuration"
    };
    let mut seen: HashMap<LaneId, TopicSeen> = with_topic.into_iter().zip(asked.unwrap_or_default()).collect();
    let mut n_well = 0;
    for lane in lanes {
        let (head, kind) = (read.get(lane).map(Result::as_ref).transpose(), kind_of(config, &lane.topic));
        let settings = kind.map(|kind| lane_settings(kind, &operators));
        let topic = seen.remove(lane);
        let problem = |head| problem(lane, head, settings.as_deref(), (&tables_seen(transactions, lane, kind), topic));
        let found = head.map_or_else(|error| Some(error.to_string()), problem);
        match found {
            Some(problem) => findings.add(format!("lane {lane}"), Status::Failed, problem),
            None => n_well += 1,
        }
    }
    if n_well > 0 {
        findings.add("lanes", Status::Ok, format!("{n_well} {fit}"));
    }
}
