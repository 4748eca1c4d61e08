//! The pipeline with its servers, as `up`, `run` and `demo` start it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_kafka::{DeadLetters, KafkaConfig, KafkaSource};
use legwork_query::{Engine, NowSource, QueryOptions, SqlEngine, WeekStart};
use legwork_runtime::{Pipeline, PipelineHealth, PipelineMetrics, ReferenceDir, ReferenceTables};
use legwork_server::http::{self, HttpLimits, HttpState, router};
use legwork_server::metrics::{BusinessMetrics, MetricsOptions};
use legwork_server::postgres::{self, PostgresLimits};
use legwork_server::{Readiness, ReadinessReport};
use legwork_state::StateStore;
use legwork_types::{LaneState, LiveTables};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::commands::repair::{RepairMetrics, repair_due};
use crate::config::{Config, ConfigError, without_password};
use crate::delivery::Kept;
use crate::letters::Letters;
use crate::topics;
use crate::upkeep::Schedule;

/// How often the folder of reference files is looked at.
const REFERENCE_EVERY: Duration = Duration::from_secs(2);
/// How long servers may take to end their connections.
const SERVERS_END_MAX: Duration = Duration::from_secs(3);

/// How much longer than a query a client may take to read its answer.
const READING_MAX: Duration = Duration::from_secs(30);

/// Where to reach what runs; the ready line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Addresses {
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) http: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres: Option<String>,
}

/// A running pipeline with its servers.
pub(crate) struct Service {
    pub(crate) addresses: Addresses,
    pub(crate) tables: Arc<dyn LiveTables>,
    pub(crate) engine: Arc<dyn Engine>,
    pipeline: Pipeline,
    dead_letters: Option<Letters>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Service {
    /// Starts everything. With `has_postgres` false nothing listens for the PostgreSQL protocol.
    pub(crate) async fn start(
        config: &Config,
        has_postgres: bool,
        fixed_reference: Option<ReferenceTables>,
    ) -> Result<Service> {
        let prometheus = prometheus::Registry::new();
        build_info(&prometheus)?;
        let http_listener = bind("http.listen", &config.http.listen).await?;
        let postgres = if has_postgres { Some(bind("postgres.listen", &config.postgres.listen).await?) } else { None };

        let kept = Kept::open(config).await?;
        let options = knowing(query_options(config)?, kept.as_ref()).await?;
        let registry = topics::registry(config, tokio::runtime::Handle::current())?;
        let topic_configs = topics::topics(config, &registry);
        let source = topics::kafka(config, &topic_configs)?;
        let dead_letters = dead_letters(config, &source)?.map(Letters::start).transpose()?;
        let mut lanes = topics::lanes(config);
        lanes.dead_letters = dead_letters.as_ref().map(|letters| letters.sink());
        lanes.delivery = kept.as_ref().map(|kept| kept.delivery(config));
        lanes.operators.has_store = kept.is_some();
        lanes.operators.track.has_store = kept.is_some();
        let claim = lanes.delivery.as_ref().map(|delivery| {
            let kinds = topic_configs.iter().map(|topic| (topic.name.clone(), topic.kind)).collect();
            delivery.claim_partition(kinds, lanes.operators)
        });
        let metrics = PipelineMetrics::register(&prometheus)?;
        let source = KafkaSource::with_claims(source, claim).map_err(|error| ConfigError(format!("kafka: {error}")))?;
        let n_workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let pipeline = Pipeline::start(lanes, topic_configs, n_workers, Box::new(source), metrics)?;
        let tables = pipeline.tables();
        let engine: Arc<dyn Engine> = match &kept {
            Some(kept) => Arc::new(SqlEngine::with_history(tables.clone(), kept.tables.clone(), options)?),
            None => Arc::new(SqlEngine::new(tables.clone(), options)?),
        };

        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        match fixed_reference {
            Some(reference) => pipeline.set_reference(reference),
            None => follow_reference(config, &pipeline, &mut tasks, stopped.clone()),
        }
        let ready = Ready { probe: Box::new(pipeline.health_probe()), config: config.clone() };
        let addresses = Addresses {
            kafka: config.kafka.bootstrap.clone(),
            registry: without_password(&config.registry.url),
            http: format!("http://{}", http_listener.local_addr()?),
            postgres: postgres
                .as_ref()
                .map(|listener| listener.local_addr())
                .transpose()?
                .map(|addr| format!("postgres://legwork@{addr}/legwork")),
        };
        let business = Arc::new(BusinessMetrics::new(engine.as_ref(), metrics_options(config)));
        let state = HttpState {
            engine: engine.clone(),
            readiness: Arc::new(ready),
            registry: prometheus.clone(),
            business: Some(business.clone()),
            hosts: Vec::new(),
            sql_bytes_max: config.query.sql_bytes_max.bytes(),
        };
        serve(
            &mut tasks,
            (http_listener, state, business),
            postgres.map(|listener| (listener, engine.clone())),
            config,
            &stopped,
        );
        if let (Some(kept), Some(schedule)) = (&kept, Schedule::of(config)) {
            let (lake, stopped) = (kept.tables.clone(), stopped.clone());
            let repair =
                repairing((config.clone(), kept.clone(), RepairMetrics::register(&prometheus)?), stopped.clone());
            tasks.spawn(async move { schedule.run(&lake, repair, stopped).await });
        }
        Ok(Service { addresses, tables, engine, pipeline, dead_letters, stop, tasks })
    }

    /// How the pipeline does.
    pub(crate) fn health(&self) -> PipelineHealth {
        self.pipeline.health()
    }

    /// Stops the servers, the lanes, the source, in this order; sends what dead letters are left.
    pub(crate) async fn stop(mut self) {
        // Without receivers all servers have ended by themselves.
        let _ = self.stop.send(true);
        let servers = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SERVERS_END_MAX, servers).await.is_err() {
            self.tasks.abort_all();
        }
        let (pipeline, dead_letters) = (self.pipeline, self.dead_letters);
        let stopped = tokio::task::spawn_blocking(move || {
            pipeline.stop();
            if let Some(letters) = dead_letters {
                letters.stop();
            }
        });
        if stopped.await.is_err() {
            tracing::error!("stopping the pipeline failed");
        }
    }
}

