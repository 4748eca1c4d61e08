//! Phones: what they measure, when they can send it, and how they go wrong.

use legwork_types::time::{HOUR_US, MINUTE_US, SECOND_US};
use legwork_types::{Kind, gps};

use crate::dice::{hash, hash_unit};
use crate::field::Phase;
use crate::organisation::Organisation;
use crate::world::World;

/// Fixes a phone without a network keeps; beyond them it forgets the newest.
const KEPT_FIXES_MAX: usize = 4_000;
/// Where a lost clock begins: at the epoch, or when 32 bits of NTP seconds run out.
const LOST_CLOCKS_US: [i64; 2] = [0, 2_085_978_496 * SECOND_US];

/// What is peculiar about a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// Loses the network for hours each day and sends newest first.
    HoursOffline,
    /// Its clock is fast by about an hour.
    FastClock,
    /// Its clock sometimes jumps to 1970 or 2036 for a few fixes.
    LostClock,
    /// An old battery that nobody charges.
    WeakBattery,
    /// Its owner fakes positions in the afternoon.
    Mock,
}

/// Which phone a rep gets. The first ten reps show every quirk; among the others they are rare.
pub(crate) fn quirk_of(rep: u32) -> Quirk {
    match rep {
        1 => Quirk::HoursOffline,
        2 => Quirk::FastClock,
        3 => Quirk::LostClock,
        5 => Quirk::Mock,
        6 => Quirk::WeakBattery,
        0..10 => Quirk::None,
        _ if rep % 97 == 11 => Quirk::HoursOffline,
        _ if rep % 61 == 12 => Quirk::WeakBattery,
        _ if rep % 251 == 15 => Quirk::Mock,
        _ if rep % 4_999 == 17 => Quirk::FastClock,
        _ => Quirk::None,
    }
}

/// Whether a rep carries a tablet beside the phone.
pub(crate) fn has_tablet(rep: u32) -> bool {
    rep == 4 || (rep >= 10 && rep % 83 == 14)
}

/// A measured fix, packed, since phones without a network keep thousands.
#[derive(Clone, Copy, Debug)]
struct Fix {
    number: u64,
    time_us: i64,
    lat_e7: i32,
    lon_e7: i32,
    odometer_dm: u32,
    accuracy_m: f32,
    speed_mps: f32,
    altitude_dm: i16,
    course_deg: u16,
    battery_permille: u16,
    moving: bool,
    mock: bool,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) rep: u32,
    pub(crate) is_tablet: bool,
    pub(crate) quirk: Quirk,
    /// Whether it tells who carries it; otherwise the assignments do.
    names_rep: bool,
    clock_ahead_us: i64,
    battery_pct: f64,
    dead_until_us: i64,
    goes_offline_us: i64,
    offline_until_us: i64,
    in_tunnel_until_us: i64,
    /// Fixes still to come that are poor because the sky has only just come back.
    n_poor_fixes: u8,
    /// Fixes still to come with a lost clock, and what that clock says.
    lost_clock: (u8, i64),
    is_mocking: bool,
    /// Error of the last fix, metres east and north: errors wander, they do not jump.
    error_m: (f64, f64),
    kept: Vec<Fix>,
    /// A fix already sent, with its sent_time, that will be sent again.
    echo: Option<Box<(Fix, i64)>>,
}

impl Organisation {
    pub(crate) fn buy_phones(&mut self) {
        let n_reps = self.config.n_reps;
        for rep in 0..n_reps {
            let quirk = quirk_of(rep);
            let names_rep = hash_unit(self.config.seed, u64::from(rep), 23) < 0.85;
            let clock_ahead_us = match quirk {
                Quirk::FastClock => HOUR_US + self.dice.between_i64(0, 20 * MINUTE_US),
                _ => 0,
            };
            self.devices.push(Device { clock_ahead_us, ..Device::new(rep, false, quirk, names_rep) });
        }
        for rep in (0..n_reps).filter(|&rep| has_tablet(rep)) {
            self.reps[rep as usize].tablet = Some(self.devices.len() as u32);
            self.devices.push(Device::new(rep, true, Quirk::None, false));
        }
    }

