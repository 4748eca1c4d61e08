//! What the organisation would keep in master data: reps, devices, teams, territories, accounts, products, stages, quotas,
//! calendars and rates.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use chrono::{Datelike, NaiveDate};
use legwork_types::time::DAY_US;
use legwork_types::{
    Kind, accounts, calendars, device_assignments, fx_rates, products, quotas, reps, stages, teams, territories,
};

use crate::crm::PRODUCTS;
use crate::deals::PIPELINES;
use crate::dice::hash_unit;
use crate::organisation::Organisation;
use crate::phone::has_tablet;
use crate::rows::Rows;
use crate::world::{HUBS, REGIONS, World};

/// What accounts are, for their names.
const TRADES: [&str; 8] = ["Bakery", "Pharmacy", "Clinic", "Garage", "Hotel", "Market", "School", "Workshop"];
const DISTRICTS: [&str; 8] = ["North", "East", "South", "West", "Riverside", "Old Town", "Harbour", "Hill"];

impl Organisation {
    /// Reference data of the organisation, one batch a kind, canonical columns. It does not change during the run.
    pub fn reference(&self) -> Vec<(Kind, RecordBatch)> {
        let fill = |kind| {
            let mut rows = Rows::new(kind);
            match kind {
                Kind::Reps => self.fill_reps(&mut rows),
                Kind::DeviceAssignments => self.fill_assignments(&mut rows),
                Kind::Teams => self.fill_teams(&mut rows),
                Kind::Territories => self.fill_territories(&mut rows),
                Kind::Accounts => self.fill_accounts(&mut rows),
                Kind::Products => fill_products(&mut rows),
                Kind::Stages => fill_stages(&mut rows),
                Kind::Quotas => self.fill_quotas(&mut rows),
                Kind::Calendars => self.fill_calendars(&mut rows),
                _ => self.fill_rates(&mut rows),
            }
            (kind, rows.finish().0)
        };
        Kind::references().map(fill).collect()
    }

    /// One rep in nine came from another team a month before the start; the record that holds now comes last.
    fn fill_reps(&self, rows: &mut Rows) {
        let moved_us = self.config.start_us - 30 * DAY_US;
        for rep in 0..self.config.n_reps {
            let has_moved = rep % 9 == 7 && self.world.teams.len() > 1;
            if has_moved {
                let team = (self.world.team_of(rep) + 1) % self.world.teams.len() as u32;
                self.fill_rep(rows, rep, team).time(reps::VALID_TO, moved_us).end(0);
            }
            let rows = self.fill_rep(rows, rep, self.world.team_of(rep));
            rows.write(reps::TERRITORY_ID, format_args!("territory-{:04}", self.world.territory_of(rep)));
            if has_moved {
                rows.time(reps::VALID_FROM, moved_us);
            }
            rows.end(0);
        }
    }

