//! A naive track: all events sorted, whole passes over lists, nothing kept between calls. Written from the rules, not from the operator.

use std::collections::{BTreeMap, BTreeSet};

use legwork_types::geo::haversine_m;
use legwork_types::time::{TimeConfig, window_start};

#[path = "oracle_metres.rs"]
mod metres;

use super::Event;
use crate::track::TrackConfig;

/// What the fixes of a row add up to: n_pings, raw_m, distance_m, gap_m, moving, still, gap (us), speed max, first, last,
/// n_filtered_accuracy, n_filtered_speed, n_filtered_mock, odometer.
#[derive(Clone, Debug, Default)]
pub(super) struct Movement {
    pub(super) n_pings: i64,
    pub(super) raw_m: f64,
    pub(super) distance_m: f64,
    pub(super) gap_m: f64,
    pub(super) moving_us: i64,
    pub(super) still_us: i64,
    pub(super) gap_us: i64,
    pub(super) speed_max: Option<f32>,
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    pub(super) n_accuracy: i64,
    pub(super) n_speed: i64,
    pub(super) n_mock: i64,
    pub(super) odometer_m: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stay {
    pub(super) start_us: i64,
    pub(super) end_us: Option<i64>,
    pub(super) lat: f64,
    pub(super) lon: f64,
    pub(super) n_pings: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trip {
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    pub(super) distance_m: f64,
}

/// Rows of one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) movement: BTreeMap<(i64, Option<String>), Movement>,
    pub(super) stays: Vec<Stay>,
    pub(super) trips: Vec<Trip>,
    pub(super) newest: Option<Event>,
    /// Fixes that were not left out.
    pub(super) n_kept: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Kept,
    Invalid,
    Mock,
    Accuracy,
    Speed,
}

#[derive(Clone, Copy, Default)]
struct Part {
    distance_m: f64,
    gap_m: f64,
    moving_us: i64,
    still_us: i64,
    gap_us: i64,
}

fn metres(a: &Event, b: &Event) -> f64 {
    haversine_m(a.lat, a.lon, b.lat, b.lon)
}

/// Larger by (sent time, then content) stays; content as the tables show it, missing values first.
fn beats(a: &Event, b: &Event) -> bool {
    let key = |e: &Event| {
        let f32s = |v: Option<f32>| v.map(f64::from);
        (
            e.sent_us,
            [Some(e.lat), Some(e.lon), f32s(e.accuracy_m), f32s(e.speed_mps)],
            e.mock.unwrap_or(false),
            e.odometer_m,
            e.rep.clone(),
            f32s(e.battery_pct),
        )
    };
    key(a).partial_cmp(&key(b)).unwrap().is_gt()
}

/// The answer for one device over all its events.
pub(super) fn answer(events: &[Event], config: &TrackConfig, time: &TimeConfig) -> Answer {
    let mut unique: BTreeMap<i64, Event> = BTreeMap::new();
    for event in events {
        match unique.get(&event.time_us) {
            Some(held) if !beats(event, held) => {}
            _ => {
                unique.insert(event.time_us, event.clone());
            }
        }
    }
    let pings: Vec<Event> = unique.into_values().collect();
    let fates = fates(&pings, config);
    let kept: Vec<usize> = (0..pings.len()).filter(|&i| fates[i] == Fate::Kept).collect();
    let mut parts = vec![Part::default(); pings.len()];
    let fixes: Vec<&Event> = kept.iter().map(|&i| &pings[i]).collect();
    let mut walk = Walk::new(fixes, config);
    walk.divide();
    walk.count();
    for (at, &ping) in kept.iter().enumerate() {
        parts[ping] = walk.parts[at];
    }
    let (trips, stays) = (walk.trips(), walk.stays);
    Answer {
        movement: movement(&pings, &fates, &parts, time),
        stays,
        trips,
        newest: pings.last().cloned(),
        n_kept: kept.len(),
    }
}

fn fates(pings: &[Event], config: &TrackConfig) -> Vec<Fate> {
    let mut fates: Vec<Fate> = Vec::new();
    for ping in pings {
        let accuracy_m = ping.accuracy_m.map_or(0.0, f64::from);
        fates.push(if (ping.lat == 0.0 && ping.lon == 0.0) || accuracy_m < 0.0 {
            Fate::Invalid
        } else if ping.mock == Some(true) {
            Fate::Mock
        } else if accuracy_m > config.accuracy_m_max {
            Fate::Accuracy
        } else {
            Fate::Kept
        });
    }
    let good: Vec<usize> = (0..pings.len()).filter(|&i| fates[i] == Fate::Kept).collect();
    let too_fast = |a: usize, b: usize| is_too_fast(&pings[a], &pings[b], config);
    let mut last_kept: Option<usize> = None;
    for (at, &ping) in good.iter().enumerate() {
        let next = good.get(at + 1);
        if let (Some(last), Some(&next)) = (last_kept, next)
            && too_fast(last, ping)
            && too_fast(ping, next)
        {
            fates[ping] = Fate::Speed;
        } else {
            last_kept = Some(ping);
        }
    }
    fates
}

fn is_too_fast(a: &Event, b: &Event, config: &TrackConfig) -> bool {
    metres(a, b) * 1e6 > config.speed_mps_max * (b.time_us - a.time_us) as f64
}

struct Walk<'a> {
    fixes: Vec<&'a Event>,
    config: &'a TrackConfig,
    parts: Vec<Part>,
    /// Breaks over which the device stood still.
    near: BTreeSet<usize>,
    /// Fixes at which a cluster begins because they are out of reach of the one before.
    starts: BTreeSet<usize>,
    stays: Vec<Stay>,
    /// First and last fix of each trip.
    trips: Vec<(usize, usize)>,
}