    /// A phone is switched on with its owner's shift.
    pub(crate) fn switch_on(&mut self, device: u32) {
        let now_us = self.now_us;
        let is_offline_kind = self.devices[device as usize].quirk == Quirk::HoursOffline;
        let goes_offline_us =
            if is_offline_kind { now_us + self.dice.between_i64(20 * MINUTE_US, 120 * MINUTE_US) } else { i64::MAX };
        let battery_pct = self.dice.between(82.0, 100.0);
        let first_us = now_us + self.dice.between_i64(SECOND_US, 4 * SECOND_US);
        let device_state = &mut self.devices[device as usize];
        device_state.goes_offline_us = goes_offline_us;
        device_state.battery_pct = battery_pct;
        device_state.dead_until_us = 0;
        self.plan_fix(first_us, device);
    }

    /// A phone is put away; what it kept goes out from home, later.
    pub(crate) fn switch_off(&mut self, device: u32) {
        let state = &self.devices[device as usize];
        if !state.kept.is_empty() {
            let at_us = state.offline_until_us.max(self.now_us + 10 * MINUTE_US);
            self.plan(at_us, crate::organisation::Happening::Upload { device });
        }
    }

    /// One fix of one phone, which also is the moment at which its owner's day goes on.
    pub(crate) fn take_fix(&mut self, device: u32) {
        let rep = self.devices[device as usize].rep;
        if self.reps[rep as usize].phase == Phase::Off {
            return;
        }
        let fix_us = self.now_us - self.dice.between_i64(100_000, 900_000);
        self.reps[rep as usize].motion.advance(fix_us, &mut self.dice);
        if !self.devices[device as usize].is_tablet {
            self.live(rep);
            if self.reps[rep as usize].phase == Phase::Off {
                return;
            }
        }
        let jitter_us = self.dice.between_i64(-700_000, 700_000);
        self.plan_fix(self.now_us + self.config.ping_interval_us + jitter_us, device);
        self.fake(device);
        if let Some(fix) = self.measure(device, fix_us) {
            self.keep_or_send(device, fix);
        }
    }

    fn measure(&mut self, device: u32, fix_us: i64) -> Option<Fix> {
        let (now_us, interval_us) = (self.now_us, self.config.ping_interval_us);
        let Organisation { devices, reps, dice, world, out, .. } = self;
        let device = &mut devices[device as usize];
        let rep = &reps[device.rep as usize];
        device.use_battery(interval_us, now_us, rep.motion.is_under_way(), dice);
        if now_us < device.dead_until_us || device.is_in_tunnel(now_us, rep.motion.speed_mps, dice) {
            return None;
        }
        let hub = world.hub_of(device.rep);
        let accuracy_m = device.wander(device.rep, dice);
        let (x_m, y_m) = if device.is_mocking {
            let place = world.accounts[world.account_of(device.rep, 0) as usize].place;
            (f64::from(place.x_m), f64::from(place.y_m))
        } else {
            (rep.motion.x_m + device.error_m.0, rep.motion.y_m + device.error_m.1)
        };
        let (lat_e7, lon_e7) = World::degrees_e7(hub, x_m, y_m);
        let speed_mps = if device.is_mocking { 0.0 } else { rep.motion.speed_mps };
        let base_dm = (hash(9, u64::from(device.rep), u64::from(device.is_tablet)) % 900_000) as f64;
        Some(Fix {
            number: out.number(),
            time_us: device.clock(fix_us, dice),
            lat_e7,
            lon_e7,
            odometer_dm: (base_dm + rep.motion.driven_m * 10.0) as u32,
            accuracy_m: (accuracy_m * 10.0).round() as f32 / 10.0,
            speed_mps: ((speed_mps + 0.2 * dice.unit()) * 10.0).round() as f32 / 10.0,
            altitude_dm: (400.0 + 60.0 * ((x_m + y_m) / 900.0).sin() + 20.0 * dice.normal()) as i16,
            course_deg: rep.motion.course_deg as u16,
            battery_permille: (device.battery_pct * 10.0) as u16,
            moving: speed_mps > 0.5,
            mock: device.is_mocking,
        })
    }

