//! The organisation as a whole: reproducible, plausible, and with everything in it that happens in the field.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use legwork_types::geo::haversine_m;
use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US};
use legwork_types::{
    Kind, calls, check_ins, deal_events, emails, gps, leads, meetings, messages, orders, shifts, tasks,
};
use proptest::prelude::*;

use crate::deals::PIPELINES;
use crate::{Organisation, SimConfig, reference_keys};

/// Monday 2026-01-12T00:00:00Z.
const MONDAY_US: i64 = 20_465 * DAY_US;

/// All events of a kind with their sending times.
struct Sent {
    rows: RecordBatch,
    sent_us: Vec<i64>,
}

impl Sent {
    fn texts(&self, column: usize) -> &StringArray {
        self.rows.column(column).as_string()
    }

    fn text(&self, column: usize, row: usize) -> &str {
        self.texts(column).value(row)
    }

    fn times(&self, column: usize) -> &[i64] {
        self.rows.column(column).as_primitive::<TimestampMicrosecondType>().values()
    }

    fn flags(&self, column: usize) -> &BooleanArray {
        self.rows.column(column).as_boolean()
    }

    fn f64s(&self, column: usize) -> &[f64] {
        self.rows.column(column).as_primitive::<Float64Type>().values()
    }

    fn sequence(&self, row: usize) -> i64 {
        self.rows.column(gps::SEQUENCE).as_primitive::<Int64Type>().value(row)
    }

    /// Row numbers by the value of a column, in sending order.
    fn by(&self, column: usize) -> BTreeMap<&str, Vec<usize>> {
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for row in 0..self.rows.num_rows() {
            groups.entry(self.text(column, row)).or_default().push(row);
        }
        groups
    }

    fn count(&self, column: usize, word: &str) -> usize {
        self.texts(column).iter().filter(|value| *value == Some(word)).count()
    }
}

fn collect(organisation: &mut Organisation, cuts_us: impl IntoIterator<Item = i64>) -> BTreeMap<Kind, Sent> {
    let mut parts: BTreeMap<Kind, (Vec<RecordBatch>, Vec<i64>)> = BTreeMap::new();
    for until_us in cuts_us {
        for batch in organisation.advance(until_us) {
            assert_eq!(batch.rows.num_rows(), batch.sent_us.len());
            assert_eq!(batch.rows.num_rows(), batch.keys.len());
            assert_eq!(batch.rows.schema(), batch.kind.schema());
            assert!(batch.sent_us.iter().all(|&sent_us| sent_us <= until_us));
            let (rows, sent_us) = parts.entry(batch.kind).or_default();
            rows.push(batch.rows);
            sent_us.extend(batch.sent_us);
        }
    }
    let whole = |(kind, (rows, sent_us)): (Kind, (Vec<RecordBatch>, _))| {
        (kind, Sent { rows: concat_batches(&kind.schema(), &rows).unwrap(), sent_us })
    };
    parts.into_iter().map(whole).collect()
}

/// Everything that `n_reps` send in the first `hours`.
fn run(seed: u64, n_reps: u32, start_us: i64, hours: i64) -> BTreeMap<Kind, Sent> {
    let mut organisation = Organisation::new(SimConfig::new(seed, n_reps, start_us));
    collect(&mut organisation, (1..=hours).map(|hour| start_us + hour * HOUR_US))
}

