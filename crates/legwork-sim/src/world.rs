//! The standing part of the organisation: where it works, who belongs where, and local time. Nothing here changes after the start.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;
use legwork_types::time::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};

use crate::dice::{Dice, hash, hash_unit};

/// Metres per degree of a meridian on the sphere that distances are computed on.
const METRES_PER_DEGREE: f64 = legwork_types::geo::EARTH_RADIUS_M * std::f64::consts::PI / 180.0;

/// Radius of a territory, metres.
pub(crate) const TERRITORY_RADIUS_M: f64 = 7_000.0;

/// Corners of a territory's outline.
pub(crate) const N_CORNERS: usize = 8;

/// A city from which teams work.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) zone: Tz,
    pub(crate) city: &'static str,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    /// Direction in which there is land, degrees from north.
    pub(crate) inland_deg: f64,
    pub(crate) region: usize,
    pub(crate) currency: &'static str,
    /// Units of the currency for one of the base currency, about.
    pub(crate) per_base: f64,
}

pub(crate) const REGIONS: [&str; 3] = ["EMEA", "APAC", "AMER"];

const fn hub(
    zone: Tz,
    city: &'static str,
    position: (f64, f64, f64),
    region: usize,
    currency: &'static str,
    per_base: f64,
) -> Hub {
    Hub { zone, city, lat: position.0, lon: position.1, inland_deg: position.2, region, currency, per_base }
}

/// The first three cover the day: at any moment it is working time in one of them.
pub(crate) const HUBS: [Hub; 12] = [
    hub(Tz::Europe__Berlin, "Berlin", (52.52, 13.405, 180.0), 0, "EUR", 0.92),
    hub(Tz::Asia__Tokyo, "Tokyo", (35.70, 139.60, 315.0), 1, "JPY", 150.0),
    hub(Tz::America__Los_Angeles, "Los Angeles", (34.06, -118.20, 45.0), 2, "USD", 1.0),
    hub(Tz::America__New_York, "New York", (40.78, -74.10, 300.0), 2, "USD", 1.0),
    hub(Tz::Europe__London, "London", (51.51, -0.13, 330.0), 0, "GBP", 0.79),
    hub(Tz::Asia__Kolkata, "Pune", (18.52, 73.86, 90.0), 1, "INR", 84.0),
    hub(Tz::America__Sao_Paulo, "Sao Paulo", (-23.55, -46.63, 315.0), 2, "BRL", 5.4),
    hub(Tz::Australia__Sydney, "Sydney", (-33.87, 151.00, 290.0), 1, "AUD", 1.5),
    hub(Tz::Europe__Paris, "Paris", (48.86, 2.35, 135.0), 0, "EUR", 0.92),
    hub(Tz::America__Chicago, "Chicago", (41.88, -87.80, 260.0), 2, "USD", 1.0),
    hub(Tz::Africa__Johannesburg, "Johannesburg", (-26.20, 28.05, 0.0), 0, "ZAR", 18.0),
    hub(Tz::Asia__Singapore, "Kuala Lumpur", (3.15, 101.69, 60.0), 1, "MYR", 4.5),
];

/// A point in metres east and north of its hub.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub(crate) x_m: f32,
    pub(crate) y_m: f32,
}

impl Place {
    pub(crate) fn distance_m(self, other: Place) -> f64 {
        f64::from(self.x_m - other.x_m).hypot(f64::from(self.y_m - other.y_m))
    }
}

#[derive(Debug)]
pub(crate) struct Team {
    pub(crate) hub: usize,
    pub(crate) n_reps: u32,
    pub(crate) first_territory: u32,
    pub(crate) n_territories: u32,
}

#[derive(Debug)]
pub(crate) struct Territory {
    pub(crate) hub: usize,
    pub(crate) centre: Place,
    /// Distance of each corner from the centre, metres.
    pub(crate) corners_m: [f32; N_CORNERS],
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) place: Place,
    pub(crate) fence_m: f32,
}

/// Teams, territories and accounts. Rep `i` is in team `i % teams`, and owns accounts `i * accounts_per_rep ..`.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) n_reps: u32,
    pub(crate) accounts_per_rep: u32,
    pub(crate) teams: Vec<Team>,
    pub(crate) territories: Vec<Territory>,
    pub(crate) accounts: Vec<Account>,
    /// Per hub the hour since 1970 and its offset from UTC, microseconds.
    offsets: [(i64, i64); HUBS.len()],
}

