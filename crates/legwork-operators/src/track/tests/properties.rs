//! Any order of arrival, any cut into batches, any interleaving: the same tables, at every moment those of the naive answer.

use std::collections::BTreeMap;

use legwork_types::time::{DAY_US, HOUR_US, SECOND_US, TimeConfig};
use legwork_types::{Lookup, Table, Verdict};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::oracle::{Answer, answer};
use super::{Cell, Event, Lane, Random, cells, place};
use crate::Operator;
use crate::track::TrackConfig;

/// So many cases in all, split over the properties.
pub(super) fn cases(share: u32) -> Config {
    let all = std::env::var("LEGWORK_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    Config { cases: (all * share).div_ceil(100), failure_persistence: None, ..Config::default() }
}

fn f32_some(random: &mut Random, one_in: u64, value: f64) -> Option<f32> {
    (random.below(one_in) == 0).then_some(value as f32)
}

/// A day in the life of a device: it stands, walks, drives, jumps, vanishes; its fixes blur, lie, and come twice.
fn life(device: &str, n_events: usize, random: &mut Random) -> Vec<Event> {
    let (mut north_m, mut east_m) = (random.unit() * 3000.0, random.unit() * 3000.0);
    let mut time_us = 1_700_000_000 * SECOND_US + random.below(HOUR_US as u64) as i64;
    let mut odometer_m = 1000.0;
    let mut events: Vec<Event> = Vec::new();
    let scale: f64 = 10f64.powi(random.below(2) as i32 * 7);
    while events.len() < n_events {
        let (speed_mps, noise_m) = [(0.0, 12.0), (1.4, 5.0), (15.0, 4.0), (0.3, 30.0)][random.below(4) as usize];
        let heading = random.unit() * std::f64::consts::TAU;
        let step_s = [1.0, 7.0, 15.0, 40.0, 100.0][random.below(5) as usize];
        let rep = [None, Some("anna".to_owned()), Some("ben".to_owned())][random.below(3) as usize].clone();
        for _ in 0..random.below(30) + 1 {
            let leg_s = step_s * (0.5 + random.unit());
            time_us += (leg_s * 1e6) as i64 + 1;
            (north_m, east_m) =
                (north_m + heading.cos() * speed_mps * leg_s, east_m + heading.sin() * speed_mps * leg_s);
            odometer_m += speed_mps * leg_s;
            let (mut at_north_m, mut at_east_m) =
                (north_m + random.normal() * noise_m, east_m + random.normal() * noise_m);
            match random.below(25) {
                0 => at_north_m += 50_000.0 * random.normal(),
                1 => at_east_m += 300.0 * random.normal(),
                2 => (north_m, east_m) = (north_m + 4000.0 * random.normal(), east_m - 900.0),
                3 => time_us += (random.unit() * 3.0 * HOUR_US as f64) as i64,
                4 => odometer_m = 0.0,
                _ => {}
            }
            let (lat, lon) = if random.below(60) == 0 { (0.0, 0.0) } else { place(at_north_m, at_east_m) };
            let (lat, lon) =
                if scale > 1.0 { ((lat * scale).round() / scale, (lon * scale).round() / scale) } else { (lat, lon) };
            let (unit, speed_choice) = (random.unit(), random.below(3) as usize);
            events.push(Event {
                device: device.to_owned(),
                rep: if random.below(20) == 0 { None } else { rep.clone() },
                time_us,
                sent_us: (random.below(3) == 0).then(|| time_us + random.below(5) as i64),
                lat,
                lon,
                accuracy_m: [None, f32_some(random, 1, 5.0), f32_some(random, 1, 40.0)][random.below(3) as usize]
                    .or(f32_some(random, 40, 150.0))
                    .or(f32_some(random, 40, 500.0))
                    .or(f32_some(random, 40, -1.0)),
                speed_mps: [None, Some((speed_mps + unit) as f32), Some(-1.0)][speed_choice],
                odometer_m: (random.below(3) > 0).then_some(odometer_m),
                battery_pct: f32_some(random, 2, unit * 100.0),
                mock: f32_some(random, 30, 1.0).map(|_| true),
            });
        }
    }
    events.truncate(n_events);
    // The same again, and others at the same time.
    for _ in 0..n_events / 12 {
        let mut again = events[random.below(n_events as u64) as usize].clone();
        match random.below(4) {
            0 => again.sent_us = Some(again.time_us + random.below(9) as i64),
            1 => again.lat += 0.01 * random.normal(),
            2 => again.rep = Some("carl".to_owned()),
            _ => {}
        }
        events.push(again);
    }
    events
}

pub(super) fn fleet(n_devices: u64, n_events: usize, random: &mut Random) -> Vec<Event> {
    let mut events: Vec<Event> =
        (0..n_devices).flat_map(|id| life(&format!("device-{id}"), n_events, &mut random.clone_at(id))).collect();
    events.sort_by_key(|e| e.time_us);
    events
}

impl Random {
    fn clone_at(&self, id: u64) -> Random {
        Random(Random(self.0 ^ (id << 32)).next())
    }
}

/// Shuffles in one of several ways: wholly, by runs, newest first, a few stragglers, nearly in order.
pub(super) fn disorder(events: &mut [Event], random: &mut Random) {
    match random.below(5) {
        0 => random.shuffle(events),
        1 => events.chunks_mut(20).for_each(|run| random.shuffle(run)),
        2 => events.reverse(),
        3 => {
            for _ in 0..events.len() / 15 + 1 {
                let from = random.below(events.len() as u64) as usize;
                let to = from + random.below((events.len() - from) as u64) as usize;
                events[from..=to].rotate_left(1);
            }
        }
        _ => {
            let middle = events.len() / 2;
            events.rotate_left(middle);
        }
    }
}

pub(super) fn cut(events: &[Event], random: &mut Random) -> Vec<Vec<Event>> {
    let (mut batches, mut rest) = (Vec::new(), events);
    let most = [1, 4, 50, 400][random.below(4) as usize];
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at((1 + random.below(most) as usize).min(rest.len()));
        batches.push(batch.to_vec());
        rest = behind;
    }
    batches
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-9
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

/// Compares all tables with the naive answer.
fn check(lane: &mut Lane, events: &[Event], config: &TrackConfig, time: &TimeConfig) -> Result<(), TestCaseError> {
    let mut by_device: BTreeMap<&str, Vec<Event>> = BTreeMap::new();
    for event in events {
        by_device.entry(&event.device).or_default().push(event.clone());
    }
    let answers: Vec<(&str, Answer)> =
        by_device.iter().map(|(device, events)| (*device, answer(events, config, time))).collect();
    check_movement(&lane.rows("device_movement"), &answers, time)?;
    let in_order = |mut rows: Vec<Vec<Cell>>| {
        rows.sort_by(|a, b| (&a[0], &a[2]).partial_cmp(&(&b[0], &b[2])).unwrap());
        rows
    };
    let stays = in_order(lane.rows("stays"));
    let wanted: Vec<_> =
        answers.iter().flat_map(|(device, answer)| answer.stays.iter().map(move |s| (*device, s))).collect();
    prop_assert_eq!(stays.len(), wanted.len(), "stays {:#?} {:#?}", stays, wanted);
    for (row, (device, stay)) in stays.iter().zip(wanted) {
        prop_assert_eq!(&row[0], &Cell::Text(device.into()));
        prop_assert_eq!(&row[2], &Cell::Int(stay.start_us));
        prop_assert_eq!(&row[3], &stay.end_us.map_or(Cell::Null, Cell::Int));
        prop_assert!(close(row[4].float(), stay.lat) && close(row[5].float(), stay.lon), "{row:?} {stay:?}");
        prop_assert!(row[6].float() >= 0.0);
        prop_assert_eq!(&row[7], &Cell::Int(stay.n_pings));
    }
    let trips = in_order(lane.rows("trips"));
    let wanted: Vec<_> =
        answers.iter().flat_map(|(device, answer)| answer.trips.iter().map(move |t| (*device, t))).collect();
    prop_assert_eq!(trips.len(), wanted.len(), "trips {:#?} {:#?}", trips, wanted);
    for (row, (device, trip)) in trips.iter().zip(wanted) {
        prop_assert_eq!(&row[0], &Cell::Text(device.into()));
        prop_assert_eq!((&row[2], &row[3]), (&Cell::Int(trip.start_us), &Cell::Int(trip.end_us)));
        prop_assert!(close(row[4].float(), trip.distance_m), "{row:?} {trip:?}");
    }
    let coverage = lane.rows("device_coverage");
    for (device, answer) in &answers {
        let of_device = coverage.iter().filter(|row| row[0] == Cell::Text((*device).into()));
        prop_assert_eq!(of_device.map(|row| row[4].float() as usize).sum::<usize>(), answer.n_kept);
    }
    let positions = lane.rows("rep_positions");
    prop_assert_eq!(positions.len(), answers.len());
    for (row, (device, answer)) in positions.iter().zip(&answers) {
        let newest = answer.newest.as_ref().unwrap();
        let float = |value: Option<f32>| value.map_or(Cell::Null, |value| Cell::Float(value.into()));
        let wanted = vec![
            Cell::Text((*device).into()),
            newest.rep.clone().map_or(Cell::Null, Cell::Text),
            Cell::Int(newest.time_us),
            Cell::Float(newest.lat),
            Cell::Float(newest.lon),
            float(newest.accuracy_m),
            float(newest.speed_mps),
            float(newest.battery_pct),
        ];
        prop_assert_eq!(row, &wanted);
    }
    Ok(())
}

fn check_movement(rows: &[Vec<Cell>], answers: &[(&str, Answer)], time: &TimeConfig) -> Result<(), TestCaseError> {
    let mut wanted: Vec<_> = answers
        .iter()
        .flat_map(|(device, answer)| {
            answer.movement.iter().map(move |((window, rep), row)| (*device, *window, rep, row))
        })
        .collect();
    wanted.sort_by_key(|(device, window, rep, _)| (*device, (*rep).clone(), *window));
    prop_assert_eq!(rows.len(), wanted.len());
    for (row, (device, window_us, rep, want)) in rows.iter().zip(wanted) {
        let int = |i: i64| Cell::Int(i);
        prop_assert_eq!(
            &row[..4],
            &[
                Cell::Text(device.into()),
                rep.clone().map_or(Cell::Null, Cell::Text),
                int(window_us),
                int(window_us + time.window_us),
            ]
        );
        prop_assert_eq!(&row[4], &int(want.n_pings));
        let measures = [want.raw_m, want.distance_m, want.gap_m]
            .into_iter()
            .chain([want.moving_us, want.still_us, want.gap_us].map(seconds));
        for (column, want) in (5..).zip(measures) {
            prop_assert!(close(row[column].float(), want), "column {column}: {row:?} {want}");
            prop_assert!(row[column].float() >= 0.0, "negative: {row:?}");
        }
        prop_assert_eq!(&row[11], &want.speed_max.map_or(Cell::Null, |v| Cell::Float(v.into())));
        prop_assert_eq!(&row[12..14], &[int(want.first_us), int(want.last_us)]);
        prop_assert_eq!(&row[14..17], &[int(want.n_accuracy), int(want.n_speed), int(want.n_mock)]);
        match want.odometer_m {
            Some(odometer_m) => prop_assert!(close(row[17].float(), odometer_m)),
            None => prop_assert_eq!(&row[17], &Cell::Null),
        }
    }
    Ok(())
}

/// Adds what the pings of each row are said to add, and compares with the row, bit for bit: asked for all of them at once, or row by row.
fn check_explained(lane: &mut Lane, device: &str, row_by_row: bool) -> Result<(), TestCaseError> {
    let mut sums = if row_by_row { BTreeMap::new() } else { explained(lane, device, i64::MIN, i64::MAX) };
    let rows = lane.rows("device_movement");
    for row in rows.iter().filter(|row| row[0] == Cell::Text(device.into())) {
        if row_by_row {
            sums = explained(lane, device, row[2].float() as i64, row[3].float() as i64);
        }
        let (n_pings, sums) = sums.remove(&format!("{:?} {:?}", row[1], row[2])).unwrap();
        prop_assert_eq!(&row[4], &Cell::Int(n_pings));
        for (column, sum) in (5..8).zip(sums) {
            prop_assert_eq!(row[column].float().to_bits(), sum.to_bits(), "column {}: {:?}", column, row);
        }
        for (column, sum) in (8..11).zip(&sums[3..]) {
            prop_assert!(
                (row[column].float() - sum).abs() < 1e-6,
                "column {}: {} {}",
                column,
                row[column].float(),
                sum
            );
        }
    }
    prop_assert!(row_by_row || sums.is_empty());
    Ok(())
}

/// Number of pings and sums of what they add, by rep and window, of the pings in a span.
fn explained(lane: &mut Lane, device: &str, from_us: i64, to_us: i64) -> BTreeMap<String, (i64, [f64; 6])> {
    let lookup = Lookup { table: "explain_track".into(), key: device.into(), from_us, to_us };
    let mut sums: BTreeMap<String, (i64, [f64; 6])> = BTreeMap::new();
    for ping in cells(&lane.track.lookup(&lookup, &lane.clock).unwrap()) {
        let (n_pings, sums) = sums.entry(format!("{:?} {:?}", ping[1], ping[2])).or_default();
        *n_pings += 1;
        sums.iter_mut().zip(&ping[9..15]).for_each(|(sum, share)| *sum += share.float());
    }
    sums
}

pub(super) fn windows(choice: u64) -> TimeConfig {
    let window_us = [60, 300, 3600][choice as usize % 3] * SECOND_US;
    // With the shorter one nearly every device is frozen after each batch.
    let idle_close_us = [30 * 60 * SECOND_US, 1][choice as usize / 3 % 2];
    TimeConfig { window_us, idle_close_us, ..TimeConfig::default() }
}

proptest! {
    #![proptest_config(cases(50))]
    #[test]
    fn any_arrival_gives_the_same_tables(seed in any::<u64>(), n_devices in 1u64..5, n_events in 1usize..300) {
        let mut random = Random(seed);
        let (time, config) = (windows(seed), TrackConfig::default());
        let mut events = fleet(n_devices, n_events, &mut random);
        let mut sorted = Lane::new(time, config);
        sorted.apply(&events);
        disorder(&mut events, &mut random);
        let mut lane = Lane::with_chunks(time, config, 1 + random.below(40) as u32);
        let (mut n_refused, batches) = (0, cut(&events, &mut random));
        for batch in &batches {
            n_refused += lane.apply(batch).refused.len();
        }
        prop_assert!(n_refused <= events.len());
        prop_assert_eq!(lane.tables(), sorted.tables());
        check(&mut lane, &events, &config, &time)?;
        check_explained(&mut lane, "device-0", false)?;
    }
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn every_moment_is_the_batch_answer(seed in any::<u64>(), n_devices in 1u64..3, n_events in 1usize..90) {
        let mut random = Random(seed);
        let (time, config) = (windows(seed), TrackConfig::default());
        let mut events = fleet(n_devices, n_events, &mut random);
        if random.below(3) > 0 {
            disorder(&mut events, &mut random);
        }
        let mut lane = Lane::with_chunks(time, config, 1 + random.below(20) as u32);
        let mut seen = Vec::new();
        for batch in cut(&events, &mut random) {
            lane.apply(&batch);
            seen.extend(batch);
            check(&mut lane, &seen, &config, &time)?;
        }
        check_explained(&mut lane, "device-0", false)?;
    }
}

proptest! {
    #![proptest_config(cases(10))]
    #[test]
    fn what_is_late_changes_nothing(seed in any::<u64>(), n_events in 1usize..200) {
        let mut random = Random(seed);
        let time = TimeConfig { late_horizon_us: HOUR_US, ..windows(seed) };
        let config = TrackConfig::default();
        let mut events = fleet(2, n_events, &mut random);
        disorder(&mut events, &mut random);
        let mut lane = Lane::with_chunks(time, config, 1 + random.below(20) as u32);
        let mut clocks: BTreeMap<String, i64> = BTreeMap::new();
        let mut accepted = Vec::new();
        for batch in cut(&events, &mut random) {
            let verdicts = lane.apply(&batch);
            let late: Vec<u32> =
                verdicts.refused.iter().filter(|(_, v)| *v == Verdict::Late).map(|(row, _)| *row).collect();
            for (row, event) in (0..).zip(batch) {
                let clock = clocks.entry(event.device.clone()).or_insert(i64::MIN);
                let is_late = event.time_us < clock.saturating_sub(HOUR_US);
                prop_assert_eq!(late.contains(&row), is_late);
                if !is_late {
                    *clock = (*clock).max(event.time_us);
                    accepted.push(event);
                }
            }
            check(&mut lane, &accepted, &config, &time)?;
        }
    }
}

/// A device with one or two fixes a second that walks to and fro and rests, so that what its fixes are is often told late.
fn restless(n_events: usize, random: &mut Random) -> Vec<Event> {
    let (mut north_m, mut time_us) = (0.0, 1_700_000_000 * SECOND_US);
    let (mut speed_mps, mut noise_m, mut rest) = (0.0, 0.0, 0);
    let mut event = || {
        if rest == 0 {
            noise_m = [0.5, 3.0, 8.0][random.below(3) as usize];
            (speed_mps, rest) = if speed_mps == 0.0 {
                ([1.4, -1.4, 0.4][random.below(3) as usize], 20 + random.below(40))
            } else {
                (0.0, 40 + random.below(200))
            };
        }
        rest -= 1;
        time_us += (SECOND_US as f64 * (0.5 + 0.5 * random.unit())) as i64;
        north_m += speed_mps;
        let leap_m = if random.below(200) == 0 { 50_000.0 } else { 0.0 };
        let (lat, lon) = place(north_m + leap_m + noise_m * random.normal(), noise_m * random.normal());
        let mock = Some(random.below(8) == 0);
        Event { device: "device-0".into(), time_us, lat, lon, mock, ..Event::default() }
    };
    std::iter::repeat_with(&mut event).take(n_events).collect()
}

proptest! {
    #![proptest_config(cases(40))]
    #[test]
    fn what_is_behind_a_row_explains_it_too(seed in any::<u64>(), n_events in 1usize..900) {
        let mut random = Random(seed);
        let stay_min_us = [40, 60, 90, 300][random.below(4) as usize] * SECOND_US;
        let config = TrackConfig { stay_min_us, ..TrackConfig::default() };
        let time = TimeConfig { window_us: 10 * SECOND_US, ..TimeConfig::default() };
        let mut lane = Lane::with_chunks(time, config, 1 + random.below(12) as u32);
        lane.apply(&restless(n_events, &mut random));
        check_explained(&mut lane, "device-0", true)?;
    }
}

/// A ping of a device that stands, and of another one behind it so that the first is frozen between its pings.
pub(super) fn standing(times_s: &[i64]) -> Vec<Event> {
    let ping = |device: &str, time_s: i64| {
        let (lat, lon) = place(3.0, 4.0);
        Event { device: device.into(), time_us: time_s * SECOND_US, lat, lon, ..Event::default() }
    };
    times_s.iter().flat_map(|time_s| [ping("stands", *time_s), ping("other", time_s + 1)]).collect()
}

/// From the day of the first event time that is accepted, and from that to the last day that Arrow can print.
pub(super) const LONG_STOPS_S: [[i64; 5]; 2] = [
    [1_148_256_000, 1_767_600_000, 1_767_600_360, 1_767_600_720, 1_767_601_080],
    [315_964_800, 253_402_200_000, 253_402_200_360, 253_402_200_720, 253_402_201_080],
];

#[test]
fn a_stop_of_any_length_is_in_its_row() {
    let (time, config) = (windows(4), TrackConfig::default());
    for (times_s, chunk_len) in LONG_STOPS_S.into_iter().flat_map(|times_s| [1, 2, 128].map(|len| (times_s, len))) {
        let mut lane = Lane::with_chunks(time, config, chunk_len);
        let events = standing(&times_s);
        for seen in 1..=events.len() {
            lane.apply(&events[seen - 1..seen]);
            check(&mut lane, &events[..seen], &config, &time).unwrap();
        }
    }
}

#[test]
fn verdicts_count_each_event_once() {
    let mut lane = Lane::new(TimeConfig::default(), TrackConfig::default());
    let event = |time_s: i64, sent_us| {
        let (lat, lon) = place(time_s as f64, 0.0);
        Event { device: "a".into(), time_us: time_s * SECOND_US, sent_us, lat, lon, ..Event::default() }
    };
    let first = lane.apply(&[event(100, None), event(200, None), event(100, None), event(150, None)]);
    assert_eq!((first.refused, first.n_reordered), (vec![(2, Verdict::Duplicate)], 1));
    let second = lane.apply(&[event(150, Some(1)), event(150, None), event(200, Some(3)), event(200, Some(2))]);
    assert_eq!(second.refused, [(1, Verdict::Duplicate), (3, Verdict::Duplicate)]);
    assert_eq!(second.n_reordered, 1);
    // The battery of a ping that is not the newest is not kept: the same ping again is the same.
    let with_battery = |time_s: i64| Event { battery_pct: Some(50.0), ..event(time_s, None) };
    lane.apply(&[with_battery(300), with_battery(310)]);
    let again = lane.apply(&[with_battery(300), with_battery(310)]);
    assert_eq!(again.refused, [(0, Verdict::Duplicate), (1, Verdict::Duplicate)]);
    let newest = event(20 * DAY_US / SECOND_US, None);
    let third = lane.apply(&[newest, event(300, None)]);
    assert_eq!(third.refused, [(1, Verdict::Late)]);
}

#[test]
fn only_touched_rows_get_the_revision() {
    let mut lane = Lane::new(TimeConfig::default(), TrackConfig::default());
    let event = |time_s: i64| {
        let (lat, lon) = place(20.0 * time_s as f64, 0.0);
        Event { device: "a".into(), time_us: time_s * SECOND_US, lat, lon, ..Event::default() }
    };
    lane.clock.revision = 1;
    lane.apply(&(0..120).map(|i| event(i * 30)).collect::<Vec<_>>());
    lane.clock.revision = 2;
    // Its own window, and the next one, whose first leg begins at it.
    lane.apply(&[event(899)]);
    let column = Table::DeviceMovement.schema().index_of("revision").unwrap();
    let revisions: Vec<_> = lane.rows("device_movement").iter().map(|row| row[column].float() as i64).collect();
    assert_eq!(revisions, [1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
}
