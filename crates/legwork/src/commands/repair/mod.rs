//! `legwork repair`: days that late events belong to, computed anew from everything that is stored.

mod compare;
mod load;
mod recompute;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use indicatif::ProgressBar;
use legwork_lake::{LANE, LaneCommit, LaneOutcome};
use legwork_runtime::lane_settings;
use legwork_state::{Head, StateStore};
use legwork_types::time::DAY_US;
use legwork_types::{Kind, LaneId, Table};

use self::compare::{Difference, compare, versions};
use self::load::{Loader, Touched};
use super::lanes::{kind_of, quiet};
use crate::args::RepairArgs;
use crate::config::Config;
use crate::delivery::Kept;
use crate::exit::Failure;
use crate::{data, topics};

/// Repaired versions have revisions above all numbers of checkpoints, so that they win over what the lane wrote.
const REVISIONS: i64 = 1 << 32;
/// Keys whose events are held at once.
const KEYS_AT_ONCE: usize = 200;

/// Kinds whose rows are final once their key's late horizon has passed. Rows of calls, meetings and tasks are not: a newer version of one may
/// come at any time, and their lane goes on writing the window.
pub(super) fn is_repairable(kind: Kind) -> bool {
    matches!(kind, Kind::Gps | Kind::Emails | Kind::Messages)
}

/// What became of the touched keys.
#[derive(Debug, Default)]
struct Summary {
    n_late: usize,
    n_late_left: usize,
    n_keys: usize,
    n_keys_held: usize,
    n_keys_not_final: usize,
    n_keys_incomplete: usize,
    /// By table: rows written, rows retracted.
    tables: BTreeMap<String, (usize, usize)>,
}

pub(super) async fn run(args: RepairArgs) -> Result<()> {
    let config = quiet(&args.config.overrides(), args.data.data.as_deref())?;
    let [from_us, to_us] = [&args.from, &args.to].map(|time| topics::parse_time(time));
    let (from_us, to_us) = (from_us.map_err(Failure::Usage)?, to_us.map_err(Failure::Usage)?);
    if from_us >= to_us {
        bail!(Failure::Usage("--from must be before --to".to_owned()));
    }
    let kept = data::open_existing(&config).await?;
    let heads = kept.store.lanes().await.map_err(data::store_error)?;
    let heads: BTreeMap<LaneId, Head> = heads.into_iter().collect();
    refuse_held_days(&config, &heads, to_us)?;
    let loader = Loader::new(&config, &kept).await?;
    let mut summary = Summary::default();
    let mut versions: BTreeMap<Table, Vec<RecordBatch>> = BTreeMap::new();
    let revisions = Revisions::read(&kept).await?;
    for touched in loader.touched(from_us, to_us).await? {
        summary.n_late += touched.n_late;
        if !is_repairable(touched.kind) {
            summary.n_late_left += touched.n_late;
            continue;
        }
        refuse_other_settings(&config, &heads, &touched)?;
        repair_lane(&config, &kept, &loader, &touched, &revisions, &mut summary, &mut versions).await?;
    }
    if !args.dry_run {
        for (table, rows) in versions {
            write(&kept, table, &revisions, rows).await?;
        }
    }
    report(&args, &summary)
}

/// Refuses days in which a lane may still count events that come late.
fn refuse_held_days(config: &Config, heads: &BTreeMap<LaneId, Head>, to_us: i64) -> Result<()> {
    let of_kind = |lane: &LaneId| kind_of(config, &lane.topic).is_some_and(is_repairable);
    let lanes = heads.iter().filter(|(lane, head)| head.newest_us > i64::MIN && of_kind(lane));
    for (lane, head) in lanes {
        let held_from_us = head.newest_us.saturating_sub(config.time.late_horizon.0).div_euclid(DAY_US) * DAY_US;
        if to_us > held_from_us {
            let day = chrono::DateTime::from_timestamp_micros(held_from_us).map(|day| day.format("%F").to_string());
            bail!(Failure::Usage(format!(
                "lane {lane} still counts what comes late for the days from {} on: end before, with --to {}",
                day.as_deref().unwrap_or("?"),
                day.as_deref().unwrap_or("TIME"),
            )));
        }
    }
    Ok(())
}

fn refuse_other_settings(config: &Config, heads: &BTreeMap<LaneId, Head>, touched: &Touched) -> Result<()> {
    let settings = lane_settings(touched.kind, &topics::operators(config));
    match heads.get(&touched.lane) {
        Some(head) if head.settings != settings => bail!(Failure::Usage(format!(
            "the rows of lane {} were made with the settings {:?}, the configuration says {settings:?}: repair with the same",
            touched.lane, head.settings
        ))),
        _ => Ok(()),
    }
}

/// The number that repair has in each table so far.
#[derive(Debug)]
struct Revisions {
    writer: LaneId,
    numbers: BTreeMap<String, u32>,
}

impl Revisions {
    async fn read(kept: &Kept) -> Result<Revisions> {
        let writer = LaneId::new(data::REPAIR, 0);
        let known = data::transactions(kept).await?.into_iter();
        let numbers = known.filter_map(|(table, known)| Some((table, *known.get(&writer)?))).collect();
        Ok(Revisions { writer, numbers })
    }

    /// The number of this repair.
    fn next(&self, table: Table) -> u32 {
        self.numbers.get(table.name()).copied().unwrap_or(0) + 1
    }
}