/// The options, where now is the newest event time with what the store knows of that: lanes are taken up later.
async fn knowing(mut options: QueryOptions, kept: Option<&Kept>) -> Result<QueryOptions> {
    if let (NowSource::Event { known_us }, Some(kept)) = (&mut options.now, kept) {
        let heads = kept.store.lanes().await.map_err(crate::data::store_error)?;
        *known_us = heads
            .into_iter()
            .filter_map(|(_, head)| Some(head.ok()?.newest_us))
            .filter(|&newest_us| newest_us > i64::MIN)
            .max();
    }
    Ok(options)
}

/// Serves HTTP with the metrics, and the PostgreSQL protocol where there is a listener for it, until `stopped`.
fn serve(
    tasks: &mut JoinSet<()>,
    (http_listener, state, business): (TcpListener, HttpState, Arc<BusinessMetrics>),
    postgres: Option<(TcpListener, Arc<dyn Engine>)>,
    config: &Config,
    stopped: &watch::Receiver<bool>,
) {
    let business_stopped = stopped.clone();
    tasks.spawn(async move { business.run(business_stopped).await });
    let http_stopped = stopped.clone();
    tasks.spawn(async move {
        if let Err(error) = http::serve(http_listener, router(state), http_stopped, HttpLimits::default()).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    if let Some((listener, engine)) = postgres {
        let stopped = stopped.clone();
        let limits = PostgresLimits {
            sql_bytes_max: config.query.sql_bytes_max.bytes(),
            statement_max: config.query.timeout.duration().saturating_add(READING_MAX),
            ..PostgresLimits::default()
        };
        tasks.spawn(async move {
            if let Err(error) = postgres::serve(listener, engine, stopped, limits).await {
                tracing::error!(%error, "the PostgreSQL server ended");
            }
        });
    }
}

/// Repairs what is due, until it is told to stop, on a thread of its own: it computes for long.
fn repairing(
    of_repair: (Config, Kept, RepairMetrics),
    stopped: watch::Receiver<bool>,
) -> impl Fn() -> BoxFuture<'static, Result<()>> {
    move || {
        let ((config, kept, metrics), mut stopped) = (of_repair.clone(), stopped.clone());
        let runtime = Handle::current();
        let repaired = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    done = repair_due(&config, &kept, &metrics) => done,
                    _ = stopped.wait_for(|&stop| stop) => Ok(()),
                }
            })
        });
        async move { repaired.await? }.boxed()
    }
}

fn dead_letters(config: &Config, kafka: &KafkaConfig) -> Result<Option<DeadLetters>, ConfigError> {
    if !config.kafka.dead_letters {
        return Ok(None);
    }
    let default = crate::config::Topic::default().dead_letter;
    let wrong = |error| ConfigError(format!("kafka: {error}"));
    let mut letters = DeadLetters::new(kafka, &default).map_err(wrong)?;
    for (kind, name) in topics::names(config) {
        letters = letters.with_template(&name, &config.topics.of(kind).dead_letter);
    }
    Ok(Some(letters))
}

/// Binds an address that only this machine reaches.
async fn bind(key: &str, address: &str) -> Result<TcpListener> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address)
        .await
        .map_err(|error| ConfigError(format!("{key} {address:?}: {error}")))?
        .collect();
    let Some(&address) = addresses.first() else { bail!(ConfigError(format!("{key} {address:?} names no address"))) };
    postgres::require_loopback(address).map_err(|_| {
        ConfigError(format!(
            "{key} {address} is not loopback: without authentication only 127.0.0.1 and [::1] are bound"
        ))
    })?;
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key} {address} cannot be bound: choose another, or port 0 for any free one"))
}