fn same(a: &BTreeMap<Kind, Sent>, b: &BTreeMap<Kind, Sent>) -> bool {
    let equal =
        |(a, b): ((&Kind, &Sent), (&Kind, &Sent))| a.0 == b.0 && a.1.rows == b.1.rows && a.1.sent_us == b.1.sent_us;
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

fn number_of(id: &str) -> u32 {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn events_do_not_depend_on_the_steps(
        seed in 0u64..1_000,
        start_hour in 0i64..168,
        mut cuts in prop::collection::vec(0i64..5 * HOUR_US, 0..40),
    ) {
        let config = SimConfig::new(seed, 12, MONDAY_US + start_hour * HOUR_US);
        cuts.push(5 * HOUR_US);
        cuts.sort_unstable();
        let cuts = cuts.into_iter().map(|cut| config.start_us + cut);
        let stepped = collect(&mut Organisation::new(config.clone()), cuts);
        let whole = collect(&mut Organisation::new(config.clone()), [config.start_us + 5 * HOUR_US]);
        prop_assert!(same(&stepped, &whole));
    }
}

#[test]
fn bounded_steps_give_the_same_events_and_get_there() {
    let config = SimConfig::new(3, 30, MONDAY_US);
    let whole = collect(&mut Organisation::new(config.clone()), [MONDAY_US + 3 * HOUR_US]);
    let mut organisation = Organisation::new(config);
    let mut n_rows = BTreeMap::<Kind, usize>::new();
    let mut n_calls = 0;
    while organisation.now_us() < MONDAY_US + 3 * HOUR_US {
        for batch in organisation.advance_some(MONDAY_US + 3 * HOUR_US, 100) {
            *n_rows.entry(batch.kind).or_default() += batch.rows.num_rows();
        }
        n_calls += 1;
    }
    assert!(n_calls > 10);
    assert!(n_rows.into_iter().eq(whole.iter().map(|(kind, sent)| (*kind, sent.rows.num_rows()))));
}

#[test]
fn another_seed_is_another_organisation() {
    assert!(same(&run(1, 10, MONDAY_US, 2), &run(1, 10, MONDAY_US, 2)));
    assert!(!same(&run(1, 10, MONDAY_US, 2), &run(2, 10, MONDAY_US, 2)));
}

#[test]
fn something_moves_within_minutes_whenever_it_starts() {
    for start_us in (0..14 * 24).step_by(3).map(|hour| MONDAY_US + hour * HOUR_US + 29 * MINUTE_US) {
        for n_reps in [10, 50] {
            let mut organisation = Organisation::new(SimConfig::new(11, n_reps, start_us));
            let sent = collect(&mut organisation, [start_us + 20 * MINUTE_US]);
            assert!(organisation.n_on_duty() > 0, "{start_us}");
            let moving = sent[&Kind::Gps].flags(gps::MOVING);
            assert!(moving.iter().any(|moving| moving == Some(true)), "{n_reps} reps from {start_us}");
            assert!(sent.contains_key(&Kind::DealEvents));
        }
    }
}

#[test]
fn honest_phones_never_jump_nor_send_from_the_future() {
    let sent = run(7, 200, MONDAY_US, 24);
    let fixes = &sent[&Kind::Gps];
    let (times, lat, lon) = (fixes.times(gps::EVENT_TIME), fixes.f64s(gps::LAT), fixes.f64s(gps::LON));
    let odometer = fixes.f64s(gps::ODOMETER_M);
    assert!(fixes.sent_us.is_sorted());
    let mut n_honest = 0;
    for (device, mut rows) in fixes.by(gps::DEVICE_ID) {
        let rep = number_of(device);
        if matches!(rep, 2 | 3) {
            continue;
        }
        assert!(rows.iter().all(|&row| times[row] <= fixes.sent_us[row]), "{device}");
        rows.retain(|&row| !fixes.flags(gps::MOCK).value(row));
        rows.sort_by_key(|&row| times[row]);
        n_honest += rows.len();
        for (a, b) in rows.windows(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| times[*a] != times[*b]) {
            let seconds = (times[b] - times[a]) as f64 / 1e6;
            let metres = haversine_m(lat[a], lon[a], lat[b], lon[b]);
            assert!(metres / seconds < 60.0, "{device}: {metres} m in {seconds} s");
            assert!(odometer[b] >= odometer[a], "{device}");
        }
    }
    assert!(n_honest > 200_000);
    for (kind, sent) in sent.iter().filter(|(kind, _)| **kind != Kind::Gps) {
        assert!(sent.sent_us.is_sorted(), "{kind}");
        assert!(sent.times(gps::EVENT_TIME).iter().zip(&sent.sent_us).all(|(event, sent)| event <= sent), "{kind}");
    }
}

#[test]
fn phones_show_every_fault_within_a_day() {
    let sent = run(7, 200, MONDAY_US, 24);
    let fixes = &sent[&Kind::Gps];
    let times = fixes.times(gps::EVENT_TIME);
    let lateness = |row: usize| fixes.sent_us[row] - times[row];
    let by_device = fixes.by(gps::DEVICE_ID);
    assert!((0..times.len()).filter(|&row| lateness(row) > HOUR_US).any(|row| times[row] > MONDAY_US));
    let newest_first = |rows: &Vec<usize>| {
        let late: Vec<_> = rows.iter().filter(|&&row| lateness(row) > 10 * MINUTE_US).collect();
        late.len() > 100 && late.windows(2).filter(|pair| times[*pair[0]] > times[*pair[1]]).count() > late.len() / 2
    };
    assert!(newest_first(&by_device["phone-00001"]), "hours offline, sent newest first");
    assert!(by_device["phone-00002"].iter().all(|&row| lateness(row) < -50 * MINUTE_US), "fast clock");
    let years: BTreeSet<i64> = by_device["phone-00003"].iter().map(|&row| times[row] / (365 * DAY_US)).collect();
    assert!(years.len() >= 2 && (years.contains(&0) || years.contains(&66)), "lost clock: {years:?}");
    assert!(by_device.contains_key("tablet-00004"), "a rep with two devices");
    let mock = fixes.flags(gps::MOCK);
    assert!(by_device["phone-00005"].iter().any(|&row| mock.value(row)), "mock");
    let dies = |rows: &Vec<usize>| rows.windows(2).any(|pair| times[pair[1]] - times[pair[0]] > 40 * MINUTE_US);
    assert!(dies(&by_device["phone-00006"]), "battery");
    let no_rep = fixes.texts(gps::REP_ID).null_count();
    assert!(no_rep > 0 && no_rep < times.len() / 2, "some fixes do not name their rep");
    let accuracy = fixes.rows.column(gps::ACCURACY_M).as_primitive::<Float32Type>();
    assert!(accuracy.values().iter().any(|&accuracy_m| accuracy_m > 35.0), "poor fixes after tunnels");
    let copies: Vec<_> = fixes.by(gps::EVENT_ID).into_values().filter(|rows| rows.len() > 1).collect();
    assert!(copies.len() > times.len() / 1_000);
    for rows in copies {
        assert_eq!(fixes.rows.slice(rows[0], 1), fixes.rows.slice(rows[1], 1));
    }
}

#[test]
fn a_day_of_two_hundred_reps_has_all_that_happens_in_the_field() {
    let sent = run(7, 200, MONDAY_US, 24);
    assert!(Kind::events().all(|kind| sent.contains_key(&kind)), "{:?}", sent.keys());
    let expect = |kind: Kind, column: usize, words: &[&str]| {
        for word in words {
            assert!(sent[&kind].count(column, word) > 0, "{kind} {word}");
        }
    };
    expect(Kind::Calls, calls::STATUS, &["completed", "no_answer", "busy", "failed", "canceled", "voicemail"]);
    expect(Kind::Calls, calls::DIRECTION, &["inbound", "outbound"]);
    expect(Kind::Emails, emails::KIND, &["sent", "received", "delivered", "opened", "clicked", "bounced", "replied"]);
    expect(Kind::Messages, messages::CHANNEL, &["sms", "chat", "whatsapp", "other"]);
    expect(Kind::Messages, messages::DIRECTION, &["inbound", "outbound"]);
    expect(Kind::Meetings, meetings::STATUS, &["scheduled", "held", "canceled", "no_show"]);
    expect(Kind::CheckIns, check_ins::KIND, &["in", "out"]);
    expect(Kind::Shifts, shifts::KIND, &["on", "off"]);
    expect(Kind::Leads, leads::STATUS, &["new", "contacted", "qualified", "converted", "lost"]);
    expect(Kind::Orders, orders::KIND, &["sale", "refund"]);
    expect(Kind::DealEvents, deal_events::STAGE, &["won", "lost"]);
    let mails = &sent[&Kind::Emails];
    let machine_opens = (0..mails.rows.num_rows())
        .filter(|&row| mails.text(emails::KIND, row) == "opened" && mails.flags(emails::MACHINE).value(row));
    assert!(machine_opens.count() > 0);
    let check = &sent[&Kind::CheckIns];
    assert!(check.flags(check_ins::MOCK).true_count() > 0 && check.flags(check_ins::CACHED).true_count() > 0);
    assert!(check.rows.column(check_ins::LAT).null_count() > 0);
    let done = &sent[&Kind::Tasks];
    let n_done = done.rows.num_rows() - done.rows.column(tasks::COMPLETED_TIME).null_count();
    assert!(n_done > 0);
    let changes = &sent[&Kind::DealEvents];
    for column in [deal_events::SNOOZE_UNTIL, deal_events::CLEARED, deal_events::NEXT_STEP_TIME, deal_events::LEAD_ID] {
        assert!(changes.rows.column(column).null_count() < changes.rows.num_rows(), "column {column}");
    }
    for kind in [Kind::Calls, Kind::Emails, Kind::Messages] {
        let n_ids = sent[&kind].by(gps::EVENT_ID).len();
        assert!(n_ids < sent[&kind].rows.num_rows(), "{kind} has exact copies");
    }
    let n_evening = sent[&Kind::Calls].by(calls::REP_ID).into_iter().filter(|(rep, rows)| {
        let off = sent[&Kind::Shifts].by(shifts::REP_ID).get(rep).and_then(|shifts| shifts.last().copied());
        let is_off = |row: usize| sent[&Kind::Shifts].text(shifts::KIND, row) == "off";
        let last_call_us = rows.iter().map(|&row| sent[&Kind::Calls].sent_us[row]).max().unwrap();
        off.is_some_and(|off| is_off(off) && last_call_us > sent[&Kind::Shifts].sent_us[off] + 30 * MINUTE_US)
    });
    assert!(n_evening.count() > 5);
}

#[test]
fn check_ins_are_mostly_where_they_say() {
    let organisation = Organisation::new(SimConfig::new(7, 200, MONDAY_US));
    let sent = run(7, 200, MONDAY_US, 24);
    let check = &sent[&Kind::CheckIns];
    let (lat, lon) = (check.f64s(check_ins::LAT), check.f64s(check_ins::LON));
    let (mut n_near, mut n_far) = (0, 0);
    for row in (0..check.rows.num_rows()).filter(|&row| check.rows.column(check_ins::LAT).is_valid(row)) {
        let account = number_of(check.text(check_ins::ACCOUNT_ID, row));
        let hub = organisation.world.hub_of(account / organisation.world.accounts_per_rep);
        let place = organisation.world.accounts[account as usize].place;
        let (lat_e7, lon_e7) = crate::world::World::degrees_e7(hub, f64::from(place.x_m), f64::from(place.y_m));
        let metres = haversine_m(lat[row], lon[row], f64::from(lat_e7) / 1e7, f64::from(lon_e7) / 1e7);
        *(if metres < 60.0 { &mut n_near } else { &mut n_far }) += 1;
    }
    assert!(n_near > 10 * n_far && n_far > 20, "{n_near} near, {n_far} far");
}

#[test]
fn versions_of_an_entity_agree_and_are_in_order() {
    let sent = run(7, 100, MONDAY_US, 72);
    let mut n_versions = BTreeMap::<Kind, usize>::new();
    for (kind, id, rep) in [
        (Kind::Calls, calls::CALL_ID, calls::REP_ID),
        (Kind::Meetings, meetings::MEETING_ID, meetings::REP_ID),
        (Kind::Tasks, tasks::TASK_ID, tasks::REP_ID),
    ] {
        let events = &sent[&kind];
        for (id, rows) in events.by(id) {
            for (&a, &b) in rows.iter().zip(&rows[1..]) {
                assert_eq!(events.text(rep, a), events.text(rep, b), "{id}");
                let version = |row: usize| (events.times(gps::EVENT_TIME)[row], events.sequence(row));
                let is_copy = events.text(gps::EVENT_ID, a) == events.text(gps::EVENT_ID, b);
                assert!(is_copy || version(a) < version(b), "{id}");
                *n_versions.entry(kind).or_default() += usize::from(!is_copy);
            }
        }
    }
    assert!(n_versions.values().all(|&n| n > 20) && n_versions.len() == 3, "{n_versions:?}");
    let held = &sent[&Kind::Meetings];
    for (id, rows) in held.by(meetings::MEETING_ID) {
        let statuses: Vec<_> = rows.iter().map(|&row| held.text(meetings::STATUS, row)).collect();
        let (last, before) = statuses.split_last().unwrap();
        assert!(before.iter().all(|status| *status == "scheduled"), "{id}: {statuses:?}, {last}");
    }
    let moved = held.by(meetings::MEETING_ID).into_values().filter(|rows| {
        rows.iter().map(|&row| held.times(meetings::SCHEDULED_START)[row]).collect::<BTreeSet<_>>().len() > 1
    });
    assert!(moved.count() > 5);
}

#[test]
fn deals_follow_their_pipelines_in_every_way() {
    let sent = run(7, 200, MONDAY_US, 24);
    let events = &sent[&Kind::DealEvents];
    let position = |pipeline: &str, stage: &str| {
        let stages = PIPELINES.iter().find(|p| p.id == pipeline).unwrap().stages;
        match stage {
            "won" => stages.len(),
            "lost" => stages.len() + 1,
            open => stages.iter().position(|stage| stage.name == open).unwrap(),
        }
    };
    let mut seen = BTreeMap::<&str, usize>::new();
    for (id, rows) in events.by(deal_events::DEAL_ID) {
        let pipeline = events.text(deal_events::PIPELINE_ID, rows[0]);
        let n_open = PIPELINES.iter().find(|p| p.id == pipeline).unwrap().stages.len();
        let mut at = None;
        for (number, &row) in rows.iter().enumerate() {
            assert_eq!(events.sequence(row), number as i64, "{id}");
            assert!(
                number == 0 || events.times(gps::EVENT_TIME)[rows[number - 1]] < events.times(gps::EVENT_TIME)[row]
            );
            let is_live = events.times(gps::EVENT_TIME)[row] > MONDAY_US;
            if events.texts(deal_events::STAGE).is_null(row) {
                continue;
            }
            let next = position(pipeline, events.text(deal_events::STAGE, row));
            let what = match at {
                None => "new",
                Some(at) if at >= n_open && next < n_open => "reopened",
                Some(at) if at >= n_open => panic!("{id} goes from one end to the other"),
                Some(at) if next == at => panic!("{id} enters the stage where it is"),
                _ if next == n_open => "won",
                _ if next == n_open + 1 => "lost",
                Some(at) if next < at => "back",
                Some(at) if next == at + 1 => "forward",
                _ => "skip",
            };
            assert_eq!(at.is_none(), number == 0);
            *seen.entry(what).or_default() += usize::from(is_live);
            at = Some(next);
        }
    }
    for what in ["new", "forward", "skip", "back", "won", "lost", "reopened"] {
        assert!(seen.get(what).is_some_and(|&n| n > 0), "{what}: {seen:?}");
    }
    for column in [deal_events::AMOUNT, deal_events::OWNER_ID, deal_events::CLOSE_DATE] {
        let changes = (0..events.rows.num_rows()).filter(|&row| {
            events.texts(deal_events::PIPELINE_ID).is_null(row) && events.rows.column(column).is_valid(row)
        });
        assert!(changes.count() > 0, "column {column}");
    }
}

#[test]
fn rates_are_those_of_a_field_organisation() {
    let sent = run(7, 200, MONDAY_US, 24);
    let n_shifts = sent[&Kind::Shifts].count(shifts::KIND, "on");
    assert!((180..=260).contains(&n_shifts), "{n_shifts} shifts");
    for (kind, events) in &sent {
        let n_events = events.times(gps::EVENT_TIME).iter().filter(|&&time_us| time_us >= MONDAY_US).count();
        eprintln!("{kind}: {:.1} an hour, {:.1} a shift", n_events as f64 / 24.0, n_events as f64 / n_shifts as f64);
    }
    let a_shift = |kind: Kind| sent[&kind].rows.num_rows() as f64 / n_shifts as f64;
    assert!((1_500.0..2_600.0).contains(&a_shift(Kind::Gps)));
    assert!((4.0..25.0).contains(&a_shift(Kind::Calls)));
    assert!((5.0..40.0).contains(&a_shift(Kind::Emails)));
    assert!((5.0..30.0).contains(&a_shift(Kind::CheckIns)));
}

#[test]
fn two_weeks_leave_no_more_in_memory_than_two_days() {
    let mut organisation =
        Organisation::new(SimConfig { ping_interval_us: MINUTE_US, ..SimConfig::new(7, 30, MONDAY_US) });
    let mut size_after = |days: i64| {
        collect(&mut organisation, [MONDAY_US + days * DAY_US]);
        organisation.size()
    };
    let (early, late) = (size_after(3), size_after(17));
    assert!(late < early * 2, "{early} then {late}");
}

#[test]
fn small_and_large_organisations_are_ready_at_once() {
    for n_reps in [1, 3, 10, 10_000] {
        let mut organisation = Organisation::new(SimConfig::new(1, n_reps, MONDAY_US + 10 * HOUR_US));
        let sent = collect(&mut organisation, [MONDAY_US + 10 * HOUR_US + 2 * MINUTE_US]);
        assert!(sent.contains_key(&Kind::DealEvents), "{n_reps}");
        assert!(n_reps < 10 || sent[&Kind::Gps].rows.num_rows() as u32 > n_reps / 10);
    }
}

#[test]
fn reference_data_names_all_that_events_name() {
    let organisation = Organisation::new(SimConfig::new(7, 200, MONDAY_US));
    let sent = run(7, 200, MONDAY_US, 24);
    let reference: BTreeMap<Kind, RecordBatch> = organisation.reference().into_iter().collect();
    assert!(Kind::references().eq(reference.keys().copied()));
    let known = |kind: Kind, name: &str| -> BTreeSet<String> {
        reference[&kind].column_by_name(name).unwrap().as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    };
    let mut used = BTreeMap::<&str, BTreeSet<String>>::new();
    for events in sent.values().map(|sent| &sent.rows).chain(reference.values()) {
        for name in
            ["rep_id", "account_id", "team_id", "device_id", "product_id", "territory_id", "pipeline_id", "currency"]
        {
            if let Some(column) = events.column_by_name(name) {
                used.entry(name).or_default().extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
            }
        }
    }
    for (name, kind) in [
        ("rep_id", Kind::Reps),
        ("account_id", Kind::Accounts),
        ("team_id", Kind::Teams),
        ("device_id", Kind::DeviceAssignments),
        ("product_id", Kind::Products),
        ("territory_id", Kind::Territories),
        ("pipeline_id", Kind::Stages),
        ("currency", Kind::FxRates),
    ] {
        assert!(used[name].is_subset(&known(kind, name)), "{name}");
    }
    for (kind, rows) in &reference {
        let keys: BTreeSet<String> = reference_keys(*kind, rows).into_iter().collect();
        assert_eq!(keys.len(), rows.num_rows(), "{kind}");
    }
}
