//! `legwork backfill`: recorded files into the lake, once.

mod conflicts;
mod set;
mod write;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use legwork_codec::files::FileInput;
use legwork_runtime::{EndedLane, run_files_to_rows};
use legwork_state::StateStore;
use legwork_types::{Kind, LaneId, LaneStatus};

pub(crate) use self::set::settings_of_rows;
use self::set::{Manifest, Set};
use super::lanes::configured;
use super::sql::{UNBOUNDED_US, inputs, progress_bar};
use crate::args::BackfillArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::{data, topics};

pub(super) async fn run(args: BackfillArgs) -> Result<()> {
    let config = configured(&args.config.overrides(), args.data.data.as_deref())?;
    if args.files.input.is_empty() {
        bail!(Failure::Usage("no files: give some, such as --input gps=pings.csv.gz".to_owned()));
    }
    if let Some((kind, _)) = args.files.input.iter().find(|(kind, _)| kind.is_reference()) {
        bail!(Failure::Usage(format!(
            "{kind} are reference data, which the lake does not keep: put the file into the folder reference.dir"
        )));
    }
    let kept = data::open(&config).await?;
    let lanes = kept.store.lanes().await.map_err(data::store_error)?;
    let is_needed = |lane: &LaneId| args.files.input.iter().any(|(kind, _)| conflicts::concerns(&config, lane, *kind));
    let needed = lanes.into_iter().filter(|(lane, _)| is_needed(lane));
    let heads = needed.map(|(lane, head)| Ok((lane, head.map_err(data::store_error)?))).collect::<Result<Vec<_>>>()?;
    let known: Vec<(LaneId, Manifest)> = heads
        .iter()
        .filter(|(lane, _)| lane.topic.starts_with(data::FILES))
        .filter_map(|(lane, head)| Some((lane.clone(), Manifest::of(head)?)))
        .collect();
    let mut sets = Vec::new();
    for (kind, inputs) in by_kind(inputs(&args.files.input, &args.files.map)?) {
        let operators = topics::operators(&config);
        let set = tokio::task::spawn_blocking(move || Set::new(kind, inputs, &operators)).await??;
        set.refuse_known_files(&known)?;
        sets.push(set);
    }
    for mut set in sets {
        let head = heads.iter().find(|(lane, _)| *lane == set.lane).map(|(_, head)| head);
        if head.is_some_and(|head| head.lake_through > 0) {
            report(&args, &set, "already there", None, &BTreeMap::new())?;
            continue;
        }
        if let Some(before) = head.and_then(Manifest::of) {
            set.resume(&before);
        }
        let mut ended = read(&config, &set).await?;
        conflicts::refuse(&config, &kept, &heads, &set, &mut ended).await?;
        let status = ended.status();
        let rows = write::write(&config, &kept, &set, ended).await?;
        report(&args, &set, "done", Some(&status), &rows)?;
        warn_of_retention(&config, &set, &rows);
    }
    Ok(())
}

/// The files of each kind.
fn by_kind(inputs: Vec<FileInput>) -> BTreeMap<Kind, Vec<FileInput>> {
    let mut kinds: BTreeMap<Kind, Vec<FileInput>> = BTreeMap::new();
    for input in inputs {
        kinds.entry(input.kind).or_default().push(input);
    }
    kinds
}

/// Runs the files of a set through a lane.
async fn read(config: &Config, set: &Set) -> Result<EndedLane> {
    let mut lanes = topics::lanes(config);
    // Files are run through once and hold what they hold: nothing of them is too late.
    lanes.operators.time.late_horizon_us = UNBOUNDED_US;
    // Events that memory does not hold wait on disk for the lake; none may go before.
    lanes.spill.disk_bytes_max = u64::MAX;
    let scratch = tempfile::tempdir()?;
    scratch.path().clone_into(&mut lanes.spill.dir);
    let (inputs, name): (_, Arc<str>) = (set.inputs.clone(), set.lane.topic.clone());
    let bar = progress_bar();
    let read = tokio::task::spawn_blocking(move || {
        let lanes = run_files_to_rows(inputs, lanes, &|_| name.clone(), &mut |progress| {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes_read);
            bar.set_message(format!("{} events", progress.n_events));
        });
        bar.finish_and_clear();
        lanes
    });
    let lane = read.await??.pop();
    // What is on disk is read until the end of the command.
    let _kept = scratch.keep();
    lane.ok_or_else(|| anyhow::anyhow!("the files of {} have no lane: this is a bug", set.lane))
}

fn report(
    args: &BackfillArgs,
    set: &Set,
    outcome: &str,
    status: Option<&LaneStatus>,
    rows: &BTreeMap<String, usize>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut line =
            serde_json::json!({ "kind": set.kind.to_string(), "lane": set.lane.to_string(), "outcome": outcome });
        if let Some(status) = status {
            line["n_read"] = status.n_read.into();
            line["n_accepted"] = status.n_accepted.into();
            line["n_rejected"] = status.n_rejected.into();
            line["n_duplicates"] = status.n_duplicates.into();
            line["rows"] = serde_json::to_value(rows)?;
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    match status {
        None => writeln!(out, "{}: these files are in the lake already, as {}", set.kind, set.lane)?,
        Some(status) => {
            writeln!(
                out,
                "{}: {} events read, {} accepted, {} rejected, {} duplicates; in the lake as {}",
                set.kind, status.n_read, status.n_accepted, status.n_rejected, status.n_duplicates, set.lane
            )?;
            for (table, n_rows) in rows {
                writeln!(out, "  {table}: {n_rows} rows")?;
            }
        }
    }
    Ok(out.flush()?)
}

/// Says so when the next round of maintenance may take away what was just written.
fn warn_of_retention(config: &Config, set: &Set, rows: &BTreeMap<String, usize>) {
    for table in rows.keys() {
        if let Some(kept) = config.lake.retention.get(table) {
            eprintln!(
                "legwork: {}: days of {table} that ended more than {kept} ago go at the next maintenance of the lake (lake.retention.{table}); facts stay",
                set.kind
            );
        }
    }
}
