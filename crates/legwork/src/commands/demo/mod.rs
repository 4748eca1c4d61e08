//! `legwork demo`: everything at once on loopback, with nothing else installed.

mod folder;
mod status;
mod story;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use legwork_codec::registry_server::{self, Registry};
use legwork_kafka::EmbeddedBroker;
use legwork_sim::{Organisation, SimConfig};
use legwork_types::Kind;
use tokio::net::TcpListener;

use self::folder::Folder;
use self::story::{BEHIND_US_MAX, Progress, Told, WAY_OUT};
use super::publish::Publisher;
use super::simulate::{Place, Story, tell};
use crate::args::DemoArgs;
use crate::config::{self, Config, Overrides};
use crate::delivery::{Kept, has_store};
use crate::exit::Failure;
use crate::service::{Service, wall_clock_us};
use crate::topics;

/// Partitions of event topics in the embedded broker.
const N_PARTITIONS: i32 = 4;
/// How often it is written down how far the story is.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// What was sent so long ago, and three checkpoints, is in a checkpoint also where the machine has much to do.
const SENT_LONG_AGO: Duration = Duration::from_secs(15);

pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let stop = tokio::spawn(super::stop_signal());
    let folder = open_folder(&args)?;
    let (broker, registry_url) = (start_broker()?, start_registry().await?);
    let config = demo_config(&args, broker.bootstrap(), &registry_url, &folder)?;
    super::start_logging(&config)?;
    let is_kept = has_store(&config);
    let told = story_of(&args, &folder, is_kept)?;
    let place = told.place(wall_clock_us());
    if is_kept {
        told.write(&folder.story())?;
        go_on(&config, &folder, (&told, place)).await?;
    }

    let service = start_on_free_ports(&config, &args).await?;
    if args.json {
        super::up::announce(&service, true)?;
    } else {
        greet(&service, (&told, args.speed), started)?;
    }

    let client = topics::registry(&config, tokio::runtime::Handle::current())?;
    let mut publisher = Publisher::new(&config, broker.bootstrap(), client)?;
    let story = Story {
        organisation: Organisation::new(SimConfig::new(told.seed, told.reps, told.start_us)),
        place,
        speed: args.speed,
        ends: None,
    };
    let tables = service.tables.clone();
    let told_us = AtomicI64::new(i64::MIN);
    let on_told = |us| told_us.store(us, Ordering::Relaxed);
    let margin = SENT_LONG_AGO + 3 * config.store.checkpoint_every.duration();
    let progress = is_kept.then(|| Progress::new(folder.story(), told, margin));
    tokio::select! {
        told = tell(story, &mut publisher, Some(tables.as_ref()), &on_told) => told?,
        stopped = stop => stopped??,
        () = status::show_status(&service, args.json) => {}
        () = keep(progress, &told_us) => {}
        () = time_is_up(args.run_for.map(|span| started + span.duration())) => {}
    }
    if args.run_for.is_some() && !args.json {
        status::summarise(&service).await?;
    }
    service.stop().await;
    Ok(())
}

/// Where this story is kept: each has a folder of its own in DIR.
fn open_folder(args: &DemoArgs) -> Result<Folder> {
    let data = args.data.clone().map_or_else(default_data, Ok)?;
    let path = std::path::absolute(data)?.join(format!("{}-reps-seed-{}", args.reps, args.seed));
    if let Some(folder) = Folder::open(&path, args.fresh)? {
        return Ok(folder);
    }
    let in_use = format!("{} is in use by another demo", path.display());
    if args.data.is_some() {
        bail!(Failure::Temporary(format!(
            "{in_use}: end that one first, or give this one a folder of its own with --data DIR"
        )));
    }
    eprintln!("{in_use}: this one tells the story from its beginning, in a folder that goes with it.");
    Folder::temporary()
}

fn default_data() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("no folder to keep things in: set HOME or give --data DIR")?.join("legwork/demo"))
}

fn start_broker() -> Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(1)?;
    for kind in Kind::ALL {
        broker.create_topic(kind.topic(), if kind.is_reference() { 1 } else { N_PARTITIONS })?;
        broker.create_topic(&format!("{}.dlq", kind.topic()), 1)?;
    }
    Ok(broker)
}

