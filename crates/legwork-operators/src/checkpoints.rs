//! The property that checkpoints must have: for any events, batches and restarts an operator goes on as if nothing had been, and what
//! it hands over adds up to its tables.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use legwork_types::time::{DAY_US, LaneClock, TimeConfig};
use legwork_types::{Changes, EventBatch, Kind, StateEntry, Table};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::Value;

use crate::testing::{Arrival, Row, Tables, batch, clock, records, revisions, sorted, tables};
use crate::{DedupConfig, Need, Operator, OperatorConfig, operator_for};

/// What happens after a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Nothing,
    Fresh,
    Checkpoint,
    Restart,
}

/// Steps, to be repeated.
pub(crate) fn plan() -> impl Strategy<Value = Vec<Step>> {
    let step = prop::sample::select(vec![Step::Nothing, Step::Fresh, Step::Checkpoint, Step::Restart]);
    prop::collection::vec(step, 1..12)
}

/// A configuration whose memory of duplicates reaches as far back as events are accepted, so that no fact counts twice.
pub(crate) fn remembering() -> OperatorConfig {
    let dedup = DedupConfig { horizon_us: 400 * DAY_US, ..DedupConfig::default() };
    OperatorConfig { dedup, n_entities_min: 4, ..OperatorConfig::default() }
}

/// The same with a store, whose entities leave memory as soon as they are older than two days.
pub(crate) fn leaving() -> OperatorConfig {
    let time = TimeConfig { late_horizon_us: 2 * DAY_US, ..TimeConfig::default() };
    OperatorConfig { time, has_store: true, n_entities_min: 1, ..remembering() }
}

/// State as a store keeps it: hot, cold.
#[derive(Debug, Default)]
pub(crate) struct Store(pub(crate) BTreeMap<Vec<u8>, Vec<u8>>, pub(crate) BTreeMap<Vec<u8>, Vec<u8>>);

impl Store {
    pub(crate) fn apply(&mut self, entries: Vec<StateEntry>) {
        for StateEntry { key, value } in entries {
            match value {
                Some(value) => {
                    self.0.insert(key, value);
                }
                None => assert!(self.0.remove(&key).is_some(), "only what is there is deleted"),
            }
        }
    }

    pub(crate) fn keep(&mut self, cold: Vec<StateEntry>) {
        for StateEntry { key, value } in cold {
            match value {
                Some(value) => self.1.insert(key, value),
                None => self.1.remove(&key),
            };
        }
    }

    /// Gives an operator what it needs for a batch; says whether that was anything that is there.
    pub(crate) fn supply(&self, operator: &mut dyn Operator, events: &EventBatch, clock: &LaneClock) -> bool {
        let mut has_supplied = false;
        loop {
            let wanted = operator.wanted(Need::Batch(events), clock);
            if wanted.is_empty() {
                return has_supplied;
            }
            has_supplied |= wanted.iter().any(|key| self.1.contains_key(key));
            let entry = |key: Vec<u8>| StateEntry { value: self.1.get(&key).cloned(), key };
            operator.supply(wanted.into_iter().map(entry).collect()).unwrap();
        }
    }

    /// A new operator with this state.
    pub(crate) fn restore(&self, kind: Kind, config: &OperatorConfig) -> Box<dyn Operator> {
        let mut operator = operator_for(kind, config);
        operator.restore(&mut self.0.clone().into_iter()).unwrap();
        operator
    }
}

/// Newest versions of rows by table, day and key.
#[derive(Clone, Debug, Default)]
struct Lake(BTreeMap<(Table, i64, String), Row>);

impl Lake {
    /// Takes what a checkpoint with this revision handed over, and checks that all of it was needed.
    fn take(&mut self, rows: &[(Table, RecordBatch)], revision: u32) -> TestCaseResult {
        let mut places = std::collections::BTreeSet::new();
        for (table, batch) in rows {
            prop_assert_eq!(batch.schema(), table.version_schema());
            for mut row in records(batch) {
                let day = row[table.def().day.unwrap()].as_i64().unwrap().div_euclid(DAY_US);
                let key: Vec<&Value> = table.def().key.iter().map(|column| &row[*column]).collect();
                let place = (*table, day, serde_json::to_string(&key).unwrap());
                prop_assert!(places.insert(place.clone()), "{:?} is handed over twice", place);
                prop_assert_eq!(row.remove("revision").unwrap(), revision);
                let is_deleted = row.remove("is_deleted").unwrap() == true;
                let before = if is_deleted { self.0.remove(&place) } else { self.0.insert(place.clone(), row.clone()) };
                prop_assert_eq!(before.as_ref() == Some(&row), is_deleted, "{:?} was {:?}", place, before);
            }
        }
        Ok(())
    }