    fn fill_rep<'a>(&self, rows: &'a mut Rows, rep: u32, team: u32) -> &'a mut Rows {
        let hub = &HUBS[self.world.hub_of(rep)];
        rows.write(reps::REP_ID, format_args!("rep-{rep:05}"))
            .write(reps::NAME, format_args!("Rep {rep} {}", hub.city))
            .write(reps::TEAM_ID, format_args!("team-{team:03}"))
            .text(reps::TIME_ZONE, hub.zone.name())
            .text(reps::CALENDAR_ID, hub.city)
            .bool(reps::ACTIVE, true)
    }

    /// One phone in nine belonged to the neighbour until ten days before the start.
    fn fill_assignments(&self, rows: &mut Rows) {
        let handed_us = self.config.start_us - 10 * DAY_US;
        let mut assign = |device: (&str, u32), rep: u32, priority: i32, valid: (Option<i64>, Option<i64>)| {
            rows.write(device_assignments::DEVICE_ID, format_args!("{}-{:05}", device.0, device.1))
                .write(device_assignments::REP_ID, format_args!("rep-{rep:05}"))
                .i32(device_assignments::PRIORITY, priority);
            if let Some(from_us) = valid.0 {
                rows.time(device_assignments::VALID_FROM, from_us);
            }
            if let Some(to_us) = valid.1 {
                rows.time(device_assignments::VALID_TO, to_us);
            }
            rows.end(0);
        };
        for rep in 0..self.config.n_reps {
            let was_handed_on = rep % 9 == 8;
            if was_handed_on {
                assign(("phone", rep), rep - 1, 5, (None, Some(handed_us)));
            }
            assign(("phone", rep), rep, 10, (was_handed_on.then_some(handed_us), None));
            if has_tablet(rep) {
                assign(("tablet", rep), rep, 1, (None, None));
            }
        }
    }

    fn fill_teams(&self, rows: &mut Rows) {
        rows.text(teams::TEAM_ID, "sales").text(teams::NAME, "Sales").end(0);
        for region in REGIONS {
            rows.write(teams::TEAM_ID, format_args!("sales-{}", region.to_lowercase()))
                .write(teams::NAME, format_args!("Sales {region}"))
                .text(teams::REGION, region)
                .text(teams::PARENT_TEAM_ID, "sales")
                .end(0);
        }
        for (team_idx, team) in self.world.teams.iter().enumerate() {
            let hub = &HUBS[team.hub];
            let region = REGIONS[hub.region];
            rows.write(teams::TEAM_ID, format_args!("team-{team_idx:03}"))
                .write(teams::NAME, format_args!("{} {}", hub.city, 1 + team_idx / HUBS.len()))
                .text(teams::REGION, region)
                .write(teams::PARENT_TEAM_ID, format_args!("sales-{}", region.to_lowercase()))
                .text(teams::CALENDAR_ID, hub.city)
                .end(0);
        }
    }

    fn fill_territories(&self, rows: &mut Rows) {
        for (idx, territory) in self.world.territories.iter().enumerate() {
            let n_corners = territory.corners_m.len();
            // One corner more closes the ring; anticlockwise, as outlines are.
            let corners: Vec<String> = (0..=n_corners)
                .map(|corner| {
                    let angle = std::f64::consts::TAU * (corner % n_corners) as f64 / n_corners as f64;
                    let radius_m = f64::from(territory.corners_m[corner % n_corners]);
                    let x_m = f64::from(territory.centre.x_m) + radius_m * angle.cos();
                    let y_m = f64::from(territory.centre.y_m) + radius_m * angle.sin();
                    let (lat_e7, lon_e7) = World::degrees_e7(territory.hub, x_m, y_m);
                    format!("{:.5} {:.5}", f64::from(lon_e7) / 1e7, f64::from(lat_e7) / 1e7)
                })
                .collect();
            rows.write(territories::TERRITORY_ID, format_args!("territory-{idx:04}"))
                .write(
                    territories::NAME,
                    format_args!("{} {}", HUBS[territory.hub].city, DISTRICTS[idx / HUBS.len() % 8]),
                )
                .write(territories::POLYGON, format_args!("POLYGON (({}))", corners.join(", ")))
                .end(0);
        }
    }

    fn fill_accounts(&self, rows: &mut Rows) {
        for (idx, account) in self.world.accounts.iter().enumerate() {
            let rep = idx as u32 / self.world.accounts_per_rep;
            let hub = self.world.hub_of(rep);
            let (lat_e7, lon_e7) = World::degrees_e7(hub, f64::from(account.place.x_m), f64::from(account.place.y_m));
            rows.write(accounts::ACCOUNT_ID, format_args!("account-{idx:06}"))
                .write(accounts::NAME, format_args!("{} {idx} {}", TRADES[idx % TRADES.len()], HUBS[hub].city))
                .f64(accounts::LAT, f64::from(lat_e7) / 1e7)
                .f64(accounts::LON, f64::from(lon_e7) / 1e7)
                .f64(accounts::RADIUS_M, f64::from(account.fence_m))
                .write(accounts::TERRITORY_ID, format_args!("territory-{:04}", self.world.territory_of(rep)))
                .write(accounts::OWNER_ID, format_args!("rep-{rep:05}"))
                .end(0);
        }
    }

    fn fill_quotas(&self, rows: &mut Rows) {
        for rep in 0..self.config.n_reps {
            let ability = 0.8 + 0.4 * hash_unit(self.config.seed, u64::from(rep), 5);
            for (metric, period, target) in [
                ("calls", "day", 9.0),
                ("visits", "day", 6.0),
                ("meetings_held", "week", 5.0),
                ("revenue", "month", 25_000.0),
            ] {
                rows.write(quotas::REP_ID, format_args!("rep-{rep:05}"))
                    .text(quotas::METRIC, metric)
                    .text(quotas::PERIOD, period)
                    .f64(quotas::TARGET, (target * ability).round())
                    .end(0);
            }
        }
    }

    fn fill_calendars(&self, rows: &mut Rows) {
        let hours: Vec<String> = ["mon", "tue", "wed", "thu", "fri"].map(|day| format!("{day} 08:00-18:00")).into();
        let hours: Vec<&str> = hours.iter().map(String::as_str).collect();
        let year = day_of_epoch(self.config.start_us.div_euclid(DAY_US)).map_or(1970, |date| date.year());
        let new_years: Vec<i32> = (year - 1..year + 3).filter_map(new_year).collect();
        let zones = HUBS.iter().map(|hub| (hub.city, hub.zone.name()));
        for (calendar, zone) in std::iter::once(("default", "UTC")).chain(zones) {
            rows.text(calendars::CALENDAR_ID, calendar)
                .text(calendars::TIME_ZONE, zone)
                .texts(calendars::WORKING_HOURS, &hours)
                .dates(calendars::HOLIDAYS, &new_years)
                .end(0);
        }
    }

    /// A rate a month from the history's beginning on, for each currency; the base is the US dollar.
    fn fill_rates(&self, rows: &mut Rows) {
        let start_day = self.config.start_us.div_euclid(DAY_US) as i32;
        let first_day = start_day - self.config.history_days as i32 - 31;
        let mut done: Vec<&str> = Vec::new();
        for hub in &HUBS {
            if done.contains(&hub.currency) {
                continue;
            }
            done.push(hub.currency);
            for month in 0..=(start_day - first_day) / 30 {
                let drift = 1.0 + 0.03 * (hash_unit(77, done.len() as u64, month as u64) - 0.5);
                let drift = if hub.currency == "USD" { 1.0 } else { drift };
                rows.text(fx_rates::CURRENCY, hub.currency)
                    .date(fx_rates::AS_OF, first_day + 30 * month)
                    .f64(fx_rates::RATE_TO_BASE, (1e8 * drift / hub.per_base).round() / 1e8)
                    .end(0);
            }
        }
    }
}

