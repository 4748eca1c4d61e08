//! Recorded tracks, where they are at hand: in the folder that `LEGWORK_SHARED` names, or beside the repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use legwork_types::Table;
use legwork_types::time::{DAY_US, HOUR_US, SECOND_US, TimeConfig};

use super::{Cell, Event, Lane, Random, sum};
use crate::track::TrackConfig;

fn file() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let shared = std::env::var_os("LEGWORK_SHARED").map_or_else(beside, PathBuf::from);
    Some(shared.join("data/geolife_sample.csv.gz")).filter(|path| path.exists())
}

/// Days since 1970-01-01. *Source:* H. Hinnant, "chrono-compatible low-level date algorithms".
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `lat,lng,datetime,uid`
fn event(line: &str) -> Event {
    let fields: Vec<&str> = line.split(',').collect();
    let number = |range: std::ops::Range<usize>| fields[2][range].parse::<i64>().unwrap();
    let day = days(number(0..4), number(5..7), number(8..10));
    let time_s = day * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    Event {
        device: fields[3].to_owned(),
        time_us: time_s * SECOND_US,
        lat: fields[0].parse().unwrap(),
        lon: fields[1].parse().unwrap(),
        ..Event::default()
    }
}

/// All events in the order of the file; none, said aloud, where the file is not at hand.
pub(super) fn events() -> Vec<Event> {
    let Some(path) = file() else {
        eprintln!("NOT TESTED: no GeoLife sample beside the repository");
        return Vec::new();
    };
    let bytes = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    BufReader::new(bytes).lines().skip(1).map(|line| event(line.unwrap().trim())).collect()
}

/// A horizon over the whole sample, some years.
fn time() -> TimeConfig {
    TimeConfig { late_horizon_us: 5000 * DAY_US, ..TimeConfig::default() }
}

fn replay(events: &[Event]) -> Lane {
    let mut lane = Lane::new(time(), TrackConfig::default());
    for batch in events.chunks(5000) {
        lane.apply(batch);
    }
    lane
}

#[test]
fn known_distances() {
    let events = events();
    if events.is_empty() {
        return;
    }
    let mut lane = replay(&events);
    let mut km = |device: &str, column: &str| sum(&mut lane, Table::DeviceMovement, device, column) / 1000.0;
    let figures: Vec<f64> = ["001", "005"]
        .iter()
        .flat_map(|device| ["raw_m", "distance_m", "gap_m", "moving_s", "stationary_s", "gap_s"].map(|c| (*device, c)))
        .map(|(device, column)| km(device, column))
        .collect();
    eprintln!("001 and 005: raw, distance, gap (km), moving, stationary, gap (1000 s): {figures:.3?}");
    // What others find: raw and gaps are known exactly, the distance by method.
    let ranges = [
        (0, 1017.8, 1017.83),
        (1, 920.0, 980.0),
        (2, 74.0, 78.0),
        (6, 6081.8, 6081.9),
        (7, 990.0, 1130.0),
        (8, 4990.0, 4996.0),
    ];
    for (figure, from_km, to_km) in ranges {
        assert!((from_km..to_km).contains(&figures[figure]), "figure {figure}: {figures:?}");
    }
    // This filter's, at its defaults: any other value is a change of the rules.
    let pinned = [
        1017.815, 920.991, 74.451, 360.660, 2045.981, 2153.252, 6081.880, 1038.400, 4991.336, 506.719, 1247.687,
        10865.641,
    ];
    for (figure, wanted) in figures.iter().zip(pinned) {
        assert!((figure - wanted).abs() < 1e-3, "{figures:?}");
    }
    for device in ["001", "005"] {
        let n_stays = lane.rows("stays").iter().filter(|row| row[0] == Cell::Text(device.into())).count();
        let n_trips = lane.rows("trips").iter().filter(|row| row[0] == Cell::Text(device.into())).count();
        eprintln!("{device}: {n_stays} stays, {n_trips} trips");
        assert!(n_stays > 10 && n_trips > 10);
    }
}

#[test]
fn any_replay_gives_the_same_tables() {
    let events = events();
    if events.is_empty() {
        return;
    }
    let wanted = replay(&events).tables();
    let day_of = |event: &Event| (event.device.clone(), event.time_us.div_euclid(DAY_US));
    let mut random = Random(7);
    let mut swapped: Vec<Vec<Event>> = events.chunks(60).map(<[Event]>::to_vec).collect();
    for _ in 0..swapped.len() / 20 {
        let (a, b) = (random.below(swapped.len() as u64), random.below(swapped.len() as u64));
        swapped.swap(a as usize, b as usize);
    }
    let mut by_day: BTreeMap<_, Vec<Event>> = BTreeMap::new();
    for event in &events {
        by_day.entry(day_of(event)).or_default().push(event.clone());
    }
    let late_day = by_day.keys().nth(by_day.len() / 2).unwrap().clone();
    let arrival = |event: &Event| event.time_us + if day_of(event) == late_day { 20 * HOUR_US } else { 0 };
    let mut delayed = events.clone();
    delayed.sort_by_key(arrival);
    let newest_first = by_day.into_values().flat_map(|day| day.into_iter().rev()).collect();
    let mut twice = events.clone();
    for _ in 0..events.len() / 100 {
        let event = events[random.below(events.len() as u64) as usize].clone();
        twice.insert(random.below(twice.len() as u64) as usize, event);
    }
    for (name, replayed) in
        [("swapped", swapped.concat()), ("delayed", delayed), ("newest first", newest_first), ("twice", twice)]
    {
        assert!(replay(&replayed).tables() == wanted, "{name}");
    }
}

/// `device,start,end,lat,lon,n_pings`, times in seconds since 1970: what benches/compare_stays.py compares with other programs.
#[test]
#[ignore = "prints figures"]
fn print_stays() {
    let events = events();
    let mut lane = replay(&events);
    for row in lane.rows("stays") {
        let Cell::Text(device) = &row[0] else { continue };
        let end_s = if row[3] == Cell::Null { f64::MAX } else { row[3].float() / 1e6 };
        let (start_s, lat, lon) = (row[2].float() / 1e6, row[4].float(), row[5].float());
        eprintln!("stay,{device},{start_s},{end_s},{lat},{lon},{}", row[7].float());
    }
}
