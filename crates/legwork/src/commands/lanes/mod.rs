//! `legwork lanes`: what the store knows of its lanes, and how a halted one goes on.

mod accept;
mod list;
mod renew;

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use legwork_runtime::lane_tables;
use legwork_state::recovery::TableSeen;
use legwork_types::{Kind, LaneId};

use crate::args::LanesCommand;
use crate::config::{Config, Overrides};
use crate::topics;

pub(super) use accept::ask_broker;
pub(super) use list::problem;
pub(super) use renew::accept_all;

pub(super) async fn run(command: LanesCommand) -> Result<()> {
    match command {
        LanesCommand::List(args) => {
            let config = configured(&args.config.overrides(), args.data.data.as_deref())?;
            list::run(&config, args.format).await
        }
        LanesCommand::Accept(args) => {
            let config = configured(&args.config.overrides(), args.data.data.as_deref())?;
            accept::run(&config, &args).await
        }
    }
}

/// The configuration of a command over store and lake at `data`.
pub(super) fn configured(overrides: &Overrides, data: Option<&str>) -> Result<Config> {
    let mut config = super::quiet(overrides)?;
    crate::data::place(&mut config, data)?;
    Ok(config)
}

/// What a topic holds: as the configuration says, else by its default name.
pub(crate) fn kind_of(config: &Config, topic: &str) -> Option<Kind> {
    let configured = topics::names(config).into_iter().find(|(_, name)| name == topic);
    configured.map(|(kind, _)| kind).or_else(|| Kind::events().find(|kind| kind.topic() == topic))
}

/// What the lake says of the tables that a lane of this kind fills.
pub(crate) fn tables_seen(
    transactions: &[(String, HashMap<LaneId, u32>)],
    lane: &LaneId,
    kind: Option<Kind>,
) -> BTreeMap<String, TableSeen> {
    let of = |table: &str| match transactions.iter().find(|(name, _)| name == table) {
        None => TableSeen::Missing,
        Some((_, known)) => known.get(lane).map_or(TableSeen::Unwritten, |through| TableSeen::Through(*through)),
    };
    let filled: Vec<String> = match kind {
        Some(kind) => lane_tables(kind).into_iter().map(str::to_owned).collect(),
        None => transactions.iter().map(|(name, _)| name.clone()).collect(),
    };
    filled.into_iter().map(|name| (name.clone(), of(&name))).collect()
}
