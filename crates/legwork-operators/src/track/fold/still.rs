//! What standing still looks like, and what moving does: sums over fixes, without rows.
//!
//! Noise of a receiver and movement differ in how fixes follow each other. Noise jumps: its legs turn back on each other, and its scatter is
//! explained by its steps. Movement goes on: its legs point the same way, and its scatter is wider than its steps are long.

use serde::{Deserialize, Serialize};

use crate::track::place::{Offset, Place};

/// A device that stands still is within this many times the noise of its own fixes from their mean. *Source:* of fixes with normal noise,
/// one in 500 is farther out.
const NOISE_FACTOR: f64 = 2.5;

/// Legs outside the noise that may show a departure.
const DEPARTURE_LEGS: u32 = 3;

/// A departure is straight: what each leg goes on with of the one before, as a share of their squares. Equal legs in one direction go on by
/// two thirds or more, steps in random directions by 0.
const STRAIGHTNESS_MIN: f64 = 0.4;

/// Legs that turn back by more than this share of their squares are noise: independent errors of position turn back by a half, steps in random
/// directions by 0.
const TURN_BACK: f64 = -1.0 / 3.0;

/// A fix between two others that could only be passed at a higher acceleration is off the path, metres per second squared. *Source:* everyday
/// driving stays below 3, full braking on dry asphalt is 7 to 9.
const ACCELERATION_MAX: f64 = 6.0;

/// A moment and a place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) time_us: i64,
    pub(super) place: Place,
}

/// Legs that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    n_legs: u32,
    last: Offset,
    /// Sum of the products of each leg with the one before.
    turn_m2: f64,
    /// Sum of the squares of all legs.
    square_m2: f64,
}

impl Run {
    #[inline(always)]
    pub(super) fn push(&mut self, leg: Offset) {
        if self.n_legs > 0 {
            self.turn_m2 += leg.dot(&self.last);
        }
        self.square_m2 += leg.dot(&leg);
        self.n_legs += 1;
        self.last = leg;
    }

    pub(super) fn n_legs(&self) -> u32 {
        self.n_legs
    }

    /// Whether the legs turn back on each other, as noise does.
    #[inline(always)]
    fn turns_back(&self) -> bool {
        self.turn_m2 < TURN_BACK * self.square_m2
    }

    /// Whether the legs lead away.
    #[inline(always)]
    pub(super) fn is_departure(&self) -> bool {
        self.n_legs >= DEPARTURE_LEGS && self.turn_m2 >= STRAIGHTNESS_MIN * self.square_m2
    }
}

/// The way since the anchor, from which metres are counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) anchor: Point,
    /// The last fix that is on the path for sure.
    vertex: Point,
    /// The path from the anchor to there.
    path_m: f64,
    run: Run,
}

impl Way {
    pub(super) fn new(anchor: Point) -> Way {
        Way { anchor, vertex: anchor, path_m: 0.0, run: Run::default() }
    }

    /// Goes on by a leg from `last` to `next`: now `last` can be judged.
    #[inline(always)]
    pub(super) fn push(&mut self, last: &Point, next: &Point, leg: Offset) {
        self.run.push(leg);
        if last.time_us != self.vertex.time_us && self.is_on_path(last, next) {
            self.path_m += self.vertex.place.distance_m(&last.place);
            self.vertex = *last;
        }
    }

    /// Whether the fix can be passed on the way to the next: how far it is off the straight line, halved twice by the times to and from it,
    /// is an acceleration.
    #[inline(always)]
    fn is_on_path(&self, fix: &Point, next: &Point) -> bool {
        let (in_s, out_s) =
            ((fix.time_us - self.vertex.time_us) as f64 / 1e6, (next.time_us - fix.time_us) as f64 / 1e6);
        let (there, on) = (self.vertex.place.offset(&fix.place), self.vertex.place.offset(&next.place));
        let share = in_s / (in_s + out_s);
        let off = Offset { east_m: there.east_m - share * on.east_m, north_m: there.north_m - share * on.north_m };
        2.0 * off.length_m() <= ACCELERATION_MAX * in_s * out_s
    }

    /// Metres from the anchor to a fix: along the path, or, where the legs turn back on each other, `chord_m`.
    #[inline(always)]
    pub(super) fn length_m(&self, fix: &Point, chord_m: f64) -> f64 {
        if self.run.turns_back() { chord_m } else { self.path_m + self.vertex.place.distance_m(&fix.place) }
    }
}

/// Fixes at which the device may stand still, and how they scatter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Still {
    pub(super) first: Point,
    n_fixes: u32,
    /// Sum of the offsets from the first.
    sum: Offset,
    /// Sum of the squares of the offsets.
    square_m2: f64,
    /// Sum of the squares of the legs between them.
    steps_m2: f64,
    /// A fix was out of reach: another group begins at the next fix that counts.
    pub(super) is_over: bool,
}

impl Still {
    pub(super) fn new(first: Point) -> Still {
        Still { first, n_fixes: 1, sum: Offset::default(), square_m2: 0.0, steps_m2: 0.0, is_over: false }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, offset: Offset, leg_m: f64) {
        self.n_fixes += 1;
        self.sum.east_m += offset.east_m;
        self.sum.north_m += offset.north_m;
        self.square_m2 += offset.dot(&offset);
        self.steps_m2 += leg_m * leg_m;
    }

    #[inline(always)]
    fn mean(&self) -> Offset {
        let n_fixes = f64::from(self.n_fixes);
        Offset { east_m: self.sum.east_m / n_fixes, north_m: self.sum.north_m / n_fixes }
    }

    /// Distance of a place from the mean of the fixes, both as offsets from the first.
    #[inline(always)]
    pub(super) fn centre_distance_m(&self, offset: &Offset) -> f64 {
        let mean = self.mean();
        Offset { east_m: offset.east_m - mean.east_m, north_m: offset.north_m - mean.north_m }.length_m()
    }

    /// From the first fix to the mean of all.
    pub(super) fn approach_m(&self) -> f64 {
        self.mean().length_m()
    }

    pub(super) fn centre(&self) -> Place {
        self.first.place.at(&self.mean())
    }

    /// Variance of a fix around where the device is, as the steps show it: two independent errors are twice as far apart. *Source:* the
    /// mean square successive difference, von Neumann et al. 1941.
    #[inline(always)]
    fn noise_m2(&self) -> f64 {
        0.5 * self.steps_m2 / f64::from(self.n_fixes - 1).max(1.0)
    }

    /// How far from the mean the noise reaches, and at least `gate_m`.
    #[inline(always)]
    pub(super) fn core_m(&self, gate_m: f64) -> f64 {
        gate_m.max(NOISE_FACTOR * self.noise_m2().sqrt())
    }

    /// Whether the fixes are those of a device that stands still, given how far from their mean the last is: beyond their noise they scatter
    /// by less than `gate_m`, and the last is among them.
    pub(super) fn is_still(&self, from_centre_m: f64, gate_m: f64) -> bool {
        let n_fixes = f64::from(self.n_fixes);
        let mean = self.mean();
        let spread_m2 = (self.square_m2 - n_fixes * mean.dot(&mean)) / (n_fixes - 1.0).max(1.0);
        spread_m2 - self.noise_m2() <= gate_m * gate_m && from_centre_m <= self.core_m(gate_m)
    }
}
