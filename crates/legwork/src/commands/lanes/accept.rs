//! `legwork lanes accept`: a halted lane goes on, after whoever is responsible has seen what that means.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use legwork_kafka::{Admin, KafkaError, PartitionOffsets};
use legwork_lake::{IS_DELETED, LaneCommit, LaneOutcome, REVISION};
use legwork_operators::OperatorConfig;
use legwork_runtime::lane_settings;
use legwork_state::recovery::{Accepted, Decision, Found, Halt, TableSeen, TopicSeen, accept, decide};
use legwork_state::{Checkpoint, Head, LaneStore, PendingRows, StateStore};
use legwork_types::{Kind, LaneId, Table};

use super::{kind_of, tables_seen};
use crate::args::LanesAcceptArgs;
use crate::config::Config;
use crate::data;
use crate::delivery::Kept;
use crate::exit::Failure;
use crate::topics;

/// What is known of the lane, owned.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) lane: LaneId,
    pub(super) head: Option<Head>,
    pub(super) pending: Vec<PendingRows>,
    pub(super) topic: TopicSeen,
    pub(super) lake: BTreeMap<String, TableSeen>,
    pub(super) n_partitions_of_others: Option<i32>,
    pub(super) settings: String,
}

impl Known {
    pub(super) fn found(&self) -> Found<'_> {
        Found {
            lane: &self.lane,
            head: self.head.as_ref(),
            pending: &self.pending,
            settings: &self.settings,
            topic: &self.topic,
            n_partitions_of_others: self.n_partitions_of_others,
            lake: &self.lake,
        }
    }
}

pub(super) async fn run(config: &Config, args: &LanesAcceptArgs) -> Result<()> {
    let lane = &args.lane;
    let Some(kind) = kind_of(config, &lane.topic).filter(|kind| !kind.is_reference()) else {
        bail!(Failure::Usage(format!(
            "no events are read from topic {}: see legwork lanes list, and topics.KIND.names in the configuration",
            lane.topic
        )));
    };
    let operators = topics::operators(config);
    let kept = data::open_existing(config).await?;
    let topic = ask_broker(config, vec![lane.clone()]).await?.pop().unwrap_or(TopicSeen::Missing);
    let known = look(&kept, lane, kind, topic, &operators).await?;
    let halt = match decide(&known.found()) {
        Decision::Halt(halt) => halt,
        Decision::Start | Decision::Resume(_) => {
            report(args, "nothing to accept", &[format!("lane {lane} goes on by itself when it is started")])?;
            return Ok(());
        }
    };
    let accepted = accept(&known.found()).map_err(|halt| anyhow!(halt))?;
    refuse_what_is_wrong(&known, &halt, &accepted)?;
    let meaning = meaning(&known, kind, &halt, &accepted);
    if !args.yes {
        if args.json || !std::io::stdin().is_terminal() {
            report(args, "not done: --yes is missing", &meaning)?;
            bail!(Failure::Usage("say --yes to do this".to_owned()));
        }
        report(args, "this is what it means", &meaning)?;
        confirm()?;
    }
    carry_out(&kept, &known, kind, accepted).await?;
    report(args, "done", &meaning)
}

/// What the broker says of the lanes' topics, in their order.
pub(in crate::commands) async fn ask_broker(config: &Config, lanes: Vec<LaneId>) -> Result<Vec<TopicSeen>> {
    let (options, bootstrap) = (topics::kafka_options(config)?, config.kafka.bootstrap.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let admin = Admin::new(&bootstrap, &options)?;
        let there: HashSet<String> = admin.list()?.into_iter().map(|(name, _)| name).collect();
        let mut topics = HashMap::new();
        for lane in lanes.iter().filter(|lane| there.contains(&*lane.topic)) {
            if !topics.contains_key(&lane.topic) {
                topics.insert(lane.topic.clone(), (admin.offsets(&lane.topic)?, admin.topic_id(&lane.topic)?));
            }
        }
        Ok(lanes.iter().map(|lane| topic_seen(topics.get(&lane.topic), lane.partition)).collect())
    });
    let seen: Result<Vec<TopicSeen>, KafkaError> = asked.await?;
    seen.map_err(|error| Failure::Temporary(format!("{error}; check kafka.bootstrap")).into())
}

