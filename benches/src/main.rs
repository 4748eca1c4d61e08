//! The reference workload W1 into a topic, and the consumers that Legwork is measured beside. `benches/run.py` runs them all.

mod track;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::{Schema, from_value};
use clap::{Parser, Subcommand};
use legwork_kafka::{Producer, ProducerConfig, SendError};
use legwork_sim::garbage::{Garbage, GarbageKind};
use legwork_sim::w1::{W1, W1_SCHEMA, W1Config};
use legwork_types::Kind;
use legwork_types::geo::haversine_m;
use legwork_types::time::{HOUR_US, MINUTE_US, window_start};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::{ClientConfig, Message};
use serde::Deserialize;

// Legwork uses it, so what is measured beside it gets it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Largest message that the program takes, by default.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the Avro schema of W1's writer.
    Schema,
    /// Measures the track operator alone; prints JSON.
    Track {
        /// Recorded tracks to measure, too: a CSV file with `lat,lng,datetime,uid`.
        #[arg(long)]
        recorded: Option<PathBuf>,
    },
    /// Sends W1 to a topic that exists.
    Produce {
        #[arg(long)]
        bootstrap: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        schema_id: u32,
        #[arg(long, default_value_t = 10_000)]
        reps: u32,
        #[arg(long, default_value_t = 500)]
        pings: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// After so many pings one message of garbage; 0 for none.
        #[arg(long, default_value_t = 0)]
        garbage_every: u64,
    },
    /// Reads a topic message by message, as a team would that follows the crates' examples: Avro values, hash maps, a window of a minute.
    Naive {
        #[arg(long)]
        bootstrap: String,
        #[arg(long)]
        topic: String,
        #[arg(long)]
        count: u64,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Schema => say(W1_SCHEMA.to_owned()),
        Command::Track { recorded } => say(track::figures(recorded)?.to_string()),
        Command::Produce { bootstrap, topic, schema_id, reps, pings, seed, garbage_every } => {
            let config =
                W1Config { n_reps: reps, pings_per_rep: pings, seed, start_us: start_us()?, ..W1Config::default() };
            produce(&bootstrap, &topic, schema_id, config, garbage_every)
        }
        Command::Naive { bootstrap, topic, count } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(naive(&bootstrap, &topic, count))
        }
    }
}

/// Three hours ago, on the full minute: a broker deletes records that are older than its retention.
fn start_us() -> Result<i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(window_start(i64::try_from(now.as_micros())?, MINUTE_US) - 3 * HOUR_US)
}

fn say(line: String) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

fn produce(bootstrap: &str, topic: &str, schema_id: u32, config: W1Config, garbage_every: u64) -> Result<()> {
    let producer = Producer::new(&ProducerConfig { queue_bytes_max: 256 << 20, ..ProducerConfig::new(bootstrap) })?;
    let garbage = Garbage::new(Kind::Gps, W1_SCHEMA, schema_id, MESSAGE_BYTES_MAX)?;
    let mut dice = ChaCha8Rng::seed_from_u64(config.seed);
    let (mut n_sent, mut n_garbage) = (0_u64, 0_u64);
    let mut failed = None;
    W1::new(config).framed(schema_id, &mut |key, value, event_time_us| {
        let mut send = |value: Option<&[u8]>| {
            let timestamp_ms = event_time_us.div_euclid(1_000);
            loop {
                match producer.send(topic, None, Some(key), value, &[], Some(timestamp_ms)) {
                    Ok(()) => break,
                    Err(SendError::QueueFull) => std::thread::sleep(Duration::from_millis(2)),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        };
        send(Some(value));
        n_sent += 1;
        if garbage_every > 0 && n_sent % garbage_every == 0 {
            let (kind, value) = garbage.any(&mut dice, value);
            // A few megabytes each: a broker refuses them by default, and one in a hundred would be most of the bytes.
            if kind != GarbageKind::Oversized {
                send(value.as_deref());
                n_garbage += 1;
            }
        }
    });
    if let Some(error) = failed {
        return Err(error).context("sending W1");
    }
    let n_left = producer.flush(Duration::from_secs(120));
    if n_left > 0 {
        bail!("{n_left} messages were not acknowledged");
    }
    say(serde_json::json!({ "n_sent": n_sent + n_garbage, "n_garbage": n_garbage }).to_string())
}

#[derive(Debug, Default)]
struct Row {
    n_pings: u64,
    raw_m: f64,
    speed_mps_max: f64,
}

#[derive(Debug, Deserialize)]
struct Ping {
    device_id: String,
    event_time: i64,
    lat: f64,
    lon: f64,
    speed_mps: Option<f32>,
}

/// What the naive consumer knows of its pings, in the order of arrival: its distances are wrong where pings come out of order.
#[derive(Debug, Default)]
struct Naive {
    last: HashMap<String, (f64, f64)>,
    rows: HashMap<(String, i64), Row>,
}

impl Naive {
    fn take(&mut self, ping: Ping) {
        let row = self.rows.entry((ping.device_id.clone(), window_start(ping.event_time, MINUTE_US))).or_default();
        row.n_pings += 1;
        row.speed_mps_max = row.speed_mps_max.max(f64::from(ping.speed_mps.unwrap_or(0.0)));
        if let Some((lat, lon)) = self.last.insert(ping.device_id, (ping.lat, ping.lon)) {
            row.raw_m += haversine_m(lat, lon, ping.lat, ping.lon);
        }
    }
}

/// The baseline: what the examples of `rdkafka` and `apache-avro` lead to, one thread, Legwork's allocator, librdkafka's own
/// settings. A message at a time from a `StreamConsumer`, the writer's schema by its id from a map, the datum resolved to the reader's
/// schema (it is to live through changes of the schema), serde from the value, hash maps keyed by strings. Nothing in it is slow on
/// purpose, and nothing is tuned.
async fn naive(bootstrap: &str, topic: &str, count: u64) -> Result<()> {
    // What a registry would answer, and what this program was written for.
    let (writer, reader) = (Schema::parse_str(W1_SCHEMA)?, Schema::parse_str(W1_SCHEMA)?);
    let mut decoders: HashMap<u32, GenericDatumReader<'_>> = HashMap::new();
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("naive-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut facts = Naive::default();
    let mut started = None;
    let mut n_read = 0;
    while n_read < count {
        let message = tokio::time::timeout(Duration::from_secs(60), consumer.recv());
        let message = message.await.context("nothing came for a minute")??;
        started.get_or_insert_with(Instant::now);
        let value = message.payload().context("a ping has a value")?;
        let (framing, mut body) = value.split_first_chunk::<5>().context("a ping is framed")?;
        let id = u32::from_be_bytes([framing[1], framing[2], framing[3], framing[4]]);
        let decoder = match decoders.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                unknown.insert(GenericDatumReader::builder(&writer).reader_schema(&reader).build()?)
            }
        };
        facts.take(from_value(&decoder.read_value(&mut body)?)?);
        n_read += 1;
    }
    let seconds = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
    let rows = facts.rows.values();
    let answer = serde_json::json!({
        "n_read": n_read,
        "seconds": seconds,
        "n_rows": facts.rows.len(),
        "n_pings": rows.clone().map(|row| row.n_pings).sum::<u64>(),
        "raw_m": rows.clone().map(|row| row.raw_m).sum::<f64>(),
        "fastest_mps": rows.map(|row| row.speed_mps_max).fold(0.0, f64::max),
    });
    say(answer.to_string())
}