    fn keep_or_send(&mut self, device: u32, fix: Fix) {
        let now_us = self.now_us;
        let state = &mut self.devices[device as usize];
        if now_us >= state.goes_offline_us {
            state.goes_offline_us = i64::MAX;
            state.offline_until_us = now_us + self.dice.between_i64(HOUR_US, 4 * HOUR_US);
        } else if now_us >= state.offline_until_us && self.dice.chance(0.0005) {
            state.offline_until_us = now_us + self.dice.between_i64(MINUTE_US, 10 * MINUTE_US);
        }
        if now_us < state.offline_until_us {
            if state.kept.len() < KEPT_FIXES_MAX {
                state.kept.push(fix);
            }
            return;
        }
        let echo = state.echo.take();
        let sent_time_us = now_us + state.clock_ahead_us;
        if self.dice.chance(0.003) {
            state.echo = Some(Box::new((fix, sent_time_us)));
        }
        self.send(device, fix, sent_time_us);
        if let Some(echo) = echo {
            self.send(device, echo.0, echo.1);
        }
        if !self.devices[device as usize].kept.is_empty() {
            self.upload(device);
        }
    }

    /// Sends what a phone has kept, newest first.
    pub(crate) fn upload(&mut self, device: u32) {
        let state = &mut self.devices[device as usize];
        state.offline_until_us = 0;
        let sent_time_us = self.now_us + state.clock_ahead_us;
        for fix in std::mem::take(&mut state.kept).into_iter().rev() {
            self.send(device, fix, sent_time_us);
        }
    }

    fn send(&mut self, device_idx: u32, fix: Fix, sent_time_us: i64) {
        let device = &self.devices[device_idx as usize];
        let rep = device.rep;
        let kind = if device.is_tablet { "tablet" } else { "phone" };
        let rows = self.out.begin(Kind::Gps, fix.number, fix.time_us, None);
        rows.write(gps::DEVICE_ID, format_args!("{kind}-{rep:05}"))
            .time(gps::SENT_TIME, sent_time_us)
            .f64(gps::LAT, f64::from(fix.lat_e7) / 1e7)
            .f64(gps::LON, f64::from(fix.lon_e7) / 1e7)
            .f32(gps::ACCURACY_M, fix.accuracy_m)
            .f32(gps::SPEED_MPS, fix.speed_mps)
            .f32(gps::ALTITUDE_M, f32::from(fix.altitude_dm) / 10.0)
            .bool(gps::MOVING, fix.moving)
            .f64(gps::ODOMETER_M, f64::from(fix.odometer_dm) / 10.0)
            .f32(gps::BATTERY_PCT, f32::from(fix.battery_permille) / 10.0)
            .bool(gps::MOCK, fix.mock);
        if device.names_rep {
            rows.write(gps::REP_ID, format_args!("rep-{rep:05}"));
        }
        if fix.moving {
            rows.f32(gps::COURSE_DEG, f32::from(fix.course_deg));
        }
        rows.end(self.now_us);
    }

    /// Who fakes positions does so from three to four in the afternoon, and checks in with them.
    fn fake(&mut self, device: u32) {
        let state = &self.devices[device as usize];
        if state.quirk != Quirk::Mock {
            return;
        }
        let (rep, was_mocking) = (state.rep, state.is_mocking);
        let hub = self.world.hub_of(rep);
        let is_mocking = self.world.local(hub, self.now_us).1 / HOUR_US == 15;
        self.devices[device as usize].is_mocking = is_mocking;
        if is_mocking && !was_mocking {
            self.check_in_with_mock(rep);
        }
    }
}

