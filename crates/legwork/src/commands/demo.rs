//! `legwork demo`: everything at once on loopback, with nothing else installed.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use legwork_codec::registry_server::{self, Registry};
use legwork_kafka::EmbeddedBroker;
use legwork_query::Session;
use legwork_sim::{Organisation, SimConfig};
use legwork_types::Kind;
use legwork_types::time::HOUR_US;
use tokio::net::TcpListener;

use super::publish::Publisher;
use super::simulate::{Story, tell};
use crate::args::DemoArgs;
use crate::config::{self, Config, Overrides};
use crate::service::{Service, wall_clock_us};
use crate::topics;

/// How long before now the story starts.
const SINCE_US: i64 = 8 * HOUR_US;
/// Partitions of event topics in the embedded broker.
const N_PARTITIONS: i32 = 4;
/// How often the status is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let stop = tokio::spawn(super::stop_signal());
    let data = args.data.clone().map_or_else(default_data, Ok)?;
    if args.fresh {
        wipe(&data)?;
    }
    std::fs::create_dir_all(&data).with_context(|| format!("making the folder {}", data.display()))?;

    let broker = EmbeddedBroker::start(1)?;
    for kind in Kind::ALL {
        broker.create_topic(kind.topic(), if kind.is_reference() { 1 } else { N_PARTITIONS })?;
        broker.create_topic(&format!("{}.dlq", kind.topic()), 1)?;
    }
    let registry_listener = TcpListener::bind("127.0.0.1:0").await?;
    let registry_url = format!("http://{}", registry_listener.local_addr()?);
    let registry = Registry::in_memory();
    tokio::spawn(async move {
        if let Err(error) = registry_server::serve(registry_listener, registry, std::future::pending()).await {
            tracing::error!(%error, "the registry ended");
        }
    });

    let config = demo_config(&args, broker.bootstrap(), &registry_url, &data)?;
    super::start_logging(&config)?;
    let service = start_on_free_ports(&config, &args).await?;
    if args.json {
        super::up::announce(&service, true)?;
    } else {
        greet(&service, &args, started)?;
    }

    let client = topics::registry(&config, tokio::runtime::Handle::current())?;
    let mut publisher = Publisher::new(&config, broker.bootstrap(), client)?;
    let start_us = wall_clock_us() - SINCE_US;
    let story = Story {
        organisation: Organisation::new(SimConfig::new(args.seed, args.reps, start_us)),
        start_us,
        speed: args.speed,
        ends: args.run_for.map(|span| started + span.duration()),
    };
    let tables = service.tables.clone();
    tokio::select! {
        told = tell(story, &mut publisher, Some(tables.as_ref())) => told?,
        stopped = stop => stopped??,
        () = show_status(&service, args.json) => {}
    }
    if args.run_for.is_some() && !args.json {
        summarise(&service).await?;
    }
    service.stop().await;
    Ok(())
}

fn default_data() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("no folder to keep things in: set HOME or give --data DIR")?.join("legwork/demo"))
}

/// Removes what earlier runs left: only what is ours.
fn wipe(data: &Path) -> Result<()> {
    let cache = data.join("cache");
    match std::fs::remove_dir_all(&cache) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", cache.display()))
        }
        _ => Ok(()),
    }
}

fn demo_config(args: &DemoArgs, bootstrap: &str, registry_url: &str, data: &Path) -> Result<Config> {
    let mut overrides = Overrides { set: Vec::new(), ..args.config.overrides() };
    let mut set = |key: &str, value: &str| overrides.set.push((key.to_owned(), value.to_owned()));
    set("time.now", "event");
    // The embedded broker starts empty each time: offsets and state of an earlier run mean nothing to it.
    set("store.url", crate::delivery::MEMORY);
    set("metrics.every", "5s");
    set("log.level", "warn");
    set("instance.cache_dir", &data.join("cache").display().to_string());
    set("reference.dir", &data.join("reference").display().to_string());
    // What the user sets wins over what suits a demo, but not over what makes it one.
    overrides.set.extend(args.config.overrides().set);
    let mut set = |key: &str, value: &str| overrides.set.push((key.to_owned(), value.to_owned()));
    set("kafka.bootstrap", bootstrap);
    set("registry.url", registry_url);
    // The embedded broker ends a rebalance only when a session would have timed out.
    set("kafka.options.session.timeout.ms", "3000");
    set("kafka.options.heartbeat.interval.ms", "300");
    Ok(config::load(&overrides)?)
}

