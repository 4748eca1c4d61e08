//! `legwork repair`: days that late events belong to, computed anew from everything that is stored.

mod compare;
mod load;
mod recompute;
mod schedule;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use indicatif::ProgressBar;
use legwork_lake::{LANE, LaneCommit, LaneOutcome};
use legwork_runtime::lane_settings;
use legwork_state::Head;
use legwork_types::time::DAY_US;
use legwork_types::{Kind, LaneId, Table};
use tracing::warn;

use self::compare::{Difference, Zone, compare, versions};
use self::load::{Loader, Touched};
pub(crate) use self::schedule::{RepairMetrics, repair_due};
use super::backfill::settings_of_rows;
use super::lanes::{configured, kind_of};
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
    /// Whose lane may still count events of those days.
    n_keys_held: usize,
    n_keys_incomplete: usize,
    /// By table: rows written, rows retracted.
    tables: BTreeMap<String, (usize, usize)>,
}

pub(super) async fn run(args: RepairArgs) -> Result<()> {
    let config = configured(&args.config.overrides(), args.data.data.as_deref())?;
    let [from_us, to_us] = [&args.from, &args.to].map(|time| topics::parse_time(time));
    let (from_us, to_us) = (from_us.map_err(Failure::Usage)?, to_us.map_err(Failure::Usage)?);
    if from_us >= to_us {
        bail!(Failure::Usage("--from must be before --to".to_owned()));
    }
    let kept = data::open_existing(&config).await?;
    let bar = ProgressBar::new(0);
    let tell = |touched: &Touched, n_done: usize| {
        bar.set_message(touched.lane.to_string());
        bar.set_length(touched.keys.len() as u64);
        bar.set_position(n_done as u64);
    };
    let mut repair = Repair::open(&config, &kept, &tell).await?;
    refuse_held_days(&config, &repair.heads, to_us)?;
    for touched in repair.loader.touched((from_us, to_us), |_| i64::MAX, args.all).await? {
        if is_repairable(touched.kind) {
            refuse_other_settings(&config, &repair.heads, &touched)?;
        }
        repair.lane(&touched).await?;
    }
    bar.finish_and_clear();
    let summary = if args.dry_run { repair.summary } else { repair.write().await?.summary };
    report(&args, &summary)
}