/// *Returns* its address.
async fn start_registry() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let registry = Registry::in_memory();
    tokio::spawn(async move {
        if let Err(error) = registry_server::serve(listener, registry, std::future::pending()).await {
            tracing::error!(%error, "the registry ended");
        }
    });
    Ok(url)
}

fn demo_config(args: &DemoArgs, bootstrap: &str, registry_url: &str, folder: &Folder) -> Result<Config> {
    let mut overrides = Overrides { set: Vec::new(), ..args.config.overrides() };
    let mut set = |key: &str, value: &str| overrides.set.push((key.to_owned(), value.to_owned()));
    set("time.now", "event");
    set("store.url", &format!("file://{}", folder.store().display()));
    // Not where the configuration of some other Legwork in this place has its lake.
    set("lake.url", &format!("file://{}/lake", folder.store().display()));
    set("metrics.every", "5s");
    set("log.level", "warn");
    set("instance.cache_dir", &folder.cache().display().to_string());
    set("reference.dir", &folder.reference().display().to_string());
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

/// The story that the folder has, or a new one. Where nothing is kept every story is new.
fn story_of(args: &DemoArgs, folder: &Folder, is_kept: bool) -> Result<Told> {
    if is_kept && let Some(told) = Told::read(&folder.story(), args.seed, args.reps)? {
        return Ok(told);
    }
    if is_kept && folder.store().join("lanes").exists() {
        bail!(Failure::Usage(format!(
            "{} holds the history of a demo, but {}, which says whose and how far it was told, is missing: {WAY_OUT}",
            folder.store().display(),
            folder.story().display()
        )));
    }
    let start_us = wall_clock_us() - BEHIND_US_MAX;
    Ok(Told::new(args.seed, args.reps, start_us))
}

/// Lets the lanes of an earlier run go on, and says on stderr how: stdout may be read by a program.
async fn go_on(config: &Config, folder: &Folder, (told, place): (&Told, Place)) -> Result<()> {
    let Some(kept) = Kept::open(config).await? else { return Ok(()) };
    let n_lanes = super::lanes::accept_all(config, &kept).await;
    let n_lanes = n_lanes.with_context(|| format!("{} cannot be gone on with: {WAY_OUT}", folder.store().display()))?;
    let text = |time_us: i64| {
        let time = chrono::DateTime::from_timestamp_micros(time_us).unwrap_or_default();
        time.format("%Y-%m-%d %H:%M UTC").to_string()
    };
    if !told.is_untold() {
        eprintln!(
            "The story of {} reps, seed {}, goes on at {}; {n_lanes} lanes keep what they have counted and read a new, empty log.",
            told.reps,
            told.seed,
            text(place.told_us)
        );
    }
    if place.from_us > place.told_us {
        eprintln!("What happened until {} is left out: that run ended long ago.", text(place.from_us));
    }
    Ok(())
}

/// Writes down for ever how far the story is.
async fn keep(progress: Option<Progress>, told_us: &AtomicI64) {
    let Some(mut progress) = progress else { return std::future::pending().await };
    loop {
        tokio::time::sleep(KEEP_EVERY).await;
        let told_us = told_us.load(Ordering::Relaxed);
        if told_us > i64::MIN
            && let Err(error) = progress.note(told_us, Instant::now())
        {
            tracing::warn!("how far the story is cannot be kept: {error:#}");
        }
    }
}

/// Whatever the story is at: it may have much to catch up with.
async fn time_is_up(ends: Option<Instant>) {
    match ends {
        Some(ends) => tokio::time::sleep_until(ends.into()).await,
        None => std::future::pending().await,
    }
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

fn greet(service: &Service, (told, speed): (&Told, f64), started: Instant) -> Result<()> {
    let addresses = &service.addresses;
    let psql = addresses.postgres.as_deref().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "Legwork demo: {} reps, seed {}, {}x, ready after {:.1} s",
        told.reps,
        told.seed,
        speed,
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