/// The usual ports when they are free, any others otherwise: a second demo must not fail.
async fn start_on_free_ports(config: &Config, args: &DemoArgs) -> Result<Service> {
    let mut config = config.clone();
    let is_chosen = |key: &str| args.config.set.iter().any(|(name, _)| name == key);
    for (key, listen) in [("http.listen", &mut config.http.listen), ("postgres.listen", &mut config.postgres.listen)] {
        if !is_chosen(key) && TcpListener::bind(listen.as_str()).await.is_err() {
            "127.0.0.1:0".clone_into(listen);
        }
    }
    Service::start(&config, true, None).await
}

fn greet(service: &Service, args: &DemoArgs, started: Instant) -> Result<()> {
    let addresses = &service.addresses;
    let psql = addresses.postgres.as_deref().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "Legwork demo: {} reps, seed {}, {}x, ready after {:.1} s",
        args.reps,
        args.seed,
        args.speed,
        started.elapsed().as_secs_f64()
    )?;
    writeln!(out, "  page      {}/", addresses.http)?;
    writeln!(out, "  metrics   {}/metrics", addresses.http)?;
    writeln!(out, "  Kafka     {}   schema registry {}", addresses.kafka, addresses.registry)?;
    writeln!(out, "  SQL       psql {psql}")?;
    writeln!(
        out,
        "            legwork sql --url {} 'SELECT * FROM rep_activity WHERE window_start <= legwork_now() ORDER BY window_start DESC LIMIT 10'",
        addresses.http
    )?;
    writeln!(out, "Ctrl-C ends it.")?;
    Ok(out.flush()?)
}

/// What a glance at the pipeline shows, over SQL as anybody would.
const STATUS_SQL: &str = "SELECT \
    to_char(legwork_now(), '%Y-%m-%d %H:%M:%S') AS now, \
    (SELECT coalesce(sum(n_read), 0) FROM pipeline_lanes) AS n_read, \
    (SELECT coalesce(sum(n_rejected), 0) FROM pipeline_lanes) AS n_rejected, \
    (SELECT count(*) FROM rep_positions) AS n_positions, \
    (SELECT coalesce(sum(distance_m) / 1000, 0)::bigint FROM device_movement) AS km, \
    (SELECT coalesce(sum(n_calls), 0) FROM rep_calls) AS n_calls, \
    (SELECT count(*) FROM deals WHERE status = 'open') AS n_deals_open";

async fn status_line(session: &dyn Session) -> Result<String> {
    use arrow::util::display::array_value_to_string;
    let batches: Vec<_> = session.query(STATUS_SQL).await?.batches.try_collect().await?;
    let Some(batch) = batches.first().filter(|batch| batch.num_rows() == 1) else { return Ok(String::new()) };
    let cell = |column: usize| array_value_to_string(batch.column(column), 0).unwrap_or_default();
    Ok(format!(
        "{} UTC | {} read, {} rejected | {} devices, {} km | {} calls | {} open deals",
        cell(0),
        cell(1),
        cell(2),
        cell(3),
        cell(4),
        cell(5),
        cell(6)
    ))
}

/// Shows the status for ever: on a terminal in one line, otherwise a line now and then.
async fn show_status(service: &Service, json: bool) {
    if json {
        return std::future::pending().await;
    }
    let is_terminal = std::io::stdout().is_terminal();
    for round in 0_u64.. {
        tokio::time::sleep(STATUS_EVERY).await;
        let line = match status_line(service.engine.session().as_ref()).await {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!("the status cannot be had: {error:#}");
                continue;
            }
        };
        let mut out = std::io::stdout().lock();
        // When nobody reads the status any more, the demo goes on for those who read the tables.
        let _ = if is_terminal {
            write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush())
        } else if round % 5 == 0 {
            writeln!(out, "{line}")
        } else {
            Ok(())
        };
    }
}

async fn summarise(service: &Service) -> Result<()> {
    let health = service.health();
    let line = status_line(service.engine.session().as_ref()).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line} | {} lanes", health.n_lanes)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use legwork_query::{Engine, QueryOptions, SqlEngine};
    use legwork_runtime::{ReferenceTables, run_files};

    use super::*;

    #[tokio::test]
    async fn the_status_has_numbers_before_the_first_event() -> Result<()> {
        let lanes = topics::lanes(&Config::default());
        let tables = run_files(Vec::new(), lanes, ReferenceTables::default(), &mut |_| {})?;
        let engine = SqlEngine::new(tables, QueryOptions::default())?;
        let line = status_line(engine.session().as_ref()).await?;
        let numbers = line.split_once(" UTC").map(|(_, numbers)| numbers);
        assert_eq!(numbers, Some(" | 0 read, 0 rejected | 0 devices, 0 km | 0 calls | 0 open deals"), "{line}");
        Ok(())
    }
}