impl World {
    pub(crate) fn new(seed: u64, n_reps: u32, accounts_per_rep: u32) -> World {
        let n_teams = (n_reps / 10).clamp(3, 300).min(n_reps.max(1));
        let mut world = World {
            seed,
            n_reps,
            accounts_per_rep,
            teams: Vec::new(),
            territories: Vec::new(),
            accounts: Vec::new(),
            offsets: [(i64::MIN, 0); HUBS.len()],
        };
        let mut dice = Dice::new(seed, 1);
        let mut n_territories_of_hub = [0u32; HUBS.len()];
        for team_idx in 0..n_teams {
            let hub = team_idx as usize % HUBS.len();
            let n_territories = if n_reps / n_teams >= 4 { 2 } else { 1 };
            let first_territory = world.territories.len() as u32;
            let n_reps = (n_reps + n_teams - 1 - team_idx) / n_teams;
            world.teams.push(Team { hub, n_reps, first_territory, n_territories });
            for _ in 0..n_territories {
                world.territories.push(territory(hub, n_territories_of_hub[hub], &mut dice));
                n_territories_of_hub[hub] += 1;
            }
        }
        for rep in 0..n_reps {
            let territory = world.territory_of(rep);
            for _ in 0..accounts_per_rep {
                let place = world.place_within(territory, &mut dice);
                world.accounts.push(Account { place, fence_m: (60 + 10 * dice.below(10)) as f32 });
            }
        }
        world
    }

    /// A point well inside a territory.
    pub(crate) fn place_within(&self, territory: u32, dice: &mut Dice) -> Place {
        let centre = self.territories[territory as usize].centre;
        let radius_m = 0.72 * TERRITORY_RADIUS_M * dice.unit().sqrt();
        let angle = dice.between(0.0, std::f64::consts::TAU);
        Place { x_m: centre.x_m + (radius_m * angle.cos()) as f32, y_m: centre.y_m + (radius_m * angle.sin()) as f32 }
    }

    pub(crate) fn team_of(&self, rep: u32) -> u32 {
        rep % self.teams.len() as u32
    }

    pub(crate) fn hub_of(&self, rep: u32) -> usize {
        self.teams[self.team_of(rep) as usize].hub
    }

    pub(crate) fn territory_of(&self, rep: u32) -> u32 {
        let team = &self.teams[self.team_of(rep) as usize];
        team.first_territory + (rep / self.teams.len() as u32) % team.n_territories
    }

    /// Another rep of the same team; the same one when it is alone.
    pub(crate) fn team_mate(&self, rep: u32) -> u32 {
        let next = rep + self.teams.len() as u32;
        if next < self.n_reps { next } else { self.team_of(rep) }
    }

    pub(crate) fn account_of(&self, rep: u32, idx: u32) -> u32 {
        rep * self.accounts_per_rep + idx % self.accounts_per_rep
    }

    /// Latitude and longitude, in whole 1e-7 degrees.
    pub(crate) fn degrees_e7(hub: usize, x_m: f64, y_m: f64) -> (i32, i32) {
        let hub = &HUBS[hub];
        let lat = hub.lat + y_m / METRES_PER_DEGREE;
        let lon = hub.lon + x_m / (METRES_PER_DEGREE * hub.lat.to_radians().cos());
        ((lat * 1e7).round() as i32, (lon * 1e7).round() as i32)
    }

    /// Offset of the hub's local time from UTC, microseconds.
    pub(crate) fn offset_us(&mut self, hub: usize, time_us: i64) -> i64 {
        let hour = time_us.div_euclid(HOUR_US);
        if self.offsets[hub].0 != hour {
            let utc = DateTime::from_timestamp(hour * 3_600, 0).unwrap_or_default().naive_utc();
            let offset_s = HUBS[hub].zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
            self.offsets[hub] = (hour, i64::from(offset_s) * SECOND_US);
        }
        self.offsets[hub].1
    }

    /// The hub's local day, days since 1970-01-01, and the time since its midnight, microseconds.
    pub(crate) fn local(&mut self, hub: usize, time_us: i64) -> (i64, i64) {
        let local_us = time_us + self.offset_us(hub, time_us);
        (local_us.div_euclid(DAY_US), local_us.rem_euclid(DAY_US))
    }

    /// The moment at which the hub's clocks show this time of this day.
    pub(crate) fn moment(&mut self, hub: usize, day: i64, time_of_day_us: i64) -> i64 {
        let local_us = day * DAY_US + time_of_day_us;
        let guess_us = local_us - self.offset_us(hub, local_us);
        local_us - self.offset_us(hub, guess_us)
    }

    /// Whether a rep is on duty that day: weekdays but for illness and leave; on weekends and holidays a roster.
    pub(crate) fn works(&self, rep: u32, day: i64) -> bool {
        if is_working_day(day) {
            // The first ten carry what a demonstration must show.
            return rep < 10 || hash_unit(self.seed, u64::from(rep), day.unsigned_abs()) < 0.96;
        }
        let n_teams = self.teams.len() as u32;
        let n_reps = self.teams[self.team_of(rep) as usize].n_reps;
        let turn = i64::from(rep / n_teams) + day.div_euclid(7);
        // In a small team every second one, so that not all hangs on one phone.
        turn.rem_euclid(if n_reps > 4 { 4 } else { i64::from(n_reps.clamp(1, 2)) }) == 0
    }