/// A partition of a topic whose offsets and identity are known, if it is there.
fn topic_seen(topic: Option<&(Vec<PartitionOffsets>, Option<String>)>, partition: i32) -> TopicSeen {
    let Some((offsets, topic_id)) = topic else { return TopicSeen::Missing };
    let Some(of_lane) = offsets.iter().find(|offsets| offsets.partition == partition) else {
        return TopicSeen::Missing;
    };
    TopicSeen::Present {
        topic_id: topic_id.clone(),
        log_start: of_lane.low,
        log_end: of_lane.high,
        n_partitions: i32::try_from(offsets.len()).unwrap_or(i32::MAX),
    }
}

/// Reads store and lake; nothing is claimed.
async fn look(kept: &Kept, lane: &LaneId, kind: Kind, topic: TopicSeen, operators: &OperatorConfig) -> Result<Known> {
    let peeked = kept.store.peek(lane).await.map_err(data::store_error)?;
    let read = kept.store.lanes().await.map_err(data::store_error)?;
    let others = read.iter().filter(|(other, _)| other.topic == lane.topic && other.partition != lane.partition);
    let n_partitions = others.filter_map(|(_, head)| Some(head.as_ref().ok()?.n_partitions)).max();
    let (head, pending) = peeked.map_or((None, Vec::new()), |peeked| (Some(peeked.head), peeked.pending));
    Ok(Known {
        lane: lane.clone(),
        n_partitions_of_others: head.is_none().then_some(n_partitions).flatten(),
        head,
        pending,
        topic,
        lake: tables_seen(&data::transactions(kept).await?, lane, Some(kind)),
        settings: lane_settings(kind, operators),
    })
}

fn log_bounds(topic: &TopicSeen) -> (i64, i64) {
    match topic {
        TopicSeen::Present { log_start, log_end, .. } => (*log_start, *log_end),
        TopicSeen::Missing => (0, 0),
    }
}

/// Refuses to start anew where the topic no longer has all that the lane has counted: days would come out with a part of their events.
fn refuse_what_is_wrong(known: &Known, halt: &Halt, accepted: &Accepted) -> Result<()> {
    let (log_start, log_end) = log_bounds(&known.topic);
    let was_made_anew = matches!(halt, Halt::TopicRecreated { .. } | Halt::AheadOfLog { .. });
    if matches!(accepted, Accepted::Keep(_)) || (log_start == 0 && !was_made_anew) {
        return Ok(());
    }
    let lane = &known.lane;
    let way_out = match &known.head {
        Some(head) => format!("set the settings back to {:?}", head.settings),
        None => "restore the store".to_owned(),
    };
    let lacks = match was_made_anew {
        true => {
            format!("the topic was made anew or cut, and ends at offset {log_end}: what it had before would be gone")
        }
        false => format!(
            "the topic begins at offset {log_start}: what came before it, and the day in which it begins, would be wrong"
        ),
    };
    bail!(
        "{halt}\nrefused: lane {lane} would have to count everything anew, and {lacks}. The way out: {way_out}; or give another store.url \
         and lake.url to what is read from now on, and keep the old lake for what was before"
    );
}

/// What accepting means, one sentence a line.
fn meaning(known: &Known, kind: Kind, halt: &Halt, accepted: &Accepted) -> Vec<String> {
    let lane = &known.lane;
    let (log_start, log_end) = log_bounds(&known.topic);
    let head = accepted.head();
    let events = kind.table();
    let mut lines = vec![format!("why it halted: {halt}")];
    match accepted {
        Accepted::Keep(_) => lines.push(format!(
            "lane {lane} keeps its state and goes on at offset {} of {log_start} to {log_end}, with checkpoint {}",
            head.next_offset,
            head.number + 1
        )),
        Accepted::Anew(_) => lines.push(format!(
            "lane {lane} forgets its state and reads the topic from its first message, offsets {log_start} to {log_end}, under the settings {}; what \
             it has in the lake's tables of facts is retracted and computed again",
            known.settings
        )),
    }
    match halt {
        Halt::RetentionPassed { next_offset, log_start, .. } => lines.push(format!(
            "lost: messages {next_offset} to {} were deleted unread and are counted nowhere",
            log_start - 1
        )),
        Halt::LakeBehind { table, known, .. } => lines.push(format!(
            "lost: rows of table {table} through checkpoint {known} that are not in the lake any more; other tables have theirs"
        )),
        Halt::TopicRecreated { .. } | Halt::AheadOfLog { .. } => {
            lines.push("what was read from the old topic stays counted; what the old one had and the lane had not read is lost".to_owned());
            if head.renewals() > 0 {
                lines.push(format!(
                    "events without an event_id of their own are called {}@{}-{}-OFFSET from now on: the new topic has the old one's offsets again",
                    lane.topic,
                    head.renewals(),
                    lane.partition
                ));
            }
        }
        Halt::PartitionsChanged { .. } => lines.push(
            "keys that have moved have rows in two lanes around the change: accept every lane of the topic before starting again".to_owned(),
        ),
        _ => {}
    }
    let in_lake = known.lake.get(events).is_some_and(|seen| matches!(seen, TableSeen::Through(_)));
    let is_read_again = match (accepted, halt) {
        (Accepted::Anew(_), _) => in_lake,
        (Accepted::Keep(_), Halt::LakeAhead { .. }) => true,
        _ => false,
    };
    if is_read_again {
        lines.push(format!(
            "messages that are read again are stored again: {events} will have some (topic, partition, offset) twice. Facts, repair and backfill \
             count them once; your own SQL does with SELECT DISTINCT ON (topic, partition, offset); lake.retention.{events} takes them away"
        ));
    }
    lines
}

