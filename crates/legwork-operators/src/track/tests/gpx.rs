//! Recorded tracks with stops, in tests/fixtures/gpx: where the device stopped is where its stays are.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use legwork_types::Table;
use legwork_types::time::{MINUTE_US, SECOND_US, TimeConfig};

use super::geolife::days;
use super::{Cell, Event, Lane, sum};
use crate::track::TrackConfig;

/// The fixes of a GPX file: enough of the format for these two.
fn events(name: &str) -> Vec<Event> {
    let path = format!("{}/../../tests/fixtures/gpx/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let between = |text: &str, from: &str, to: &str| -> String {
        let rest = &text[text.find(from).unwrap() + from.len()..];
        rest[..rest.find(to).unwrap()].to_owned()
    };
    let event = |point: &str| {
        let time = between(point, "<time>", "</time>");
        let number = |range: std::ops::Range<usize>| time[range].parse::<i64>().unwrap();
        let day = days(number(0..4), number(5..7), number(8..10));
        Event {
            device: "d".into(),
            time_us: (day * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)) * SECOND_US,
            lat: between(point, "lat=\"", "\"").parse().unwrap(),
            lon: between(point, "lon=\"", "\"").parse().unwrap(),
            ..Event::default()
        }
    };
    text.split("<trkpt").skip(1).map(event).collect()
}

fn check(name: &str, config: TrackConfig, expected: &Expect) {
    let events = events(name);
    let begun_us = events[0].time_us;
    let mut lane = Lane::new(TimeConfig::default(), config);
    for batch in events.chunks(100) {
        lane.apply(batch);
    }
    let mut text = String::new();
    for column in ["n_pings", "raw_m", "distance_m", "gap_m", "moving_s", "stationary_s"] {
        writeln!(text, "{column} {:.0}", sum(&mut lane, Table::DeviceMovement, "d", column)).unwrap();
    }
    let mut stays = lane.rows("stays");
    stays.sort_by(|a, b| a[2].partial_cmp(&b[2]).unwrap());
    let second = |cell: &Cell| match cell {
        Cell::Int(us) => ((us - begun_us) / SECOND_US).to_string(),
        _ => "?".into(),
    };
    for row in stays {
        let (from, to) = (second(&row[2]), second(&row[3]));
        let (lat, lon) = (row[4].float(), row[5].float());
        writeln!(text, "stay {from}-{to} s at {lat:.4} {lon:.4}, {:.0} m, {} pings", row[6].float(), row[7].float())
            .unwrap();
    }
    expected.assert_eq(&text);
}

/// It stands until 53 s, from 227 to 347 s, and from 411 s to the end, by the speed between its fixes.
#[test]
fn a_car_stops() {
    let config = TrackConfig { stay_min_us: MINUTE_US, ..TrackConfig::default() };
    check(
        "around-visnjan-with-car.gpx",
        config,
        &expect![[r#"
        n_pings 104
        raw_m 2733
        distance_m 2667
        gap_m 0
        moving_s 238
        stationary_s 276
        stay 0-65 s at 45.2734 13.7140, 43 m, 12 pings
        stay 208-359 s at 45.2764 13.7199, 86 m, 29 pings
        stay 430-? s at 45.2733 13.7140, 5 m, 4 pings
    "#]],
    );
}

/// Half a kilometre an hour up a mountain: within 100 m for five minutes again and again, and yet on the way.
#[test]
fn a_mountain_tour_counts_while_it_climbs() {
    check(
        "mountain-tour.gpx",
        TrackConfig::default(),
        &expect![[r#"
        n_pings 3540
        raw_m 18189
        distance_m 17380
        gap_m 0
        moving_s 31056
        stationary_s 5568
        stay 0-896 s at 47.4846 10.9758, 91 m, 76 pings
        stay 3246-3847 s at 47.4951 10.9681, 98 m, 48 pings
        stay 5173-5625 s at 47.4928 10.9709, 83 m, 41 pings
        stay 7759-8346 s at 47.4916 10.9865, 96 m, 55 pings
        stay 8496-9668 s at 47.4929 10.9890, 98 m, 107 pings
        stay 9682-10723 s at 47.4943 10.9879, 99 m, 102 pings
        stay 10733-12649 s at 47.4963 10.9876, 97 m, 170 pings
        stay 12657-13547 s at 47.4974 10.9895, 100 m, 82 pings
        stay 13557-14379 s at 47.4986 10.9917, 99 m, 82 pings
        stay 14391-15451 s at 47.4998 10.9946, 98 m, 99 pings
        stay 15460-16549 s at 47.5006 10.9965, 96 m, 96 pings
        stay 16558-17141 s at 47.5015 10.9987, 99 m, 63 pings
        stay 17149-17714 s at 47.5018 11.0010, 97 m, 61 pings
        stay 17723-19444 s at 47.5015 11.0032, 97 m, 159 pings
        stay 20761-22319 s at 47.5063 11.0109, 99 m, 132 pings
        stay 22334-23012 s at 47.5066 11.0132, 98 m, 67 pings
        stay 23023-23785 s at 47.5065 11.0153, 97 m, 78 pings
        stay 24181-25028 s at 47.5094 11.0138, 98 m, 80 pings
        stay 25556-26721 s at 47.5092 11.0094, 99 m, 75 pings
        stay 26730-27310 s at 47.5097 11.0074, 99 m, 50 pings
        stay 28329-29309 s at 47.5096 10.9988, 99 m, 86 pings
        stay 29320-30072 s at 47.5086 10.9970, 98 m, 72 pings
        stay 31744-32575 s at 47.5051 10.9835, 88 m, 70 pings
        stay 34850-35261 s at 47.4928 10.9654, 98 m, 40 pings
    "#]],
    );
}
