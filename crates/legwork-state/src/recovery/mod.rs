//! What a lane does after it was claimed, as a pure function of what the store, the broker and the lake say.
//!
//! Rows of checkpoint *n* of a table with transaction number *T*, when the head says that all is in the lake through *L*: those up to *L* were
//! carried, the lake left them out because they were open; those after *L* up to *T* are in the lake, open ones perhaps apart; those after both
//! are not. *T* is beyond *L* when a lane died between its commit to the lake and its next checkpoint, and behind it where a table had no rows.

use std::collections::BTreeMap;

use legwork_types::LaneId;

use crate::{Head, PendingRows};

#[cfg(test)]
mod tests;

/// What is known of a lane when it has been claimed.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Lane.
    pub lane: &'a LaneId,
    /// Its newest checkpoint.
    pub head: Option<&'a Head>,
    /// Rows that the store still holds.
    pub pending: &'a [PendingRows],
    /// Settings that state depends on, as this process would write them into a head.
    pub settings: &'a str,
    /// What the broker says.
    pub topic: &'a TopicSeen,
    /// Partitions of the topic as the checkpoints of its other lanes have them, if there are any ([`crate::StateStore::lanes`]).
    pub n_partitions_of_others: Option<i32>,
    /// What the lake says of every table that the lane fills.
    pub lake: &'a BTreeMap<String, TableSeen>,
}

/// A topic and the lane's partition, as the broker has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicSeen {
    /// There is no such topic, or no such partition.
    Missing,
    /// It is there.
    Present {
        /// Its identity, from brokers that tell it.
        topic_id: Option<String>,
        /// Oldest offset that can be read.
        log_start: i64,
        /// Offset that the next message will have.
        log_end: i64,
        /// Partitions of the topic.
        n_partitions: i32,
    },
}

/// A table of the lake, as far as one lane is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableSeen {
    /// There is no such table.
    Missing,
    /// It has nothing of this lane.
    Unwritten,
    /// It has the lane's rows through this checkpoint.
    Through(u32),
}

impl TableSeen {
    /// The lane's transaction number, 0 before the first.
    const fn number(self) -> u32 {
        match self {
            TableSeen::Missing | TableSeen::Unwritten => 0,
            TableSeen::Through(number) => number,
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A lane without history: read from where the configuration says.
    Start,
    /// Go on where the newest checkpoint ended.
    Resume(Resume),
    /// Read nothing, write nothing, and say why.
    Halt(Halt),
}

/// How to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Offset of the next message.
    pub next_offset: i64,
    /// What the pending rows of each table are. A table without pending rows is not in it.
    pub tables: BTreeMap<String, PendingTable>,
}

/// Numbers of the checkpoints whose pending rows of a table ...
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingTable {
    /// ... were left out of the lake, because they were open.
    pub carried: Vec<u32>,
    /// ... are in the lake, except perhaps those that were open.
    pub in_lake: Vec<u32>,
    /// ... are to be committed, in this order.
    pub missing: Vec<u32>,
}

/// Where the rows of a checkpoint are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Left out of the lake, because they were open.
    Carried,
    /// In the lake, except perhaps those that were open.
    InLake,
    /// Not in the lake.
    Missing,
}

/// Where pending rows of checkpoint `number` are, when the lake has their table through `table`, and the head says `lake_through`.
pub fn standing(number: u32, lake_through: u32, table: TableSeen) -> Standing {
    if number <= lake_through {
        Standing::Carried
    } else if number <= table.number() {
        Standing::InLake
    } else {
        Standing::Missing
    }
}