fn report(args: &LanesAcceptArgs, outcome: &str, meaning: &[String]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = serde_json::json!({ "lane": args.lane.to_string(), "outcome": outcome, "meaning": meaning });
        writeln!(out, "{line}")?;
    } else {
        for line in meaning {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}: {outcome}", args.lane)?;
    }
    Ok(out.flush()?)
}

fn confirm() -> Result<()> {
    eprint!("go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("reading the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

/// Claims the lane, so that nobody writes for it any more, checks that it is as it was seen, and writes the head.
async fn carry_out(kept: &Kept, known: &Known, kind: Kind, accepted: Accepted) -> Result<()> {
    let lane = &known.lane;
    let mut claim = kept.store.claim(lane).await.map_err(data::store_error)?;
    let lake = tables_seen(&data::transactions(kept).await?, lane, Some(kind));
    if claim.head != known.head || lake != known.lake {
        bail!(Failure::Temporary(format!(
            "lane {lane} has changed while this was shown: stop the instance that has it, then try again"
        )));
    }
    if let Accepted::Anew(head) = &accepted {
        // The lake first: should this end half-way, the lane halts again and this is done again.
        retract(kept, lane, kind, head.number).await?;
        claim.lane.release().await.map_err(data::store_error)?;
        kept.store.remove(lane).await.map_err(data::store_error)?;
        claim = kept.store.claim(lane).await.map_err(data::store_error)?;
    }
    commit_head(claim.lane.as_ref(), accepted.head().clone()).await
}

/// Writes a head alone, and lets the claim go.
pub(super) async fn commit_head(lane: &dyn LaneStore, head: Head) -> Result<()> {
    lane.commit(Checkpoint { head, ..Checkpoint::default() }).await.map_err(data::store_error)?;
    lane.release().await.map_err(data::store_error)
}

/// Retracts all rows of facts that the lane has in the lake, as its checkpoint `number`.
async fn retract(kept: &Kept, lane: &LaneId, kind: Kind, number: u32) -> Result<()> {
    let facts = legwork_runtime::lane_tables(kind).into_iter().filter(|name| Table::by_name(name).is_some());
    let tables: HashMap<&str, _> = facts.filter_map(|name| Some((name, kept.tables.get(name)?))).collect();
    let mut found = Vec::new();
    for (name, table) in tables {
        let rows = kept.tables.lake().newest_of_lane(table, lane, None).await.map_err(data::lake_error)?;
        if rows.iter().any(is_repaired) {
            bail!(
                "rows of lane {lane} in table {name} were repaired, and win over all that the lane writes, so it cannot count them anew: restore \
                 the store, or set the settings back; or give another store.url and lake.url to what is read from now on"
            );
        }
        found.push((name, table, rows));
    }
    for (name, table, rows) in found {
        if rows.iter().all(|rows| rows.num_rows() == 0) {
            continue;
        }
        let rows = rows.iter().map(|rows| Ok((number, retraction(rows, number)?))).collect::<Result<Vec<_>>>()?;
        let commit = LaneCommit::of_rows(lane.clone(), number, rows);
        let committed = kept.tables.lake().commit(table, vec![commit]).await.map_err(data::lake_error)?;
        if let Some((_, LaneOutcome::Ahead { at })) = committed.lanes.first() {
            bail!("table {name} of the lake has checkpoint {at} of lane {lane} meanwhile: somebody else writes it");
        }
    }
    Ok(())
}

/// Whether a row has a revision that no checkpoint has.
fn is_repaired(rows: &RecordBatch) -> bool {
    let revisions = rows.column_by_name(REVISION).and_then(|revisions| revisions.as_primitive_opt::<Int64Type>());
    revisions.is_some_and(|revisions| revisions.values().iter().any(|revision| *revision > i64::from(u32::MAX)))
}

/// The same rows as retractions of a checkpoint.
fn retraction(rows: &RecordBatch, number: u32) -> Result<RecordBatch> {
    let n_rows = rows.num_rows();
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| -> ArrayRef {
        match field.name().as_str() {
            REVISION => Arc::new(Int64Array::from(vec![i64::from(number); n_rows])),
            IS_DELETED => Arc::new(BooleanArray::from(vec![true; n_rows])),
            _ => column.clone(),
        }
    });
    let columns = columns.collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn repaired_rows_are_told_by_their_revision() {
        let rows = |revision: i64| {
            let revisions: ArrayRef = Arc::new(Int64Array::from(vec![1, revision]));
            RecordBatch::try_from_iter([(REVISION, revisions)]).unwrap()
        };
        assert!(!is_repaired(&rows(i64::from(u32::MAX))) && is_repaired(&rows(1 << 32)));
    }

    fn known(head: Option<Head>, topic: TopicSeen, through: u32) -> Known {
        Known {
            lane: LaneId::new("t", 0),
            head,
            pending: Vec::new(),
            topic,
            lake: BTreeMap::from([("calls".to_owned(), TableSeen::Through(through))]),
            n_partitions_of_others: None,
            settings: "time.window=60s".to_owned(),
        }
    }

    fn topic(log_start: i64) -> TopicSeen {
        TopicSeen::Present { topic_id: None, log_start, log_end: 100, n_partitions: 1 }
    }

    fn head(next_offset: i64, settings: &str) -> Head {
        Head { number: 5, next_offset, n_partitions: 1, settings: settings.to_owned(), ..Head::default() }
    }

    fn halt(known: &Known) -> (Halt, Accepted) {
        let Decision::Halt(halt) = decide(&known.found()) else { panic!("it goes on") };
        (halt, accept(&known.found()).unwrap())
    }

    #[test]
    fn what_is_lost_and_what_is_read_again_is_said() {
        let passed = known(Some(head(10, "time.window=60s")), topic(20), 5);
        let (why, accepted) = halt(&passed);
        assert!(refuse_what_is_wrong(&passed, &why, &accepted).is_ok());
        let text = meaning(&passed, Kind::Calls, &why, &accepted).join("\n");
        assert!(
            text.contains("messages 10 to 19 were deleted unread") && text.contains("goes on at offset 20"),
            "{text}"
        );
        assert!(!text.contains("twice"), "{text}");

        let ahead = known(Some(head(10, "time.window=60s")), topic(0), 9);
        let (why, accepted) = halt(&ahead);
        let text = meaning(&ahead, Kind::Calls, &why, &accepted).join("\n");
        assert!(text.contains("with checkpoint 11") && text.contains("SELECT DISTINCT ON"), "{text}");

        let settings = known(Some(head(10, "time.window=300s")), topic(0), 5);
        let (why, accepted) = halt(&settings);
        assert!(matches!(accepted, Accepted::Anew(_)) && refuse_what_is_wrong(&settings, &why, &accepted).is_ok());
        let text = meaning(&settings, Kind::Calls, &why, &accepted).join("\n");
        assert!(text.contains("retracted") && text.contains("SELECT DISTINCT ON"), "{text}");
    }

    #[test]
    fn starting_anew_with_a_part_of_the_events_is_refused() {
        for (head, way_out) in [(Some(head(30, "time.window=300s")), "time.window=300s"), (None, "restore the store")] {
            let known = known(head, topic(20), 5);
            let (why, accepted) = halt(&known);
            let refused = refuse_what_is_wrong(&known, &why, &accepted).unwrap_err().to_string();
            assert!(refused.contains("begins at offset 20") && refused.contains(way_out), "{refused}");
        }
        let other_topic = known(Some(head(200, "time.window=300s")), topic(0), 5);
        let (why, accepted) = halt(&other_topic);
        let refused = refuse_what_is_wrong(&other_topic, &why, &accepted).unwrap_err().to_string();
        assert!(
            refused.contains("what it had before would be gone") && refused.contains("time.window=300s"),
            "{refused}"
        );
    }
}