impl Device {
    fn new(rep: u32, is_tablet: bool, quirk: Quirk, names_rep: bool) -> Device {
        Device {
            rep,
            is_tablet,
            quirk,
            names_rep,
            clock_ahead_us: 0,
            battery_pct: 100.0,
            dead_until_us: 0,
            goes_offline_us: i64::MAX,
            offline_until_us: 0,
            in_tunnel_until_us: 0,
            n_poor_fixes: 0,
            lost_clock: (0, 0),
            is_mocking: false,
            error_m: (0.0, 0.0),
            kept: Vec::new(),
            echo: None,
        }
    }

    /// Per cent an hour: 7 out of the pocket, 35 with an old battery; cars charge.
    fn use_battery(&mut self, interval_us: i64, now_us: i64, in_car: bool, dice: &mut crate::dice::Dice) {
        let hours = interval_us as f64 / HOUR_US as f64;
        let change_pct = match (self.quirk, in_car) {
            (Quirk::WeakBattery, _) => -35.0,
            (_, true) => 12.0,
            (_, false) => -7.0,
        };
        if now_us < self.dead_until_us {
            return;
        }
        self.battery_pct = (self.battery_pct + change_pct * hours).min(100.0);
        if self.battery_pct <= 0.0 {
            self.dead_until_us = now_us + dice.between_i64(50 * MINUTE_US, 110 * MINUTE_US);
            self.battery_pct = dice.between(30.0, 60.0);
        }
    }

    fn is_in_tunnel(&mut self, now_us: i64, speed_mps: f64, dice: &mut crate::dice::Dice) -> bool {
        if now_us < self.in_tunnel_until_us {
            return true;
        }
        if speed_mps > 8.0 && dice.chance(0.004) {
            self.in_tunnel_until_us = now_us + dice.between_i64(40 * SECOND_US, 200 * SECOND_US);
            self.n_poor_fixes = 3;
            return true;
        }
        false
    }

    /// Moves the error on and returns the accuracy that the phone states, metres: 4 to 12, poor after a tunnel.
    fn wander(&mut self, rep: u32, dice: &mut crate::dice::Dice) -> f64 {
        // A radius of 68 % is 1.51 standard deviations of each axis.
        const SIGMAS: f64 = 1.51;
        let own_m = 4.0 + 5.0 * hash_unit(31, u64::from(rep), u64::from(self.is_tablet));
        if self.n_poor_fixes > 0 {
            self.n_poor_fixes -= 1;
            let accuracy_m = dice.between(40.0, 120.0);
            self.error_m = (dice.normal() * accuracy_m / SIGMAS * 0.5, dice.normal() * accuracy_m / SIGMAS * 0.5);
            return accuracy_m;
        }
        let accuracy_m = own_m + dice.between(0.0, 3.0);
        let fresh_m = accuracy_m / SIGMAS * (1.0f64 - 0.85 * 0.85).sqrt();
        // What is left of a poor fix is gone at once.
        let keep = if self.error_m.0.hypot(self.error_m.1) > 4.0 * accuracy_m { 0.0 } else { 0.85 };
        self.error_m =
            (keep * self.error_m.0 + fresh_m * dice.normal(), keep * self.error_m.1 + fresh_m * dice.normal());
        accuracy_m
    }

    /// What the phone's clock says at a true moment.
    fn clock(&mut self, true_us: i64, dice: &mut crate::dice::Dice) -> i64 {
        if self.quirk == Quirk::LostClock {
            if self.lost_clock.0 == 0 && dice.chance(0.01) {
                let zero_us = LOST_CLOCKS_US[dice.below(2) as usize];
                self.lost_clock = (1 + dice.below(4) as u8, zero_us - true_us + dice.between_i64(0, HOUR_US));
            }
            if self.lost_clock.0 > 0 {
                self.lost_clock.0 -= 1;
                return true_us + self.lost_clock.1;
            }
        }
        true_us + self.clock_ahead_us
    }
}
