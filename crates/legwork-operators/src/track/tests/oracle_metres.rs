//! Metres and seconds of the naive track: lists of fixes, and sums over them anew for each question.

use legwork_types::geo::EARTH_RADIUS_M;

use super::{Event, Part, Walk, haversine_m};

type Vector = (f64, f64);

fn dot(a: Vector, b: Vector) -> f64 {
    a.0 * b.0 + a.1 * b.1
}

fn minus(a: Vector, b: Vector) -> Vector {
    (a.0 - b.0, a.1 - b.1)
}

fn length(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

/// Metres east and north.
fn vector(a: &Event, b: &Event) -> Vector {
    let mut lon = b.lon - a.lon;
    if lon.abs() > 180.0 {
        lon -= 360.0 * lon.signum();
    }
    let east = lon.to_radians() * a.lat.to_radians().cos() * EARTH_RADIUS_M;
    (east, (b.lat - a.lat).to_radians() * EARTH_RADIUS_M)
}

/// How the legs of a list go on from each other: (sum of the products of neighbours, sum of squares).
fn straightness(legs: &[Vector]) -> (f64, f64) {
    (legs.windows(2).map(|two| dot(two[1], two[0])).sum(), legs.iter().map(|&leg| dot(leg, leg)).sum())
}

/// Fixes at which the device stands, or may: with the legs between them that count as steps.
struct Group {
    members: Vec<usize>,
    steps_m: Vec<f64>,
    /// One was out of reach.
    is_over: bool,
}

impl Group {
    fn new(first: usize) -> Group {
        Group { members: vec![first], steps_m: vec![], is_over: false }
    }
}

enum Pace {
    /// Since an anchor.
    Moves(usize),
    /// Fixes outside of the noise since the last within.
    Stands(Vec<usize>),
}

impl Walk<'_> {
    fn offsets(&self, group: &Group) -> Vec<Vector> {
        group.members.iter().map(|&i| vector(self.fixes[group.members[0]], self.fixes[i])).collect()
    }

    fn mean_of(&self, group: &Group) -> Vector {
        let (offsets, n) = (self.offsets(group), group.members.len() as f64);
        (offsets.iter().map(|o| o.0).sum::<f64>() / n, offsets.iter().map(|o| o.1).sum::<f64>() / n)
    }

    fn centre_distance_m(&self, group: &Group, i: usize) -> f64 {
        length(minus(vector(self.fixes[group.members[0]], self.fixes[i]), self.mean_of(group)))
    }

    fn noise_m2(group: &Group) -> f64 {
        group.steps_m.iter().map(|step_m| step_m * step_m).sum::<f64>() * 0.5
            / (group.members.len() as f64 - 1.0).max(1.0)
    }

    fn core_m(&self, group: &Group, i: usize) -> f64 {
        self.gate_m(i).max(2.5 * Self::noise_m2(group).sqrt())
    }

    fn is_still(&self, group: &Group, i: usize) -> bool {
        let (mean, n) = (self.mean_of(group), group.members.len() as f64);
        let spread_m2: f64 = self.offsets(group).iter().map(|&o| dot(minus(o, mean), minus(o, mean))).sum();
        let wander_m2 = spread_m2 / (n - 1.0) - Self::noise_m2(group);
        wander_m2 <= self.gate_m(i) * self.gate_m(i) && self.centre_distance_m(group, i) <= self.core_m(group, i)
    }

    fn leg(&self, i: usize) -> Vector {
        vector(self.fixes[i - 1], self.fixes[i])
    }

    /// From the anchor to a fix.
    fn path_m(&self, anchor: usize, end: usize) -> f64 {
        let legs: Vec<Vector> = (anchor + 1..=end).map(|i| self.leg(i)).collect();
        let (turn, square) = straightness(&legs);
        if 3.0 * turn < -square {
            return self.metres(anchor, end);
        }
        let mut path = vec![anchor];
        for i in anchor + 1..end {
            let from = path[path.len() - 1];
            let seconds = |a: usize, b: usize| (self.fixes[b].time_us - self.fixes[a].time_us) as f64 / 1e6;
            let (before_s, after_s) = (seconds(from, i), seconds(i, i + 1));
            let there = vector(self.fixes[from], self.fixes[i + 1]);
            let share = before_s / (before_s + after_s);
            let off = minus(vector(self.fixes[from], self.fixes[i]), (share * there.0, share * there.1));
            if 2.0 * length(off) <= 6.0 * before_s * after_s {
                path.push(i);
            }
        }
        path.push(end);
        path.windows(2).map(|two| self.metres(two[0], two[1])).sum()
    }

    /// All metres and seconds.
    pub(super) fn count(&mut self) {
        let (mut group, mut pace) = (Group::new(0), Pace::Moves(0));
        let mut leap: Option<(usize, f64)> = None;
        for i in 1..self.fixes.len() {
            let (leg_us, leg_m) = (self.leg_us(i), self.metres(i - 1, i));
            if self.is_break(i) && !self.near.contains(&i) {
                leap = self.leap(i, leap);
                let gap_m = if leg_us > self.config.gap_max_us { leg_m } else { 0.0 };
                self.parts[i] = Part { gap_m, gap_us: leg_us, ..Part::default() };
                (group, pace) = (Group::new(i), Pace::Moves(i));
                continue;
            }
            if self.is_break(i) {
                self.parts[i] = Part { still_us: leg_us, ..Part::default() };
                (group, pace) = self.stand_over(i, group, pace);
                continue;
            }
            let confirmed = leap.filter(|&(from, _)| self.can_reach(from, i));
            if confirmed.is_some() {
                leap = None;
            }
            (group, pace) = match pace {
                Pace::Stands(out) => self.stands(i, group, out),
                Pace::Moves(anchor) => self.moves(i, group, anchor, confirmed.is_some()),
            };
            self.parts[i].distance_m += confirmed.map_or(0.0, |(_, chord_m)| chord_m);
        }
    }

    fn can_reach(&self, from: usize, i: usize) -> bool {
        let us = (self.fixes[i].time_us - self.fixes[from].time_us) as f64;
        self.metres(from, i) * 1e6 <= self.config.speed_mps_max * us
    }

    fn leap(&self, i: usize, earlier: Option<(usize, f64)>) -> Option<(usize, f64)> {
        let from = earlier.map_or(i - 1, |(from, _)| from);
        let returns = earlier.is_some() && self.can_reach(from, i);
        let is_leap = self.is_too_fast(i) && self.leg_us(i) <= self.config.gap_max_us;
        let chord_m = self.metres(from, i);
        (is_leap && !returns && chord_m <= 5000.0).then_some((from, chord_m))
    }

    fn stand_over(&self, i: usize, mut group: Group, pace: Pace) -> (Group, Pace) {
        let stands = matches!(pace, Pace::Stands(_));
        if stands && self.centre_distance_m(&group, i) <= self.config.stay_radius_m {
            group.members.push(i);
            group.steps_m.push(0.0);
            (group, Pace::Stands(vec![]))
        } else if self.is_too_fast(i) {
            (Group::new(i), Pace::Moves(i))
        } else {
            (Group { members: vec![i - 1, i], steps_m: vec![0.0], is_over: false }, Pace::Stands(vec![]))
        }
    }

    fn stands(&mut self, i: usize, mut group: Group, mut out: Vec<usize>) -> (Group, Pace) {
        let from_centre_m = self.centre_distance_m(&group, i);
        if from_centre_m <= self.core_m(&group, i).min(self.reach_m(i)) {
            out.clear();
        } else {
            out.push(i);
            let legs: Vec<Vector> = out.iter().map(|&i| self.leg(i)).collect();
            let (turn, square) = straightness(&legs);
            let departs = out.len() >= 3 && turn >= 0.4 * square;
            if departs || from_centre_m > self.reach_m(i) {
                let (east, north) = self.mean_of(&group);
                let first = self.fixes[group.members[0]];
                let lat = first.lat + (north / EARTH_RADIUS_M).to_degrees();
                let lon = first.lon + (east / (EARTH_RADIUS_M * first.lat.to_radians().cos())).to_degrees();
                let mut distance_m = haversine_m(lat, lon, self.fixes[i].lat, self.fixes[i].lon);
                if departs {
                    let way_m: f64 = out.windows(2).map(|two| self.metres(two[0], two[1])).sum();
                    distance_m = distance_m.max(self.centre_distance_m(&self.without(&group, &out), out[0]) + way_m);
                }
                self.parts[i] = Part { distance_m, moving_us: self.leg_us(i), ..Part::default() };
                return (Group::new(i), Pace::Moves(i));
            }
        }
        self.parts[i] = Part { still_us: self.leg_us(i), ..Part::default() };
        group.members.push(i);
        group.steps_m.push(self.metres(i - 1, i));
        (group, Pace::Stands(out))
    }

    /// The group as it was before the fixes outside of the noise.
    fn without(&self, group: &Group, out: &[usize]) -> Group {
        let n = group.members.iter().filter(|&&i| i < out[0]).count();
        Group { members: group.members[..n].to_vec(), steps_m: vec![], is_over: false }
    }

    fn moves(&mut self, i: usize, mut group: Group, anchor: usize, has_leapt: bool) -> (Group, Pace) {
        let first = group.members[0];
        let is_far = length(vector(self.fixes[first], self.fixes[i])) > self.reach_m(i);
        group.is_over |= is_far || self.starts.contains(&i);
        let since_us = self.fixes[i].time_us - self.fixes[anchor].time_us;
        let is_movement = self.metres(anchor, i) > self.gate_m(i) && since_us >= 3_000_000;
        let mut anchor = anchor;
        if is_movement || has_leapt {
            self.parts[anchor + 1..i].fill(Part::default());
            let distance_m = self.path_m(anchor, i);
            self.parts[i] = Part { distance_m, moving_us: since_us, ..Part::default() };
            if group.is_over || has_leapt {
                return (Group::new(i), Pace::Moves(i));
            }
            anchor = i;
        } else {
            self.parts[i] = Part { still_us: self.leg_us(i), ..Part::default() };
        }
        group.members.push(i);
        group.steps_m.push(self.metres(i - 1, i));
        if group.is_over {
            let is_stuck = since_us >= self.config.stay_min_us;
            return if is_stuck { (Group::new(i), Pace::Moves(i)) } else { (group, Pace::Moves(anchor)) };
        }
        let lasted_us = self.fixes[i].time_us - self.fixes[first].time_us;
        if lasted_us >= self.config.stay_min_us && self.is_still(&group, i) {
            for member in first + 1..=i {
                self.parts[member] = Part { still_us: self.leg_us(member), ..Part::default() };
            }
            let approach_m = length(self.mean_of(&group));
            self.parts[i].distance_m = if approach_m > self.gate_m(i) { approach_m } else { 0.0 };
            return (group, Pace::Stands(vec![]));
        }
        if lasted_us >= 2 * self.config.stay_min_us {
            return (Group::new(i), Pace::Moves(i));
        }
        (group, Pace::Moves(anchor))
    }
}