    fn tables(&self, names: &[&'static str]) -> Tables {
        let mut tables: Tables = names.iter().map(|name| (*name, Vec::new())).collect();
        for ((table, ..), row) in &self.0 {
            tables.entry(table.name()).or_default().push(row.clone());
        }
        tables.into_iter().map(|(name, rows)| (name, sorted(rows))).collect()
    }
}

fn fresh(operator: &mut dyn Operator, clock: &LaneClock) -> Vec<(Table, RecordBatch)> {
    let tables: Vec<Table> = operator.tables().into_iter().filter_map(Table::by_name).collect();
    tables.into_iter().filter_map(|table| Some((table, operator.fresh(table, clock)?))).collect()
}

/// Rows in an order that does not depend on where they lie in memory.
fn plain(rows: &[(Table, RecordBatch)]) -> Vec<(Table, Vec<Row>)> {
    rows.iter().map(|(table, batch)| (*table, sorted(records(batch)))).collect()
}

fn with_revisions(operator: &mut dyn Operator) -> Tables {
    let names = operator.tables();
    names.into_iter().map(|name| (name, revisions(operator.snapshot(name, &clock(0)).unwrap().as_ref()))).collect()
}

/// As many events as fill more than one block of state, like the first one but for all their ids.
fn others(events: &[Value], numbers: std::ops::Range<usize>) -> Vec<Value> {
    let like = |number: usize| {
        let mut other = events[0].clone();
        for (field, value) in other.as_object_mut().unwrap() {
            if let Some(id) = value.as_str().filter(|_| field.ends_with("_id")) {
                *value = format!("{id}-{number}").into();
            }
        }
        other
    };
    numbers.filter(|_| !events.is_empty()).map(like).collect()
}

/// Applies the batches to three operators: one that is left alone, one that makes checkpoints, and one that makes the same ones and is
/// restarted from them.
pub(crate) fn check_checkpoints(
    kind: Kind,
    config: &OperatorConfig,
    events: &[Value],
    arrival: &Arrival,
    plan: &[Step],
) -> TestCaseResult {
    let [mut alone, mut kept, mut restarted] = std::array::from_fn(|_| operator_for(kind, config));
    let [mut store, mut store_of_kept] = [const { Store(BTreeMap::new(), BTreeMap::new()) }; 2];
    let (mut lake, mut revision, mut newest_us) = (Lake::default(), 1, i64::MIN);
    let names = alone.tables();
    let mut batches = arrival.batches(events);
    if plan.len().is_multiple_of(3) {
        // What changes later then lies in different blocks.
        batches.insert(batches.len().min(2), (1000, others(events, 0..40)));
        batches.insert(0, (2000, others(events, 40..80)));
    }
    for ((start, arriving), step) in batches.into_iter().zip(plan.iter().cycle()) {
        let batch = batch(kind, &arriving, start as i64);
        newest_us = batch.event_time_us().iter().copied().fold(newest_us, i64::max);
        let now = LaneClock { newest_us, ..clock(revision) };
        store.supply(restarted.as_mut(), &batch, &now);
        store_of_kept.supply(kept.as_mut(), &batch, &now);
        let verdicts = alone.apply(&batch, &now);
        prop_assert_eq!(&kept.apply(&batch, &now), &verdicts);
        prop_assert_eq!(&restarted.apply(&batch, &now), &verdicts);
        let expected = tables(alone.as_mut());
        if !config.has_store {
            prop_assert_eq!(&tables(restarted.as_mut()), &expected);
        }
        match step {
            Step::Nothing => {}
            Step::Fresh => {
                let mut lake = lake.clone();
                lake.take(&fresh(restarted.as_mut(), &now), revision)?;
                prop_assert_eq!(lake.tables(&names), expected);
            }
            Step::Checkpoint | Step::Restart => {
                let fresh = fresh(restarted.as_mut(), &now);
                let Changes { hot, cold, rows, .. } = restarted.checkpoint(&now);
                prop_assert_eq!(&fresh, &rows);
                let of_kept = kept.checkpoint(&now);
                // With a store it is free when to let go of what is done.
                if !config.has_store {
                    prop_assert_eq!((&hot, &cold), (&of_kept.hot, &of_kept.cold));
                    prop_assert_eq!(with_revisions(restarted.as_mut()), with_revisions(kept.as_mut()));
                }
                prop_assert_eq!(plain(&rows), plain(&of_kept.rows));
                store.apply(hot);
                store.keep(cold);
                store_of_kept.apply(of_kept.hot);
                store_of_kept.keep(of_kept.cold);
                if !revision.is_multiple_of(5) {
                    restarted.committed(revision);
                    kept.committed(revision - revision % 3);
                }
                lake.take(&rows, revision)?;
                prop_assert_eq!(lake.tables(&names), expected);
                revision += 1;
                if matches!(step, Step::Restart) {
                    let before = with_revisions(restarted.as_mut());
                    restarted = store.restore(kind, config);
                    prop_assert_eq!(with_revisions(restarted.as_mut()), before);
                }
                for operator in [&mut kept, &mut restarted] {
                    prop_assert!(operator.checkpoint(&clock(revision)).is_empty(), "nothing has changed");
                }
                revision += 1;
            }
        }
    }
    Ok(())
}