async fn repair_lane(
    config: &Config,
    kept: &Kept,
    loader: &Loader,
    touched: &Touched,
    revisions: &Revisions,
    summary: &mut Summary,
    found: &mut BTreeMap<Table, Vec<RecordBatch>>,
) -> Result<()> {
    let (kind, lane) = (touched.kind, &touched.lane);
    let has_retention = config.lake.retention.contains_key(kind.table());
    let bar = ProgressBar::new(touched.keys.len() as u64);
    bar.set_message(lane.to_string());
    for keys in touched.keys.chunks(KEYS_AT_ONCE) {
        let stored = loader.stored(touched, keys).await?;
        let zones = recompute::zones(kind, &stored, config.time.late_horizon.0, has_retention)?;
        summary.n_keys += keys.len();
        summary.n_keys_held += keys.iter().filter(|key| !zones.contains_key(*key)).count();
        let (operators, of) = (topics::operators(config), lane.clone());
        let computed =
            tokio::task::spawn_blocking(move || recompute::recompute(kind, &of, &stored, &operators)).await??;
        let mut differences: Vec<(Table, Difference)> = Vec::new();
        for (table, rows) in computed {
            let Some(of_lake) = kept.tables.get(table.name()) else { continue };
            let is_first = table.def().key.first() == Some(&kind.key());
            let there = kept.tables.lake().newest_of_lane(of_lake, lane, is_first.then_some(keys)).await;
            let there = there.map_err(data::lake_error)?;
            differences.push((table, compare(table, kind.key(), &there, &rows, &zones)?));
        }
        // A key is repaired in all its tables or in none.
        let mut settled = zones;
        for (_, difference) in &differences {
            settled.retain(|key, _| !difference.not_final.contains(key) && !difference.incomplete.contains(key));
        }
        let all = |of: fn(&Difference) -> &std::collections::BTreeSet<String>| {
            differences
                .iter()
                .flat_map(|(_, difference)| of(difference))
                .collect::<std::collections::BTreeSet<_>>()
                .len()
        };
        summary.n_keys_incomplete += all(|difference| &difference.incomplete);
        summary.n_keys_not_final += all(|difference| &difference.not_final);
        for (table, difference) in differences {
            let revision = REVISIONS + i64::from(revisions.next(table));
            for (rows, is_deleted) in [(difference.written, false), (difference.retracted, true)] {
                for rows in rows {
                    let rows = compare::of_keys(&rows, kind.key(), &settled)?;
                    let counts = summary.tables.entry(table.name().to_owned()).or_default();
                    *(if is_deleted { &mut counts.1 } else { &mut counts.0 }) += rows.num_rows();
                    let rows = for_lane(&versions(table, &rows, revision, is_deleted)?, lane)?;
                    found.entry(table).or_default().push(rows);
                }
            }
        }
        bar.inc(keys.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Versions that are written for a lane by somebody else.
fn for_lane(rows: &RecordBatch, lane: &LaneId) -> Result<RecordBatch> {
    let lanes: ArrayRef = Arc::new(StringArray::from(vec![lane.to_string(); rows.num_rows()]));
    let field = Arc::new(Field::new(LANE, DataType::Utf8, false));
    let fields: Vec<_> = rows.schema().fields().iter().cloned().chain([field]).collect();
    let columns = rows.columns().iter().cloned().chain([lanes]).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

async fn write(kept: &Kept, table: Table, revisions: &Revisions, rows: Vec<RecordBatch>) -> Result<()> {
    let Some(of_lake) = kept.tables.get(table.name()) else { return Ok(()) };
    if rows.iter().all(|rows| rows.num_rows() == 0) {
        return Ok(());
    }
    let through = revisions.next(table);
    let rows = rows.into_iter().map(|rows| (through, rows)).collect();
    let commit = LaneCommit { lane: revisions.writer.clone(), through, rows };
    let committed = kept.tables.lake().commit(of_lake, vec![commit]).await.map_err(data::lake_error)?;
    match committed.lanes.first() {
        Some((_, LaneOutcome::Done)) => Ok(()),
        _ => bail!(Failure::Temporary(format!(
            "another repair has written {} meanwhile: start this one again, it finds what is left",
            table.name()
        ))),
    }
}

fn report(args: &RepairArgs, summary: &Summary) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let tables: BTreeMap<_, _> = summary
            .tables
            .iter()
            .map(|(table, (n_written, n_retracted))| {
                (table, serde_json::json!({ "written": n_written, "retracted": n_retracted }))
            })
            .collect();
        let line = serde_json::json!({
            "dry_run": args.dry_run,
            "n_late": summary.n_late,
            "n_late_left": summary.n_late_left,
            "n_keys": summary.n_keys,
            "n_keys_held": summary.n_keys_held + summary.n_keys_not_final,
            "n_keys_incomplete": summary.n_keys_incomplete,
            "tables": tables,
        });
        writeln!(out, "{line}")?;
        return Ok(out.flush()?);
    }
    writeln!(out, "{} late events of {} devices or reps", summary.n_late - summary.n_late_left, summary.n_keys)?;
    let verb = if args.dry_run { "would be " } else { "" };
    for (table, (n_written, n_retracted)) in &summary.tables {
        writeln!(out, "  {table}: {n_written} rows {verb}written, {n_retracted} {verb}retracted")?;
    }
    let n_held = summary.n_keys_held + summary.n_keys_not_final;
    if n_held > 0 {
        writeln!(
            out,
            "left for later: {n_held} whose lane may still count events of those days; repair them again when it has moved on"
        )?;
    }
    if summary.n_keys_incomplete > 0 {
        writeln!(
            out,
            "not repaired: {} whose rows count events that are not stored any more (lake.retention, lake.raw_events)",
            summary.n_keys_incomplete
        )?;
    }
    if summary.n_late_left > 0 {
        writeln!(
            out,
            "not repaired: {} late events of calls, meetings, tasks and others, whose rows may change at any time; they are in late_events",
            summary.n_late_left
        )?;
    }
    Ok(out.flush()?)
}
