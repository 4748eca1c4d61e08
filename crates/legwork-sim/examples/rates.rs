//! Runs an organisation and says how many events of each kind it sends in a simulated hour, and how fast it simulates; then the same
//! for W1, framed.
//!
//!     cargo run -p legwork-sim --example rates -- --reps 200 --hours 24
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Parser;
use legwork_sim::w1::{W1, W1Config};
use legwork_sim::{Organisation, SimConfig};
use legwork_types::time::{MINUTE_US, SECOND_US};

#[derive(Debug, Parser)]
#[command(about = "Rates of the simulated organisation")]
struct Arguments {
    /// Reps.
    #[arg(long, default_value_t = 200)]
    reps: u32,
    /// Simulated hours.
    #[arg(long, default_value_t = 24)]
    hours: i64,
    /// Seed.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Simulated start, seconds since 1970-01-01 UTC.
    #[arg(long, default_value_t = 1_768_176_000)]
    start_s: i64,
}

fn main() {
    let arguments = Arguments::parse();
    let start_us = arguments.start_s * SECOND_US;
    let begun = Instant::now();
    let mut organisation = Organisation::new(SimConfig::new(arguments.seed, arguments.reps, start_us));
    println!("ready in {:.3} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let mut n_rows = BTreeMap::new();
    for minute in 1..=arguments.hours * 60 {
        for batch in organisation.advance(start_us + minute * MINUTE_US) {
            *n_rows.entry(batch.kind.name()).or_insert(0) += batch.rows.num_rows();
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (kind, n_rows) in &n_rows {
        println!("{kind:12} {:12.1} an hour", *n_rows as f64 / arguments.hours as f64);
    }
    let n_events: usize = n_rows.values().sum();
    println!("{n_events} events in {seconds:.2} s: {:.0} a second", n_events as f64 / seconds);
    let config = W1Config { n_reps: 10_000, pings_per_rep: 100, ..W1Config::default() };
    let n_pings = config.n_pings();
    let begun = Instant::now();
    let mut n_bytes = 0;
    W1::new(config).framed(1, &mut |_, value, _| n_bytes += value.len());
    let seconds = begun.elapsed().as_secs_f64();
    println!("W1: {n_pings} messages of {} bytes: {:.0} a second", n_bytes as u64 / n_pings, n_pings as f64 / seconds);
}