/// How a cluster that begins at some fix goes on.
enum Outcome {
    /// A stay as of this fix.
    Stay(usize),
    /// The next fix is out of reach.
    Left(usize),
    /// A gap lies before this fix.
    Gap(usize),
    /// Standing still over a gap, out of reach of the cluster: a cluster of its own from the fix before.
    Still(usize),
    /// The end of the events.
    End,
}

impl<'a> Walk<'a> {
    fn new(fixes: Vec<&'a Event>, config: &'a TrackConfig) -> Walk<'a> {
        let parts = vec![Part::default(); fixes.len()];
        let (near, starts) = (BTreeSet::new(), BTreeSet::new());
        Walk { fixes, config, parts, near, starts, stays: vec![], trips: vec![] }
    }

    fn blur_m(&self, i: usize) -> f64 {
        self.config.anchor_accuracy_factor * self.fixes[i].accuracy_m.map_or(0.0, f64::from)
    }

    fn reach_m(&self, i: usize) -> f64 {
        self.config.stay_radius_m.max(self.blur_m(i))
    }

    fn gate_m(&self, i: usize) -> f64 {
        self.config.anchor_m_min.max(self.blur_m(i))
    }

    fn leg_us(&self, i: usize) -> i64 {
        self.fixes[i].time_us - self.fixes[i - 1].time_us
    }

    fn metres(&self, a: usize, b: usize) -> f64 {
        metres(self.fixes[a], self.fixes[b])
    }

    fn is_too_fast(&self, i: usize) -> bool {
        is_too_fast(self.fixes[i - 1], self.fixes[i], self.config)
    }

    fn is_break(&self, i: usize) -> bool {
        self.is_too_fast(i) || self.leg_us(i) > self.config.gap_max_us
    }

    fn outcome(&self, start: usize) -> Outcome {
        for i in start + 1..self.fixes.len() {
            let is_within = self.metres(start, i) <= self.reach_m(i);
            if self.is_break(i) && self.metres(i - 1, i) > self.config.stay_radius_m {
                return Outcome::Gap(i);
            }
            if !is_within {
                return if self.is_break(i) { Outcome::Still(i) } else { Outcome::Left(i) };
            }
            let has_lasted = self.fixes[i].time_us - self.fixes[start].time_us >= self.config.stay_min_us;
            if has_lasted && !self.is_too_fast(i) {
                return Outcome::Stay(i);
            }
        }
        Outcome::End
    }

    /// Stays and trips, and where clusters begin.
    fn divide(&mut self) {
        let n_fixes = self.fixes.len();
        let (mut start, mut trip) = (0, 0);
        while start < n_fixes {
            let until = match self.outcome(start) {
                Outcome::Stay(_) => {
                    self.trips.push((trip, start));
                    let end = self.stay(start);
                    if end == n_fixes {
                        return;
                    }
                    trip = if self.is_break(end) { end } else { end - 1 };
                    start = end;
                    self.starts.insert(start);
                    continue;
                }
                Outcome::Left(i) => (i, i),
                Outcome::Gap(i) => {
                    self.trips.push((trip, i - 1));
                    trip = i;
                    (i, i)
                }
                Outcome::Still(i) => {
                    self.near.insert(i);
                    (i, i - 1)
                }
                Outcome::End => {
                    self.trips.push((trip, n_fixes - 1));
                    (n_fixes, n_fixes)
                }
            };
            let near: Vec<usize> = (start + 1..until.0).filter(|&i| self.is_break(i)).collect();
            self.near.extend(near);
            if until.0 == until.1 {
                self.starts.insert(until.1);
            }
            start = until.1;
        }
    }

    /// A stay; gives the first fix behind it.
    fn stay(&mut self, start: usize) -> usize {
        let Outcome::Stay(recognised) = self.outcome(start) else { unreachable!() };
        let mut members: Vec<usize> = (start..=recognised).collect();
        let mut end = recognised + 1;
        let mut has_ended = false;
        while end < self.fixes.len() {
            let (lat, lon) = self.mean(&members);
            let from_centre_m = haversine_m(lat, lon, self.fixes[end].lat, self.fixes[end].lon);
            let is_member = if self.is_break(end) {
                self.metres(end - 1, end) <= self.config.stay_radius_m || from_centre_m <= self.config.stay_radius_m
            } else {
                from_centre_m <= self.reach_m(end)
            };
            if !is_member {
                has_ended = true;
                break;
            }
            members.push(end);
            end += 1;
        }
        self.near.extend(members.iter().skip(1).filter(|&&i| is_break_of(&self.fixes, self.config, i)));
        let (lat, lon) = self.mean(&members);
        let end_us = has_ended.then(|| self.fixes[end - 1].time_us);
        let n_pings = members.len() as i64;
        self.stays.push(Stay { start_us: self.fixes[start].time_us, end_us, lat, lon, n_pings });
        end
    }

    fn mean(&self, members: &[usize]) -> (f64, f64) {
        let n = members.len() as f64;
        let lat: f64 = members.iter().map(|&i| self.fixes[i].lat).sum();
        let lon: f64 = members.iter().map(|&i| self.fixes[i].lon).sum();
        (lat / n, lon / n)
    }

    /// Trips where there was movement.
    fn trips(&self) -> Vec<Trip> {
        let distance_m = |&(from, to): &(usize, usize)| -> f64 {
            self.parts[from..=to].iter().skip(1).map(|part| part.distance_m).sum()
        };
        let moved = self.trips.iter().filter(|trip| distance_m(trip) > 0.0);
        moved
            .map(|trip| Trip {
                start_us: self.fixes[trip.0].time_us,
                end_us: self.fixes[trip.1].time_us,
                distance_m: distance_m(trip),
            })
            .collect()
    }
}

