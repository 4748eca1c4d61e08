//! State as it was ever written is still read, and what cannot be read says so.
//!
//! `tests/golden/state-N/<kind>.txt` holds the state of format N after the events of [`samples`]: a line an entry, key and value in
//! hexadecimal. A file of a released format never changes; a new format gets a folder of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::expect_file;
use legwork_types::{Kind, StateError, Table};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::checkpoints::{Store, remembering};
use crate::testing::{batch, clock, event, tables};
use crate::{Operator, operator_for};

const START_US: i64 = 1_767_571_200_000_000;
const MINUTE_US: i64 = 60_000_000;

/// Kinds that have state.
const KINDS: [Kind; 11] = [
    Kind::Calls,
    Kind::Emails,
    Kind::Messages,
    Kind::Meetings,
    Kind::Tasks,
    Kind::CheckIns,
    Kind::Shifts,
    Kind::Costs,
    Kind::Leads,
    Kind::DealEvents,
    Kind::Orders,
];

fn at(n: usize, minute: i64, fields: Value) -> Value {
    event(n, START_US + minute * MINUTE_US, n.is_multiple_of(2).then_some(n as i64), fields)
}

/// Events of a kind: first ones, newer versions, older ones, edits, fields cleared.
fn samples(kind: Kind) -> Vec<Value> {
    let fields: Vec<Value> = match kind {
        Kind::Calls => {
            let call = |call: &str, status: &str, duration_s: Option<f64>| {
                json!({"call_id": call, "rep_id": "ann", "direction": "inbound", "status": status,
                    "start_time": START_US, "duration_s": duration_s, "deal_id": "deal"})
            };
            vec![call("a", "no_answer", None), call("b", "completed", Some(61.5)), call("a", "completed", Some(0.25))]
        }
        Kind::Emails => ["sent", "opened", "replied", "bounced"]
            .map(|kind| json!({"message_id": "m", "rep_id": "ann", "kind": kind, "account_id": "acme"}))
            .to_vec(),
        Kind::Messages => ["inbound", "outbound"]
            .map(|way| json!({"message_id": "m", "rep_id": "bob", "channel": "sms", "direction": way, "lead_id": "lead"}))
            .to_vec(),
        Kind::Meetings => ["scheduled", "held", "canceled", "held"]
            .into_iter()
            .enumerate()
            .map(|(n, status)| {
                json!({"meeting_id": format!("m{}", n / 3), "rep_id": "ann", "account_id": "acme", "status": status,
                    "scheduled_start": START_US, "scheduled_end": START_US + 30 * MINUTE_US})
            })
            .collect(),
        Kind::Tasks => [None, Some(START_US)]
            .map(|completed| {
                json!({"task_id": "t", "rep_id": "ann", "kind": "call", "due_time": START_US, "completed_time": completed})
            })
            .to_vec(),
        Kind::CheckIns => ["in", "out"]
            .map(|kind| json!({"check_in_id": "c", "rep_id": "ann", "account_id": "acme", "kind": kind}))
            .to_vec(),
        Kind::Shifts => ["on", "off"].map(|kind| json!({"rep_id": "ann", "kind": kind})).to_vec(),
        Kind::Costs => vec![json!({"team_id": "north", "kind": "sales", "amount": 5.5, "currency": "EUR"})],
        Kind::Leads => vec![
            json!({"lead_id": "lead", "origin": "web", "status": "new", "score": 0.5}),
            json!({"lead_id": "lead", "status": "contacted", "owner_id": "ann", "cleared": ["score"]}),
        ],
        Kind::DealEvents => vec![
            json!({"deal_id": "deal", "pipeline_id": "sales", "stage": "qualify", "owner_id": "ann", "amount": 1200.5,
                "currency": "EUR", "close_date": "2026-02-01", "probability": 0.25, "next_step_time": START_US}),
            json!({"deal_id": "deal", "stage": "won", "close_date": "2026-02-03", "cleared": ["next_step_time"]}),
            json!({"deal_id": "other", "stage": "qualify", "deleted": true}),
        ],
        Kind::Orders => [3.0, 4.5]
            .map(|quantity| {
                json!({"order_id": "o", "deal_id": "deal", "product_id": "pen", "quantity": quantity, "amount": 12.5,
                    "currency": "EUR", "kind": "sale"})
            })
            .to_vec(),
        other => panic!("{other} has no state"),
    };
    let mut events: Vec<Value> = (0..).zip(&fields).map(|(n, fields)| at(n, 7 * n as i64, fields.clone())).collect();
    // The first one edited, so that it is later; then one that is older than all.
    let mut edited = events[0].clone();
    edited["event_time"] = json!(START_US + 3 * MINUTE_US);
    events.push(edited);
    events.push(at(9, -60, fields[0].clone()));
    events
}