/// Why a lane does not go on, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The lake has rows of a lane that the store does not know.
    #[error(
        "lane {lane} has no checkpoint, but table {table} of the lake has its rows through checkpoint {through}: set store.url to the store that \
         made them, or restore it; or, where the topic still has all its messages, `legwork lanes accept {lane}` counts them anew"
    )]
    StateMissing {
        /// Lane.
        lane: LaneId,
        /// Table.
        table: String,
        /// Its transaction number.
        through: u32,
    },
    /// The lake is newer than the store.
    #[error(
        "table {table} of the lake has rows of lane {lane} through checkpoint {through}, but its newest checkpoint is {number}: the store is older \
         than the lake, restore the newer one; or `legwork lanes accept {lane}` goes on from the older one, and computes those rows again"
    )]
    LakeAhead {
        /// Lane.
        lane: LaneId,
        /// Table.
        table: String,
        /// Its transaction number.
        through: u32,
        /// The store's.
        number: u32,
    },
    /// The lake has lost rows.
    #[error(
        "table {table} of the lake had rows of lane {lane} through checkpoint {known}, and now {}: restore the table; \
         or `legwork lanes accept {lane}` goes on, and `legwork repair --all` computes days beyond the late horizon anew from stored events, of \
         pings, e-mails and messages",
        through_text(*.found)
    )]
    LakeBehind {
        /// Lane.
        lane: LaneId,
        /// Table.
        table: String,
        /// What it had.
        known: u32,
        /// What it has.
        found: TableSeen,
    },
    /// The topic, or the partition, is gone.
    #[error(
        "the broker has no partition {lane}: restore the topic, or take it out of the configuration; its tables stay as they are"
    )]
    TopicMissing {
        /// Lane.
        lane: LaneId,
    },
    /// Another topic has the name now.
    #[error(
        "the topic of lane {lane} was made anew: it was {was}, it is {is}, and offsets of the old one mean nothing in it; \
         `legwork lanes accept {lane}` keeps what was read from the old one and reads the new one from its start"
    )]
    TopicRecreated {
        /// Lane.
        lane: LaneId,
        /// Identity in the checkpoint.
        was: String,
        /// Identity at the broker.
        is: String,
    },
    /// Keys have moved between partitions.
    #[error(
        "the topic of lane {lane} had {was} partitions and has {is}, so keys have moved between lanes: `legwork lanes accept {lane}`, \
         for each lane of the topic, goes on; a key that has moved begins anew in its new lane, so nothing is counted between its last event in \
         the old one and its first in the new one"
    )]
    PartitionsChanged {
        /// Lane.
        lane: LaneId,
        /// Partitions in the checkpoint.
        was: i32,
        /// Partitions at the broker.
        is: i32,
    },
    /// Messages were deleted before they were read.
    #[error(
        "lane {lane} would go on at offset {next_offset}, but the topic begins at {log_start}: {} messages were deleted unread; restore them, \
         or `legwork lanes accept {lane}` goes on without them; then keep more in the topic (retention.ms)",
        .log_start.saturating_sub(*.next_offset)
    )]
    RetentionPassed {
        /// Lane.
        lane: LaneId,
        /// Offset to go on at.
        next_offset: i64,
        /// Oldest offset there is.
        log_start: i64,
    },
    /// The log is shorter than it was.
    #[error(
        "lane {lane} would go on at offset {next_offset}, but the topic ends at {log_end}: it was truncated or made anew; restore it, \
         or `legwork lanes accept {lane}` keeps what was read and reads the topic from its start"
    )]
    AheadOfLog {
        /// Lane.
        lane: LaneId,
        /// Offset to go on at.
        next_offset: i64,
        /// Offset of the next message that will come.
        log_end: i64,
    },
    /// State was made under other settings.
    #[error(
        "the state of lane {lane} was made with the settings {was:?}, the configuration says {is:?}: set them back, or, \
         where the topic still has all its messages, `legwork lanes accept {lane}` forgets the state and counts them anew"
    )]
    SettingsChanged {
        /// Lane.
        lane: LaneId,
        /// Settings in the checkpoint.
        was: String,
        /// Settings now.
        is: String,
    },
}

fn through_text(found: TableSeen) -> String {
    match found {
        TableSeen::Missing => "is gone".to_owned(),
        TableSeen::Unwritten => "has none".to_owned(),
        TableSeen::Through(number) => format!("only through {number}"),
    }
}

/// Decides how a lane goes on. Of several reasons to halt, one that needs something restored comes first.
pub fn decide(found: &Found<'_>) -> Decision {
    let decided = match found.head {
        None => check_start(found).map(|()| Decision::Start),
        Some(head) => check_lake(found, head)
            .and_then(|()| check_topic(found, head))
            .map(|()| Decision::Resume(resume(found, head))),
    };
    decided.unwrap_or_else(Decision::Halt)
}

/// What `legwork lanes accept` does to a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Claim it and commit a checkpoint of this head alone: the facts gathered so far stay.
    Keep(Head),
    /// [`crate::StateStore::remove`] its state, which is of no use, claim it and commit a checkpoint of this head alone.
    Anew(Head),
}

impl Accepted {
    /// The head to commit.
    pub fn head(&self) -> &Head {
        match self {
            Accepted::Keep(head) | Accepted::Anew(head) => head,
        }
    }
}

