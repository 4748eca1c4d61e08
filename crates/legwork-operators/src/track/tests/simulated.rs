//! Simulated tracks, of which the truth is known.

use legwork_types::Table;
use legwork_types::time::{SECOND_US, TimeConfig};

use super::{Event, Lane, Random, place, sum};
use crate::track::TrackConfig;

const START_S: i64 = 1_700_000_000;

/// A fix so many metres north and east, with noise.
fn fix(time_s: f64, north_m: f64, east_m: f64, noise_m: f64, random: &mut Random) -> Event {
    let (lat, lon) = place(north_m + random.normal() * noise_m, east_m + random.normal() * noise_m);
    Event {
        device: "d".into(),
        time_us: START_S * SECOND_US + (time_s * 1e6) as i64,
        lat,
        lon,
        accuracy_m: Some((noise_m * 1.5) as f32),
        ..Event::default()
    }
}

fn run(events: &[Event]) -> Lane {
    let mut lane = Lane::new(TimeConfig::default(), TrackConfig::default());
    for batch in events.chunks(100) {
        lane.apply(batch);
    }
    lane
}

fn total(lane: &mut Lane, column: &str) -> f64 {
    sum(lane, Table::DeviceMovement, "d", column)
}

/// 54 km in an hour: 15 m/s, turning each ten minutes.
fn drive(every_s: f64, random: &mut Random) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut north_m, mut east_m, mut time_s) = (0.0, 0.0, 0.0);
    while time_s <= 3600.0 {
        events.push(fix(time_s, north_m, east_m, 4.0, random));
        let heading = (time_s / 600.0).floor();
        north_m += 15.0 * every_s * f64::cos(heading);
        east_m += 15.0 * every_s * f64::sin(heading);
        time_s += every_s;
    }
    events
}

#[test]
fn a_desk_is_one_stay() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let (mut events, mut time_s) = (Vec::new(), 0.0);
        while time_s < 8.0 * 3600.0 {
            let mut event = fix(time_s, 0.0, 0.0, 12.0, &mut random);
            event.accuracy_m = event.accuracy_m.filter(|_| seed % 2 == 0);
            events.push(event);
            time_s += 15.0 + 45.0 * random.unit();
        }
        let mut lane = run(&events);
        let distance_m = total(&mut lane, "distance_m");
        assert!(distance_m < 60.0, "seed {seed}: {distance_m} m");
        assert_eq!(lane.rows("stays").len(), 1, "seed {seed}");
        assert!(lane.rows("trips").is_empty(), "seed {seed}");
    }
}

#[test]
fn a_drive_is_as_long_as_it_is() {
    let tolerance = 0.02;
    for (seed, every_s) in (1..=4).flat_map(|seed| [1.0, 2.0, 5.0, 10.0, 30.0, 60.0].map(|every_s| (seed, every_s))) {
        let mut random = Random(seed);
        let events = drive(every_s, &mut random);
        let distance_m = total(&mut run(&events), "distance_m");
        eprintln!("54 km, a fix each {every_s} s: {distance_m:.0} m");
        assert!((distance_m / 54_000.0 - 1.0).abs() < tolerance, "each {every_s} s: {distance_m} m");

        let mut teleported = events.clone();
        for (n, km) in [(1, 40.0), (2, 65.0), (3, 90.0)] {
            let at = teleported.len() * n / 4;
            teleported[at].lat += km / 111.2;
        }
        let mut lane = run(&teleported);
        let distance_m = total(&mut lane, "distance_m");
        assert!((distance_m / 54_000.0 - 1.0).abs() < tolerance, "teleported, each {every_s} s: {distance_m} m");
        assert_eq!(total(&mut lane, "gap_m"), 0.0);
        assert_eq!(total(&mut lane, "n_filtered_speed"), 3.0);
    }
}

#[test]
fn a_hole_is_a_gap() {
    let mut events = drive(5.0, &mut Random(1));
    let half = events.len() / 2;
    let far = place(30_000.0, 0.0).0 - place(0.0, 0.0).0;
    for event in &mut events[half..] {
        event.time_us += 7200 * SECOND_US;
        event.lat += far;
    }
    let (a, b) = (&events[half - 1], &events[half]);
    let chord_m = legwork_types::geo::haversine_m(a.lat, a.lon, b.lat, b.lon);
    let mut lane = run(&events);
    assert!((total(&mut lane, "gap_m") - chord_m).abs() < 1e-6);
    assert!((total(&mut lane, "distance_m") / 54_000.0 - 1.0).abs() < 0.02);
    assert_eq!(total(&mut lane, "gap_s"), 7205.0);
}

#[test]
fn mock_fixes_lengthen_nothing() {
    let events = drive(5.0, &mut Random(1));
    let mut faked = events.clone();
    for (n, real) in events.iter().enumerate().filter(|(n, _)| n % 7 == 3) {
        let mut mock = real.clone();
        mock.time_us += SECOND_US;
        mock.lat += 0.01 * (n % 5) as f64;
        mock.mock = Some(true);
        faked.push(mock);
    }
    faked.sort_by_key(|e| e.time_us);
    let (mut real, mut lane) = (run(&events), run(&faked));
    assert_eq!(total(&mut lane, "distance_m"), total(&mut real, "distance_m"));
    assert_eq!(total(&mut lane, "n_filtered_mock"), (faked.len() - events.len()) as f64);
}

