//! Random lives of a lane, compared with a naive model.

use std::collections::BTreeMap;

use legwork_types::StateEntry;
use proptest::prelude::*;

use super::backings::{Backing, on_each, on_runtime};
use super::{backings, head, heads, lane};
use crate::{Checkpoint, Claimed, Head, PendingRows};

/// One thing that happens to a lane.
#[derive(Clone, Debug)]
enum Step {
    Commit {
        hot: Vec<StateEntry>,
        cold: Vec<StateEntry>,
        rows: Vec<(String, Vec<u8>)>,
        drop: Option<u32>,
        carry: bool,
    },
    /// The process dies: the claim is dropped.
    Die,
    Release,
    Remove,
    /// Somebody else claims the lane while the owner lives.
    Steal,
}

#[derive(Default)]
struct Model {
    head: Option<Head>,
    hot: BTreeMap<Vec<u8>, Vec<u8>>,
    cold: BTreeMap<Vec<u8>, Vec<u8>>,
    pending: Vec<(u32, String, Vec<u8>)>,
}

impl Model {
    /// What a checkpoint does, by the letter of its documentation.
    fn commit(&mut self, step: &Step) -> Checkpoint {
        let Step::Commit { hot, cold, rows, drop, carry } = step else { panic!("a commit") };
        let number = self.head.as_ref().map_or(0, |head| head.number) + 1;
        // Up to `drop` checkpoints back.
        let through = drop.map(|back| number.saturating_sub(1 + back));
        let mut carried = Vec::new();
        if let Some(through) = through {
            let (dropped, kept) = std::mem::take(&mut self.pending).into_iter().partition(|(n, _, _)| *n <= through);
            self.pending = kept;
            if *carry {
                let dropped: Vec<(u32, String, Vec<u8>)> = dropped;
                carried = dropped.into_iter().step_by(2).map(|(_, table, rows)| (table, rows)).collect();
            }
            self.pending.extend(carried.iter().map(|(table, rows)| (through, table.clone(), rows.clone())));
        }
        self.pending.extend(rows.iter().map(|(table, rows)| (number, table.clone(), rows.clone())));
        for (state, entries) in [(&mut self.hot, hot), (&mut self.cold, cold)] {
            for StateEntry { key, value } in entries {
                match value {
                    Some(value) => state.insert(key.clone(), value.clone()),
                    None => state.remove(key),
                };
            }
        }
        let head = Head {
            settings: format!("window={number}"),
            counts: vec![i64::from(number); 5],
            lake_tables: [("device_movement".to_owned(), number)].into(),
            ..head(number)
        };
        self.head = Some(head.clone());
        Checkpoint {
            head,
            hot: hot.clone(),
            cold: cold.clone(),
            rows: rows.clone(),
            drop_rows_through: through,
            carried,
        }
    }

    async fn check(&self, claimed: &Claimed, keys: &[Vec<u8>]) {
        assert_eq!(claimed.head, self.head);
        let hot: BTreeMap<_, _> = claimed.hot.iter().cloned().collect();
        assert_eq!((hot, claimed.hot.len()), (self.hot.clone(), self.hot.len()));
        assert!(claimed.hot.is_sorted());
        assert!(claimed.pending.is_sorted_by_key(|rows| rows.number), "by number");
        let mut pending: Vec<_> =
            claimed.pending.iter().cloned().map(|PendingRows { number, table, rows }| (number, table, rows)).collect();
        let mut expected = self.pending.clone();
        pending.sort();
        expected.sort();
        assert_eq!(pending, expected);
        let cold = claimed.lane.read(keys.to_vec()).await.unwrap();
        assert_eq!(cold, keys.iter().map(|key| self.cold.get(key).cloned()).collect::<Vec<_>>());
    }
}