/// The version in metrics.
fn build_info(registry: &prometheus::Registry) -> Result<()> {
    let opts = prometheus::Opts::new("legwork_build_info", "Version of this process; always 1.");
    let gauge = prometheus::IntGaugeVec::new(opts, &["version"])?;
    gauge.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(gauge))?;
    Ok(())
}

pub(crate) fn query_options(config: &Config) -> Result<QueryOptions, ConfigError> {
    let query = &config.query;
    let now =
        match config.time.now.as_str() {
            "system" => NowSource::System,
            "event" => NowSource::Event { known_us: None },
            time => NowSource::Fixed(topics::parse_time(time).map_err(|error| {
                ConfigError(format!("time.now is wrong: expected system, event or a time; {error}"))
            })?),
        };
    let week_start = match config.business.week_start.as_str() {
        "monday" => WeekStart::Monday,
        "sunday" => WeekStart::Sunday,
        other => {
            return Err(ConfigError(format!(
                "business.week_start is wrong: expected monday or sunday, found {other:?}"
            )));
        }
    };
    Ok(QueryOptions {
        concurrency: query.concurrency,
        timeout: query.timeout.duration(),
        lanes_wait: query.lanes_wait.duration(),
        memory_bytes_max: query.memory_bytes_max.bytes(),
        rows_max: usize::try_from(query.rows_max).unwrap_or(usize::MAX),
        result_bytes_max: query.result_bytes_max.bytes(),
        sql_bytes_max: query.sql_bytes_max.bytes(),
        now,
        base_currency: config.business.currency.clone(),
        calendar: config.business.calendar.clone(),
        week_start,
        ..QueryOptions::default()
    })
}

fn metrics_options(config: &Config) -> MetricsOptions {
    MetricsOptions {
        by_rep: config.metrics.by_rep,
        series_max: config.metrics.series_max,
        every: config.metrics.every.duration(),
    }
}

/// Reads the reference files now and whenever they change.
fn follow_reference(config: &Config, pipeline: &Pipeline, tasks: &mut JoinSet<()>, mut stopped: watch::Receiver<bool>) {
    let mut dir = ReferenceDir::new(config.reference.dir.clone());
    refresh(&mut dir, pipeline.reference_setter());
    let set = pipeline.reference_setter();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(REFERENCE_EVERY) => {}
                _ = stopped.wait_for(|&stop| stop) => return,
            }
            let set = set.clone();
            let refreshed = tokio::task::spawn_blocking(move || {
                refresh(&mut dir, set);
                dir
            });
            match refreshed.await {
                Ok(back) => dir = back,
                Err(error) => {
                    tracing::error!(%error, "reference files are not followed any more");
                    return;
                }
            }
        }
    });
}

fn refresh(dir: &mut ReferenceDir, set: impl Fn(ReferenceTables)) {
    let (tables, errors) = dir.refresh(wall_clock_us());
    for error in errors {
        tracing::warn!("{error}; its last good version stays");
    }
    if let Some(tables) = tables {
        tracing::info!(tables = ?tables.names().collect::<Vec<_>>(), "reference files read");
        set(tables);
    }
}

/// The system's clock, microseconds since 1970-01-01 UTC.
pub(crate) fn wall_clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

struct Ready {
    probe: Box<dyn Fn() -> PipelineHealth + Send + Sync>,
    config: Config,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ready")
    }
}

impl Readiness for Ready {
    fn readiness(&self) -> ReadinessReport {
        reasons((self.probe)(), &self.config)
    }
}

/// Why a pipeline is not ready. A topic that nobody wrote down may be missing as long as there is any other to read.
pub(crate) fn reasons(health: PipelineHealth, config: &Config) -> ReadinessReport {
    let mut reasons: Vec<String> = health.fatal.into_iter().collect();
    for (hop, message) in &health.troubles {
        let topic = hop.strip_prefix("topic ");
        if health.n_lanes == 0 || topic.is_none_or(|topic| topics::is_explicit(config, topic)) {
            reasons.push(message.clone());
        }
    }
    if health.n_lanes == 0 && reasons.is_empty() {
        reasons.push("no partition is assigned yet".to_owned());
    }
    if health.n_awaited > 0 {
        reasons.push(format!(
            "lanes of {} assigned partitions are being taken up: answers lack their newest rows",
            health.n_awaited
        ));
    }
    for lane in health.lanes {
        if matches!(lane.state, LaneState::Paused | LaneState::Halted) {
            reasons.push(format!("lane {}-{} is {}: {}", lane.topic, lane.partition, lane.state.as_str(), lane.detail));
        }
    }
    ReadinessReport::unless(reasons)
}