fn fill_products(rows: &mut Rows) {
    for (id, name, family, _) in PRODUCTS {
        rows.text(products::PRODUCT_ID, id).text(products::NAME, name).text(products::FAMILY, family).end(0);
    }
}

fn fill_stages(rows: &mut Rows) {
    for pipeline in &PIPELINES {
        let n_open = pipeline.stages.len() as i32;
        for (position, stage) in (1..).zip(pipeline.stages) {
            rows.text(stages::PIPELINE_ID, pipeline.id)
                .text(stages::STAGE, stage.name)
                .i32(stages::POSITION, position)
                .f64(stages::PROBABILITY, stage.probability)
                .bool(stages::IS_WON, false)
                .bool(stages::IS_LOST, false)
                .f64(stages::STALL_AFTER_S, f64::from(stage.stall_after_days) * 86_400.0)
                .end(0);
        }
        for (position, name, is_won) in [(n_open + 1, "won", true), (n_open + 2, "lost", false)] {
            rows.text(stages::PIPELINE_ID, pipeline.id)
                .text(stages::STAGE, name)
                .i32(stages::POSITION, position)
                .f64(stages::PROBABILITY, f64::from(u8::from(is_won)))
                .bool(stages::IS_WON, is_won)
                .bool(stages::IS_LOST, !is_won)
                .end(0);
        }
    }
}

/// Record keys of a batch of reference data: the fields of its identity, joined by slashes; `valid_from` is in it where a history has
/// more than one record, so that a compacted topic keeps them all.
pub fn reference_keys(kind: Kind, rows: &RecordBatch) -> Vec<String> {
    let parts: &[&str] = match kind {
        Kind::Stages => &["pipeline_id", "stage"],
        Kind::Quotas => &["rep_id", "metric", "period"],
        Kind::FxRates => &["currency", "as_of"],
        other => &[other.key()],
    };
    (0..rows.num_rows())
        .map(|row| {
            let mut key: Vec<String> = parts.iter().map(|name| cell_text(rows, name, row)).collect();
            if let Some(valid_from) = rows.column_by_name("valid_from")
                && valid_from.is_valid(row)
            {
                key.push(valid_from.as_primitive::<TimestampMicrosecondType>().value(row).to_string());
            }
            key.join("/")
        })
        .collect()
}

fn cell_text(rows: &RecordBatch, name: &str, row: usize) -> String {
    let column = rows.column_by_name(name).expect("reference schemas have the fields of their identity");
    match column.as_string_opt::<i32>() {
        Some(texts) => texts.value(row).to_owned(),
        None => day_of_epoch(i64::from(column.as_primitive::<Date32Type>().value(row)))
            .map_or_else(String::new, |date| date.to_string()),
    }
}

fn day_of_epoch(day: i64) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_signed(chrono::Duration::days(day))
}

fn new_year(year: i32) -> Option<i32> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    Some((NaiveDate::from_ymd_opt(year, 1, 1)? - epoch).num_days() as i32)
}