/// Refuses days in which a lane may still count events that come late.
fn refuse_held_days(config: &Config, heads: &BTreeMap<LaneId, Head>, to_us: i64) -> Result<()> {
    let of_kind = |lane: &LaneId| kind_of(config, &lane.topic).is_some_and(is_repairable);
    let lanes = heads.iter().filter(|(lane, head)| head.newest_us > i64::MIN && of_kind(lane));
    for (lane, head) in lanes {
        let held_from_us = held_from_us(config, head);
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

/// The first day in which a lane may still count what comes late.
fn held_from_us(config: &Config, head: &Head) -> i64 {
    head.newest_us.saturating_sub(config.time.late_horizon.0).div_euclid(DAY_US) * DAY_US
}

fn refuse_other_settings(config: &Config, heads: &BTreeMap<LaneId, Head>, touched: &Touched) -> Result<()> {
    let settings = lane_settings(touched.kind, &topics::operators(config));
    match heads.get(&touched.lane) {
        Some(head) if settings_of_rows(head) != settings => bail!(Failure::Usage(format!(
            "the rows of lane {} were made with the settings {:?}, the configuration says {settings:?}: repair with the same",
            touched.lane,
            settings_of_rows(head)
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

/// Keys that are computed anew.
struct Repair<'a> {
    config: &'a Config,
    kept: &'a Kept,
    heads: BTreeMap<LaneId, Head>,
    /// Lanes of which it is not known what they hold.
    unreadable: BTreeSet<LaneId>,
    loader: Loader,
    revisions: Revisions,
    /// Hears how many keys of a lane are done.
    tell: &'a (dyn Fn(&Touched, usize) + Sync),
    summary: Summary,
    /// Versions to be written.
    found: BTreeMap<Table, Vec<RecordBatch>>,
}

/// Keys of a lane of which nothing is left to be done, whatever their lane counts next.
type Settled = BTreeSet<String>;

impl<'a> Repair<'a> {
    async fn open(
        config: &'a Config,
        kept: &'a Kept,
        tell: &'a (dyn Fn(&Touched, usize) + Sync),
    ) -> Result<Repair<'a>> {
        let (mut lanes, mut unreadable) = (Vec::new(), BTreeSet::new());
        for (lane, stored) in data::read_lanes(kept).await? {
            match stored {
                Ok(stored) => lanes.push(stored),
                Err(error) => {
                    warn!(%lane, %error, "its rows are left as they are: the lane cannot be read");
                    unreadable.insert(lane);
                }
            }
        }
        let heads = lanes.iter().map(|stored| (stored.lane.clone(), stored.head.clone())).collect();
        let revisions = Revisions::read(kept).await?;
        let loader = Loader::new(config, kept, lanes)?;
        let (summary, found) = (Summary::default(), BTreeMap::new());
        Ok(Repair { config, kept, heads, unreadable, loader, revisions, tell, summary, found })
    }

    /// Computes keys of a lane.
    async fn lane(&mut self, touched: &Touched) -> Result<Settled> {
        self.summary.n_late += touched.n_late();
        if self.unreadable.contains(&touched.lane) {
            self.summary.n_keys += touched.keys.len();
            self.summary.n_keys_held += touched.keys.len();
            return Ok(Settled::new());
        }
        if !is_repairable(touched.kind) {
            self.summary.n_late_left += touched.n_late();
            return Ok(Settled::new());
        }
        let keys: Vec<String> = touched.keys.keys().cloned().collect();
        let (mut settled, mut n_done) = (Settled::new(), 0);
        for keys in keys.chunks(KEYS_AT_ONCE) {
            settled.extend(self.keys(touched, keys).await?);
            n_done += keys.len();
            (self.tell)(touched, n_done);
        }
        self.summary.n_keys += keys.len();
        Ok(settled)
    }

    async fn keys(&mut self, touched: &Touched, keys: &[String]) -> Result<Settled> {
        let (kind, lane) = (touched.kind, &touched.lane);
        let has_retention = self.config.lake.retention.contains_key(kind.table());
        let stored = self.loader.stored(touched, keys).await?;
        let mut zones = recompute::zones(kind, &stored, self.config.time.late_horizon.0, has_retention)?;
        let (operators, of) = (topics::operators(self.config), lane.clone());
        let computed =
            tokio::task::spawn_blocking(move || recompute::recompute(kind, &of, &stored, &operators)).await??;
        let mut differences: Vec<(Table, Difference)> = Vec::new();
        for (table, rows) in computed {
            let Some(of_lake) = self.kept.tables.get(table.name()) else { continue };
            let is_first = table.def().key.first() == Some(&kind.key());
            let there = self.kept.tables.lake().newest_of_lane(of_lake, lane, is_first.then_some(keys)).await;
            let there = there.map_err(data::lake_error)?;
            differences.push((table, compare(table, kind.key(), &there, &rows, &zones)?));
        }
        // A key is repaired in all its tables or in none.
        let incomplete: Settled = differences.iter().flat_map(|(_, found)| found.incomplete.iter().cloned()).collect();
        for (_, found) in &differences {
            zones.retain(|key, _| !found.not_final.contains(key) && !incomplete.contains(key));
        }
        self.take(lane, kind, differences, &zones)?;
        let reaches = |key: &String| zones.get(key).is_some_and(|zone| touched.keys[key].newest_us < zone.reach_us);
        let settled: Settled = keys.iter().filter(|key| reaches(key) || incomplete.contains(*key)).cloned().collect();
        self.summary.n_keys_incomplete += incomplete.len();
        self.summary.n_keys_held += keys.len() - settled.len();
        Ok(settled)
    }

    /// Takes up what is to be written of some keys.
    fn take(
        &mut self,
        lane: &LaneId,
        kind: Kind,
        differences: Vec<(Table, Difference)>,
        zones: &HashMap<String, Zone>,
    ) -> Result<()> {
        for (table, difference) in differences {
            let revision = REVISIONS + i64::from(self.revisions.next(table));
            for (rows, is_deleted) in [(difference.written, false), (difference.retracted, true)] {
                for rows in rows {
                    let rows = compare::of_keys(&rows, kind.key(), zones)?;
                    let counts = self.summary.tables.entry(table.name().to_owned()).or_default();
                    *(if is_deleted { &mut counts.1 } else { &mut counts.0 }) += rows.num_rows();
                    let rows = for_lane(&versions(table, &rows, revision, is_deleted)?, lane)?;
                    self.found.entry(table).or_default().push(rows);
                }
            }
        }
        Ok(())
    }

    /// Writes what was found.
    async fn write(mut self) -> Result<Repair<'a>> {
        for (table, rows) in std::mem::take(&mut self.found) {
            write(self.kept, table, &self.revisions, rows).await?;
        }
        Ok(self)
    }
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
    let commit = LaneCommit::of_rows(revisions.writer.clone(), through, rows);
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
            "n_keys_held": summary.n_keys_held,
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
    if summary.n_keys_held > 0 {
        writeln!(
            out,
            "left for later: {} whose lane may still count events of those days; repair them again when it has moved on",
            summary.n_keys_held
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