fn is_break_of(fixes: &[&Event], config: &TrackConfig, i: usize) -> bool {
    let (a, b) = (fixes[i - 1], fixes[i]);
    is_too_fast(a, b, config) || b.time_us - a.time_us > config.gap_max_us
}

fn movement(
    pings: &[Event],
    fates: &[Fate],
    parts: &[Part],
    time: &TimeConfig,
) -> BTreeMap<(i64, Option<String>), Movement> {
    let mut rows: BTreeMap<(i64, Option<String>), Movement> = BTreeMap::new();
    let mut reading: Option<f64> = None;
    for (i, ping) in pings.iter().enumerate() {
        let row = rows.entry((window_start(ping.time_us, time.window_us), ping.rep.clone())).or_default();
        if row.n_pings == 0 {
            row.first_us = ping.time_us;
        }
        row.last_us = ping.time_us;
        row.n_pings += 1;
        row.raw_m += if i == 0 { 0.0 } else { metres(&pings[i - 1], ping) };
        row.distance_m += parts[i].distance_m;
        row.gap_m += parts[i].gap_m;
        row.moving_us += parts[i].moving_us;
        row.still_us += parts[i].still_us;
        row.gap_us += parts[i].gap_us;
        row.n_accuracy += i64::from(fates[i] == Fate::Accuracy);
        row.n_speed += i64::from(fates[i] == Fate::Speed);
        row.n_mock += i64::from(fates[i] == Fate::Mock);
        if let Some(speed) = ping.speed_mps.filter(|speed| *speed >= 0.0) {
            row.speed_max = Some(row.speed_max.map_or(speed, |max| max.max(speed)));
        }
        if let Some(now_m) = ping.odometer_m {
            if let Some(before_m) = reading.filter(|before_m| now_m >= *before_m) {
                row.odometer_m = Some(row.odometer_m.unwrap_or(0.0) + now_m - before_m);
            }
            reading = Some(now_m);
        }
    }
    rows
}