    /// The same moment, or one in the next working hours of the hub when it is outside of them.
    pub(crate) fn in_business_hours(&mut self, hub: usize, time_us: i64) -> i64 {
        let (day, time_of_day_us) = self.local(hub, time_us);
        let is_early = time_of_day_us < 8 * HOUR_US;
        if is_working_day(day) && !is_early && time_of_day_us < 18 * HOUR_US {
            return time_us;
        }
        let mut next_day = if is_early { day } else { day + 1 };
        while !is_working_day(next_day) {
            next_day += 1;
        }
        // Spread over the morning by the moment itself, so that no crowd starts at the stroke of eight.
        let spread_us = (hash(self.seed, time_us.unsigned_abs(), 3) % 150) as i64 * MINUTE_US;
        self.moment(hub, next_day, 8 * HOUR_US + spread_us + time_us.rem_euclid(MINUTE_US))
    }
}

/// Weekdays but for the first of January.
pub(crate) fn is_working_day(day: i64) -> bool {
    // Day 0 was a Thursday.
    let weekday = (day + 3).rem_euclid(7);
    let is_new_year = || {
        let date =
            NaiveDate::from_ymd_opt(1970, 1, 1).and_then(|epoch| epoch.checked_add_signed(chrono::Duration::days(day)));
        date.is_some_and(|date| date.ordinal() == 1)
    };
    weekday < 5 && !is_new_year()
}

/// The `nth` territory of a hub. They lie like the seeds of a sunflower over the half of the country where there is land.
fn territory(hub: usize, nth: u32, dice: &mut Dice) -> Territory {
    const GOLDEN_ANGLE: f64 = 2.399_963_229_728_653;
    let radius_m = 13_000.0 * (f64::from(nth) + 0.5).sqrt();
    let fold = (f64::from(nth) * GOLDEN_ANGLE).rem_euclid(std::f64::consts::PI) - std::f64::consts::FRAC_PI_2;
    let bearing = HUBS[hub].inland_deg.to_radians() + fold;
    let centre = Place { x_m: (radius_m * bearing.sin()) as f32, y_m: (radius_m * bearing.cos()) as f32 };
    let corners_m = std::array::from_fn(|_| (TERRITORY_RADIUS_M * dice.between(0.85, 1.05)) as f32);
    Territory { hub, centre, corners_m }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_works_in_a_week_at_every_hour_of_the_day_even_with_three_reps() {
        for n_reps in [3, 10, 200] {
            let mut world = World::new(7, n_reps, 4);
            for hour in 0..14 * 24 {
                let now_us = 20_500 * DAY_US + hour * HOUR_US + 30 * MINUTE_US;
                let at_work = (0..n_reps).filter(|&rep| {
                    let (day, time_of_day_us) = world.local(world.hub_of(rep), now_us);
                    world.works(rep, day) && (9 * HOUR_US..17 * HOUR_US).contains(&time_of_day_us)
                });
                let n_at_work = at_work.count();
                let n_zones = [0, 1, 2].map(|hub| world.local(hub, now_us).1 / HOUR_US);
                let is_seam = n_zones.iter().all(|hour| !(9..17).contains(hour));
                assert!(n_at_work > 0 || is_seam, "{n_reps} reps, hour {hour}");
            }
        }
    }

    #[test]
    fn local_time_and_back_also_across_changes_of_the_clocks() {
        let mut world = World::new(7, 10, 4);
        // Day 20,541 is 2026-03-29, on which Berlin's clocks go forward.
        for day in [20_540, 20_541, 20_542, 20_750] {
            for hub in 0..HUBS.len() {
                let moment_us = world.moment(hub, day, 9 * HOUR_US);
                assert_eq!(world.local(hub, moment_us), (day, 9 * HOUR_US));
            }
        }
        assert_eq!(world.moment(0, 20_541, 0) + 9 * HOUR_US, world.moment(0, 20_541, 10 * HOUR_US));
    }

    #[test]
    fn business_hours_keep_what_lies_in_them_and_move_the_rest_forward() {
        let mut world = World::new(7, 10, 4);
        for hour in 0..200 {
            let time_us = 20_500 * DAY_US + hour * HOUR_US;
            let moved_us = world.in_business_hours(0, time_us);
            let (day, time_of_day_us) = world.local(0, moved_us);
            assert!(moved_us >= time_us && is_working_day(day));
            assert!((8 * HOUR_US..18 * HOUR_US).contains(&time_of_day_us));
        }
    }
}
