//! Two instances, any faults, maintenance in between: each event is there once.

use std::collections::HashMap;
use std::time::Duration;

use legwork_types::Kind;
use proptest::prelude::*;

use super::engines::filled;
use crate::testing::{DAY_0, Fault, FaultyStore, lake_on, lane, number, numbers};
use crate::{ErrorKind, Lake, LakeTable, LaneCommit, LaneOutcome, Upkeep};

/// Rows of each checkpoint.
const N_ROWS: usize = 3;

fn calls() -> LakeTable {
    LakeTable::events(Kind::Calls, &Kind::Calls.schema())
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let faults = [Fault::Fail, Fault::FailAfter, Fault::Hang, Fault::HangAfter, Fault::Late];
    prop::option::weighted(0.4, prop::sample::select(faults.to_vec()))
}

/// Everything of a lane since some checkpoint that it is not sure of.
fn pending(partition: i32, from: u32, through: u32) -> LaneCommit {
    let rows = (from..=through).map(|number| (number, filled(&Kind::Calls.schema(), N_ROWS))).collect();
    LaneCommit::of_rows(lane(partition), through, rows)
}

/// Commits until it is done: as an instance does, that keeps what the lake has not acknowledged.
async fn deliver(lake: &Lake, lanes: Vec<LaneCommit>) -> Vec<LaneOutcome> {
    for _ in 0..50 {
        match lake.commit(&calls(), lanes.clone()).await {
            Ok(done) => return done.lanes.into_iter().map(|(_, outcome)| outcome).collect(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        }
    }
    panic!("no end of trouble");
}

async fn maintain(lake: &Lake, store: &FaultyStore, round: i64) {
    store.pass(Duration::from_secs(60));
    let now_ms = i64::from(DAY_0 + 20_000) * 86_400_000 + round * 7_200_000;
    let upkeep = Upkeep { now_ms, late_horizon: Duration::ZERO, retention: HashMap::new() };
    if let Ok(Some(lease)) = lake.lease("chaos", now_ms, Duration::from_secs(60)).await {
        lake.maintain(&[calls()], &upkeep, lease).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn each_event_is_there_once(
        faults in prop::collection::vec(fault(), 0..80),
        // For each round: how far each instance has come on the lane that both think is theirs, and whether maintenance runs beside.
        rounds in prop::collection::vec((0..2_u32, 0..2_u32, any::<bool>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = FaultyStore::new();
            store.fault("lake/", faults.clone());
            let (a, b) = (lake_on(store.clone()), lake_on(store.clone()));
            let (mut through_a, mut through_b) = (1, 1);
            for (round, (more_a, more_b, has_upkeep)) in (1_u32..).zip(&rounds) {
                // A stopped owner has fewer checkpoints than the one that fenced it.
                (through_a, through_b) = (through_a + more_a, through_b + more_b);
                let upkeep = async {
                    if *has_upkeep {
                        maintain(&b, &store, round.into()).await;
                    }
                };
                let (from_a, from_b, ()) = tokio::join!(
                    deliver(&a, vec![pending(0, 1, through_a), pending(1, round, round)]),
                    deliver(&b, vec![pending(0, 1, through_b), pending(2, round, round)]),
                    upkeep,
                );
                assert_eq!((from_a[1], from_b[1]), (LaneOutcome::Done, LaneOutcome::Done));
            }
            store.fault("lake/", []);
            let n_rounds = u32::try_from(rounds.len()).unwrap();
            let shared = through_a.max(through_b);
            let expected = [shared, n_rounds, n_rounds];
            let found = a.transactions(&calls()).await.unwrap().unwrap();
            assert_eq!(numbers(&found).into_iter().map(|(_, number)| number).collect::<Vec<_>>(), expected);
            let n_expected = i64::from(expected.iter().sum::<u32>()) * N_ROWS as i64;
            for lake in [&a, &lake_on(store.clone())] {
                assert_eq!(number(lake, &calls(), "SELECT count(*) FROM t").await, n_expected);
            }
            maintain(&b, &store, 10_000).await;
            assert_eq!(number(&a, &calls(), "SELECT count(*) FROM t").await, n_expected);
        });
    }
}