fn after_samples(kind: Kind) -> Box<dyn Operator> {
    let mut operator = operator_for(kind, &remembering());
    operator.apply(&batch(kind, &samples(kind), 0), &clock(1));
    operator
}

fn stored(kind: Kind) -> Store {
    let mut store = Store::default();
    store.apply(after_samples(kind).checkpoint(&clock(1)).hot);
    store
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn state_is_written_as_ever_and_read_again() {
    for kind in KINDS {
        let lines = |store: &Store| -> String {
            store.0.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect()
        };
        let path = format!("{}/tests/golden/state-1/{kind}.txt", env!("CARGO_MANIFEST_DIR"));
        expect_file![&path].assert_eq(&lines(&stored(kind)));
        let text = std::fs::read_to_string(&path).unwrap();
        let entries = text.lines().map(|line| line.split_once(' ').unwrap());
        let store = Store(entries.map(|(key, value)| (unhex(key), unhex(value))).collect(), BTreeMap::new());
        let mut restored = store.restore(kind, &remembering());
        assert_eq!(tables(restored.as_mut()), tables(after_samples(kind).as_mut()), "{kind}");
        let verdicts = restored.apply(&batch(kind, &samples(kind), 0), &clock(2));
        assert_eq!(verdicts.refused.len(), samples(kind).len(), "{kind}: all of it is known");
    }
}

#[test]
fn a_newer_format_is_refused_with_the_way_out() {
    for kind in KINDS {
        let mut store = stored(kind);
        store.0.values_mut().next().unwrap()[0] = 2;
        let error = operator_for(kind, &remembering()).restore(&mut store.0.into_iter()).unwrap_err();
        assert!(matches!(error, StateError::NewerFormat { found: 2, known: 1, .. }), "{kind}: {error}");
        assert!(error.to_string().contains("start the version that wrote it"), "{error}");
    }
}

#[test]
fn an_entry_that_is_missing_or_unknown_is_noticed() {
    for kind in KINDS {
        let mut store = stored(kind);
        store.0.insert(b"zzzzz".to_vec(), vec![1]);
        let error = operator_for(kind, &remembering()).restore(&mut store.0.into_iter()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{kind}: {error}");
        let mut store = stored(kind);
        store.0.pop_first();
        let error = operator_for(kind, &remembering()).restore(&mut store.0.into_iter()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{kind}: {error}");
    }
}

/// One way of damaging bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(prop_oneof![Just(255), any::<u8>()], 1..6))
            .prop_map(|(at, n)| Damage::Insert(at, n)),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    match damage {
        Damage::Flip(at, bits) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Damage::Flip(..) => {}
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
        Damage::Insert(at, new) => {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, new.iter().copied());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10 * crate::testing::cases().cases, ..crate::testing::cases() })]

    /// Damaged state is refused, or happens to be state of another operator's life: in neither case does anything panic.
    #[test]
    fn no_bytes_make_an_operator_panic(
        kind in prop::sample::select(KINDS.to_vec()),
        damages in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.9), damage()), 1..3)
    ) {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = stored(kind).0.into_iter().collect();
        for (entry, is_value, damage) in &damages {
            let entry = &mut entries[entry.index(stored(kind).0.len())];
            apply(damage, if *is_value { &mut entry.1 } else { &mut entry.0 });
        }
        let mut operator = operator_for(kind, &remembering());
        if operator.restore(&mut entries.into_iter()).is_ok() {
            tables(operator.as_mut());
            for table in Table::ALL {
                operator.fresh(*table, &clock(2));
            }
            operator.checkpoint(&clock(2));
        }
    }
}