async fn live(backing: &dyn Backing, steps: &[Step], keys: &[Vec<u8>]) {
    let mut store = backing.open();
    let mut model = Model::default();
    let mut claimed = store.claim(&lane()).await.unwrap();
    for step in steps {
        match step {
            Step::Commit { .. } => {
                claimed.lane.commit(model.commit(step)).await.unwrap();
                continue;
            }
            Step::Die => {
                drop(claimed);
                store = backing.open();
            }
            Step::Release => {
                claimed.lane.release().await.unwrap();
                drop(claimed);
            }
            Step::Remove => {
                store.remove(&lane()).await.unwrap();
                model = Model::default();
            }
            Step::Steal => store = backing.open(),
        }
        let seen: Vec<_> = model.head.iter().map(|head| (lane(), head.clone())).collect();
        assert_eq!(heads(&*store).await, seen);
        claimed = store.claim(&lane()).await.unwrap();
        model.check(&claimed, keys).await;
    }
    model.check(&backing.open().claim(&lane()).await.unwrap(), keys).await;
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that they meet again; bytes at the ends of what prefixes cover.
    prop_oneof![
        proptest::collection::vec(prop_oneof![Just(0), Just(0xff), Just(b'/')], 0..3),
        (0u8..4).prop_map(|key| vec![b'k', key]),
    ]
}

fn entries() -> impl Strategy<Value = Vec<StateEntry>> {
    let value = proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..40));
    let entry = (key(), value).prop_map(|(key, value)| StateEntry { key, value });
    proptest::collection::vec(entry, 0..6)
}

fn rows() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let table = prop_oneof![Just("stays".to_owned()), Just("device_movement".to_owned())];
    proptest::collection::vec((table, proptest::collection::vec(any::<u8>(), 0..60)), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (entries(), entries(), rows(), proptest::option::of(0u32..4), any::<bool>())
        .prop_map(|(hot, cold, rows, drop, carry)| Step::Commit { hot, cold, rows, drop, carry });
    prop_oneof![
        12 => commit,
        2 => Just(Step::Die),
        1 => Just(Step::Release),
        1 => Just(Step::Remove),
        1 => Just(Step::Steal),
    ]
}

fn all_keys() -> Vec<Vec<u8>> {
    let odd = [b"".as_slice(), b"\0", b"\xff", b"/", b"\0\xff", b"\xff\xff", b"//"].map(<[u8]>::to_vec);
    odd.into_iter().chain((0..4).map(|key| vec![b'k', key])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn stores_do_as_the_model(steps in proptest::collection::vec(step(), 1..30)) {
        for backing in backings::all() {
            on_runtime(live(&*backing, &steps, &all_keys()));
        }
    }
}

/// Databases take some milliseconds to open; memory takes none.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(if cfg!(feature = "slate") {
        24
    } else {
        256
    })
}

#[test]
fn carried_rows_stand_under_the_number_dropped_through() {
    on_each(async |backing| {
        let store = backing.open();
        let claimed = store.claim(&lane()).await.unwrap();
        let rows = |number: u32| vec![("stays".to_owned(), vec![number as u8; 3]), ("trips".to_owned(), vec![])];
        for number in 1..=3 {
            let checkpoint = Checkpoint { head: head(number), rows: rows(number), ..Checkpoint::default() };
            claimed.lane.commit(checkpoint).await.unwrap();
        }
        let checkpoint = Checkpoint {
            head: Head { lake_through: 2, ..head(4) },
            drop_rows_through: Some(2),
            carried: vec![("stays".to_owned(), b"open".to_vec())],
            ..Checkpoint::default()
        };
        claimed.lane.commit(checkpoint).await.unwrap();
        let claimed = store.claim(&lane()).await.unwrap();
        let pending =
            |number, table: &str, rows: &[u8]| PendingRows { number, table: table.into(), rows: rows.to_vec() };
        let expected = vec![pending(2, "stays", b"open"), pending(3, "stays", &[3; 3]), pending(3, "trips", b"")];
        assert_eq!(claimed.pending, expected);
    });
}