/// What lets a halted lane go on: from where it was if the log still has that, else from the log's start, with numbers above all that the lake has,
/// so that new versions of rows win. State is given up only where there is none, or where other settings made it. What was lost
/// stays lost until it is repaired from stored events. *Errors:* `TopicMissing`.
pub fn accept(found: &Found<'_>) -> Result<Accepted, Halt> {
    let TopicSeen::Present { topic_id, log_start, log_end, n_partitions } = found.topic else {
        return Err(Halt::TopicMissing { lane: found.lane.clone() });
    };
    let written =
        found.lake.iter().map(|(name, table)| (name.clone(), table.number())).filter(|(_, number)| *number > 0);
    let lake_tables: BTreeMap<String, u32> = written.collect();
    let newest_in_lake = lake_tables.values().copied().max().unwrap_or(0);
    let number = found.head.map_or(0, |head| head.number).max(newest_in_lake).saturating_add(1);
    let (topic_id, n_partitions) = (topic_id.clone(), *n_partitions);
    let renewals = found.head.and_then(|head| {
        let n = head.renewals() + i64::from(is_other_topic(head, topic_id.as_deref()));
        (n > 0).then_some(n)
    });
    let kept = found.head.filter(|head| head.settings == found.settings);
    let Some(head) = kept else {
        return Ok(Accepted::Anew(Head {
            number,
            topic_id,
            next_offset: *log_start,
            n_partitions,
            newest_us: i64::MIN,
            counts: renewals.map(|n| with_renewals(&[], n)).unwrap_or_default(),
            settings: found.settings.to_owned(),
            lake_through: number,
            lake_tables,
        }));
    };
    let is_same_log = !is_other_topic(head, topic_id.as_deref()) && (*log_start..=*log_end).contains(&head.next_offset);
    let next_offset = if is_same_log { head.next_offset } else { *log_start };
    let counts = renewals.map_or_else(|| head.counts.clone(), |n| with_renewals(&head.counts, n));
    Ok(Accepted::Keep(Head { number, topic_id, next_offset, n_partitions, lake_tables, counts, ..head.clone() }))
}

fn with_renewals(counts: &[i64], n: i64) -> Vec<i64> {
    let mut counts = counts.to_vec();
    counts.resize(counts.len().max(Head::RENEWALS + 1), 0);
    counts[Head::RENEWALS] = n;
    counts
}

fn check_start(found: &Found<'_>) -> Result<(), Halt> {
    let lane = || found.lane.clone();
    for (table, seen) in found.lake {
        if let TableSeen::Through(through) = *seen {
            return Err(Halt::StateMissing { lane: lane(), table: table.clone(), through });
        }
    }
    match (found.topic, found.n_partitions_of_others) {
        (TopicSeen::Missing, _) => Err(Halt::TopicMissing { lane: lane() }),
        (&TopicSeen::Present { n_partitions: is, .. }, Some(was)) if is != was => {
            Err(Halt::PartitionsChanged { lane: lane(), was, is })
        }
        _ => Ok(()),
    }
}

fn check_lake(found: &Found<'_>, head: &Head) -> Result<(), Halt> {
    let lane = || found.lane.clone();
    for (table, seen) in found.lake {
        if seen.number() > head.number {
            let (through, number) = (seen.number(), head.number);
            return Err(Halt::LakeAhead { lane: lane(), table: table.clone(), through, number });
        }
    }
    for (table, &known) in &head.lake_tables {
        let seen = found.lake.get(table).copied().unwrap_or(TableSeen::Missing);
        if seen.number() < known {
            return Err(Halt::LakeBehind { lane: lane(), table: table.clone(), known, found: seen });
        }
    }
    Ok(())
}

fn check_topic(found: &Found<'_>, head: &Head) -> Result<(), Halt> {
    let lane = || found.lane.clone();
    let TopicSeen::Present { topic_id, log_start, log_end, n_partitions } = found.topic else {
        return Err(Halt::TopicMissing { lane: lane() });
    };
    if let (Some(was), Some(is), true) = (&head.topic_id, topic_id, is_other_topic(head, topic_id.as_deref())) {
        return Err(Halt::TopicRecreated { lane: lane(), was: was.clone(), is: is.clone() });
    }
    if head.n_partitions != *n_partitions {
        return Err(Halt::PartitionsChanged { lane: lane(), was: head.n_partitions, is: *n_partitions });
    }
    let next_offset = head.next_offset;
    if next_offset > *log_end {
        return Err(Halt::AheadOfLog { lane: lane(), next_offset, log_end: *log_end });
    }
    if next_offset < *log_start {
        return Err(Halt::RetentionPassed { lane: lane(), next_offset, log_start: *log_start });
    }
    if head.settings != found.settings {
        return Err(Halt::SettingsChanged { lane: lane(), was: head.settings.clone(), is: found.settings.to_owned() });
    }
    Ok(())
}

/// Brokers that tell no identity are believed.
fn is_other_topic(head: &Head, topic_id: Option<&str>) -> bool {
    matches!((head.topic_id.as_deref(), topic_id), (Some(was), Some(is)) if was != is)
}

fn resume(found: &Found<'_>, head: &Head) -> Resume {
    let mut tables: BTreeMap<String, PendingTable> = BTreeMap::new();
    for rows in found.pending {
        let seen = found.lake.get(&rows.table).copied().unwrap_or(TableSeen::Missing);
        let table = tables.entry(rows.table.clone()).or_default();
        let numbers = match standing(rows.number, head.lake_through, seen) {
            Standing::Carried => &mut table.carried,
            Standing::InLake => &mut table.in_lake,
            Standing::Missing => &mut table.missing,
        };
        numbers.push(rows.number);
    }
    for table in tables.values_mut() {
        for numbers in [&mut table.carried, &mut table.in_lake, &mut table.missing] {
            numbers.sort_unstable();
            numbers.dedup();
        }
    }
    Resume { next_offset: head.next_offset, tables }
}