#[test]
fn stops_are_stays() {
    for every_s in [5.0, 15.0, 30.0] {
        let mut random = Random(3);
        let (mut events, mut time_s, mut north_m) = (Vec::new(), 0.0, 0.0);
        for _ in 0..6 {
            for phase_s in [600.0, 900.0] {
                let until_s = time_s + phase_s;
                while time_s < until_s {
                    events.push(fix(time_s, north_m, 0.0, 4.0, &mut random));
                    time_s += every_s;
                    north_m += if phase_s == 600.0 { 12.0 * every_s } else { 0.0 };
                }
            }
        }
        let mut lane = run(&events);
        assert_eq!(lane.rows("stays").len(), 6, "each {every_s} s");
        assert_eq!(lane.rows("trips").len(), 6, "each {every_s} s");
        let distance_m = total(&mut lane, "distance_m");
        eprintln!("stop and go, {north_m} m, a fix each {every_s} s: {distance_m:.0} m");
        assert!((distance_m / north_m - 1.0).abs() < 0.02, "each {every_s} s: {distance_m} m");
        let seconds: f64 = ["moving_s", "stationary_s", "gap_s"].map(|c| total(&mut lane, c)).iter().sum();
        assert!((seconds - (time_s - every_s)).abs() < 1e-6);
    }
}

/// A walk of 1.2 m/s to and fro over 70 m, with fixes each five seconds that wander by a few metres, as those of a phone outdoors do.
#[test]
fn a_walk_within_the_stay_radius_counts() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let (mut events, mut walked_m) = (Vec::new(), 0.0);
        let (mut north_error_m, mut east_error_m) = (0.0, 0.0);
        for n in 0..240 {
            let time_s = f64::from(n) * 5.0;
            // Ten minutes at rest, ten of walking.
            let is_walking = n >= 120;
            let at = walked_m % 140.0;
            let north_m = if at > 70.0 { 140.0 - at } else { at };
            north_error_m = 0.95 * north_error_m + random.normal() * 0.3;
            east_error_m = 0.95 * east_error_m + random.normal() * 0.3;
            events.push(fix(time_s, north_m + north_error_m, east_error_m, 0.0, &mut random));
            walked_m += if is_walking { 6.0 } else { 0.0 };
        }
        let mut lane = run(&events);
        assert_eq!(lane.rows("stays").len(), 1, "seed {seed}");
        let distance_m = total(&mut lane, "distance_m");
        assert!((distance_m / walked_m - 1.0).abs() < 0.15, "seed {seed}: {distance_m} of {walked_m} m");
        let moving_s = total(&mut lane, "moving_s");
        assert!((moving_s - 600.0).abs() < 60.0, "seed {seed}: {moving_s} s");
    }
}

/// A receiver that lost its signal shows the old place for a while and then leaps; and one that leaps away and comes back.
#[test]
fn a_leap_counts_when_it_was_true() {
    let drive = |from: i64, to: i64, shift_m: f64| {
        (from..to).map(move |s| fix(s as f64, 15.0 * s as f64 + shift_m, 0.0, 0.0, &mut Random(1))).collect::<Vec<_>>()
    };
    let mut through_tunnel = drive(0, 300, 0.0);
    // Forty seconds at the tunnel's mouth, of which the way is 600 m.
    through_tunnel.extend((300..340).map(|s| fix(s as f64, 15.0 * 299.0, 0.0, 0.0, &mut Random(1))));
    through_tunnel.extend(drive(340, 600, 0.0));
    let distance_m = total(&mut run(&through_tunnel), "distance_m");
    assert!((distance_m / (599.0 * 15.0) - 1.0).abs() < 0.01, "{distance_m} m");

    let mut astray = drive(0, 300, 0.0);
    astray.extend(drive(300, 310, 3_000.0));
    astray.extend(drive(310, 600, 0.0));
    let distance_m = total(&mut run(&astray), "distance_m");
    assert!((distance_m / (599.0 * 15.0) - 1.0).abs() < 0.02, "{distance_m} m");

    // Half an hour elsewhere, too far to be a receiver's error.
    let mut far = drive(0, 300, 0.0);
    far.extend(drive(300, 2100, 60_000.0));
    far.extend(drive(2100, 2400, 0.0));
    let distance_m = total(&mut run(&far), "distance_m");
    assert!((distance_m / (2399.0 * 15.0) - 1.0).abs() < 0.01, "{distance_m} m");
}

/// A phone whose clock was at the earliest time that is accepted, and then right.
#[test]
fn standing_still_for_decades_is_counted_whole() {
    let years_s = 46.5 * 365.0 * 86_400.0;
    let mut random = Random(1);
    let events = [fix(-years_s, 0.0, 0.0, 0.0, &mut random), fix(60.0, 0.0, 0.0, 0.0, &mut random)];
    let mut lane = run(&events);
    assert_eq!(total(&mut lane, "stationary_s"), years_s + 60.0);
    assert_eq!(total(&mut lane, "n_pings"), 2.0);
}
