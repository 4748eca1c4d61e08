//! The configuration: what there is, and its defaults.

mod load;
mod units;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use legwork_types::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use load::{ConfigError, Overrides, load, load_quiet, masked, read_secret, without_password};
pub(crate) use units::{Size, Span};

/// Everything that `legwork.toml` may say.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) instance: Instance,
    pub(crate) log: Log,
    pub(crate) kafka: Kafka,
    pub(crate) registry: Registry,
    /// One table per kind, such as `[topics.gps]`.
    pub(crate) topics: Topics,
    pub(crate) reference: Reference,
    pub(crate) store: Store,
    pub(crate) lake: Lake,
    pub(crate) time: Time,
    pub(crate) dedup: Dedup,
    pub(crate) track: Track,
    pub(crate) http: Http,
    pub(crate) postgres: Postgres,
    #[serde(skip_serializing)]
    pub(crate) flight: Flight,
    #[serde(skip_serializing)]
    pub(crate) internal: Internal,
    pub(crate) query: Query,
    pub(crate) metrics: Metrics,
    pub(crate) business: Business,
    /// Sections that somebody set and this version does nothing with.
    #[serde(skip)]
    pub(crate) unserved: Vec<&'static str>,
}

/// Sections whose names are reserved for what later versions serve. They are accepted, told, and not printed as if they were in force.
const UNSERVED: [(&str, &str); 2] = [("flight", "Flight SQL"), ("internal", "the port among instances")];

impl Config {
    /// What somebody set without any effect, in words.
    pub(crate) fn without_effect(&self) -> Vec<String> {
        let set = UNSERVED.iter().filter(|(section, _)| self.unserved.contains(section));
        set.map(|(section, what)| format!("[{section}] has no effect: {what} is not served by this version yet"))
            .collect()
    }
}

macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct $name { $($(#[doc = $field_doc])+ pub(crate) $field: $type,)* }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }
    };
}

const fn seconds(n: i64) -> Span {
    Span(n * 1_000_000)
}

const fn mib(n: u64) -> Size {
    Size(n << 20)
}

section! {
    /// This process among others.
    Instance {
        /// Name; the host's name by default. Also Kafka's group.instance.id.
        id: String = hostname(),
        /// Folder for what may be lost at any time.
        cache_dir: PathBuf = PathBuf::from("./cache"),
    }
}

section! {
    /// Log lines on stderr.
    Log {
        /// error, warn, info, debug, trace, or a filter such as `info,legwork_kafka=debug`.
        level: String = "info".to_owned(),
        /// text or json.
        format: LogFormat = LogFormat::Text,
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

section! {
    /// The source.
    Kafka {
        /// Addresses of brokers, comma-separated.
        bootstrap: String = "localhost:9092".to_owned(),
        /// Consumer group.
        group: String = "legwork".to_owned(),
        /// Where lanes without a checkpoint start: earliest, latest, or a time (RFC 3339).
        start: String = "earliest".to_owned(),
        /// Partitioner that producers use: murmur2 (Java's), crc32 (librdkafka's default), or any for no check.
        partitioner: Partitioner = Partitioner::Murmur2,
        /// Bytes fetched ahead over all partitions of this process.
        fetch_bytes_max: Size = mib(128),
        /// Largest message; larger ones are rejected.
        message_bytes_max: Size = mib(1),
        /// Whether rejected messages are sent to dead-letter topics besides being kept in rejected_events.
        dead_letters: bool = true,
        /// librdkafka's own options, verbatim; `NAME_file` reads the value of NAME from a file.
        options: Options = Options::default(),
    }
}

/// Options that somebody else names: any name, any scalar.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Options(pub(crate) BTreeMap<String, toml::Value>);

impl JsonSchema for Options {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Options".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        })
    }
}

/// How producers choose partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Partitioner {
    Murmur2,
    Crc32,
    Any,
}

section! {
    /// The schema registry.
    Registry {
        /// Address.
        url: String = "http://localhost:8081".to_owned(),
        /// User of basic authentication.
        username: Option<String> = None,
        /// File with its password.
        password_file: Option<PathBuf> = None,
        /// Its password; better given as environment LEGWORK__REGISTRY__PASSWORD or as a file.
        password: Option<String> = None,
        /// File with a bearer token.
        token_file: Option<PathBuf> = None,
        /// File with the authority's certificate (PEM).
        ca_file: Option<PathBuf> = None,
        /// How long one request may take.
        timeout: Span = seconds(5),
    }
}

/// Topics by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Topics(pub(crate) BTreeMap<String, Topic>);

section! {
    /// The topics of one kind.
    Topic {
        /// Whether they are read.
        enabled: bool = true,
        /// Their names; the kind's default topic when absent.
        names: Option<Vec<String>> = None,
        /// How messages are encoded: avro or json.
        format: Format = Format::Avro,
        /// Where rejected messages go; {topic} stands for the topic's name.
        dead_letter: String = "{topic}.dlq".to_owned(),
        /// Events older than this at arrival are rejected: 30d for gps, 3650d for others when absent.
        past_max: Option<Span> = None,
    }
}

/// How messages are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Avro,
    Json,
}

impl Topics {
    /// The settings of a kind.
    pub(crate) fn of(&self, kind: Kind) -> Topic {
        self.0.get(kind.name()).cloned().unwrap_or_default()
    }

    /// Whether somebody wrote the kind's topics down.
    pub(crate) fn is_explicit(&self, kind: Kind) -> bool {
        self.0.get(kind.name()).is_some_and(|topic| topic.names.is_some())
    }
}

section! {
    /// Reference data.
    Reference {
        /// Folder with files <name>.{csv,parquet,ndjson}; they win over topics.
        dir: PathBuf = PathBuf::from("./reference"),
        /// Whether the topics ref.<name>.v1 are read.
        topics: bool = true,
    }
}

section! {
    /// The lanes' store: state, offsets, and rows that the lake does not hold yet.
    Store {
        /// Where it lies: file, s3, gs, az; or memory: for none, then everything is rebuilt from the topics after a restart.
        url: String = "file:///var/lib/legwork".to_owned(),
        /// How often a lane that changes makes a checkpoint.
        checkpoint_every: Span = seconds(10),
        /// Options of the object store, by its own names.
        options: Options = Options::default(),
    }
}

section! {
    /// The lake: Delta tables of all facts and, by default, all events.
    Lake {
        /// Where it lies; below store.url when absent.
        url: Option<String> = None,
        /// How often it is committed.
        commit_every: Span = seconds(60),
        /// How often open rows are committed too.
        open_rows_every: Span = seconds(900),
        /// How often small files are put together, days beyond their retention dropped, and files that nobody needs deleted: by one instance
        /// of all. 0s: never by this one.
        maintain_every: Span = seconds(600),
        /// How often days are repaired that events came to beyond time.late_horizon, after maintenance and by the same instance. 0s: never.
        repair_every: Span = seconds(3_600),
        /// Size that compaction aims at.
        file_bytes_target: Size = mib(128),
        /// How long tables keep their rows.
        retention: BTreeMap<String, Span> = BTreeMap::from([("gps_pings".to_owned(), seconds(60 * 86_400)), ("rejected_events".to_owned(), seconds(14 * 86_400))]),
        /// Whether every accepted event is kept as a table of its own.
        raw_events: bool = true,
        /// Memory for events of all kinds; beyond it they go to the cache folder.
        raw_events_memory_max: Size = mib(8),
        /// Space in the cache folder for events; beyond it the oldest go, counted in legwork_raw_events_dropped_total.
        raw_events_disk_max: Size = Size(8 << 30),
    }
}

section! {
    /// Event time.
    Time {
        /// Width of the fact window.
        window: Span = seconds(300),
        /// How far a key's clock must pass a window's end before it closes.
        reorder_bound: Span = seconds(120),
        /// How far the lane's clock must advance past a silent key before its windows close.
        idle_close: Span = seconds(1_800),
        /// How far behind its key's clock an event is still corrected.
        late_horizon: Span = seconds(7 * 86_400),
        /// How far after its arrival an event may be stamped.
        future_skew_max: Span = seconds(300),
        /// A lane that heard nothing for so long is idle.
        lane_idle_after: Span = seconds(60),
        /// What views take for now: system, event (newest event time), or a time (RFC 3339).
        now: String = "system".to_owned(),
    }
}

section! {
    /// Removal of duplicates.
    Dedup {
        /// How far back duplicates are recognised.
        horizon: Span = seconds(48 * 3_600),
        /// Memory for it.
        memory_bytes_max: Size = mib(256),
    }
}

section! {
    /// The filter of tracks.
    Track {
        /// Fixes less accurate than this are left out, metres.
        accuracy_m_max: f64 = 200.0,
        /// Faster than this is impossible, metres per second.
        speed_mps_max: f64 = 70.0,
        /// A device has not moved before it is this far from its anchor, metres.
        anchor_m_min: f64 = 15.0,
        /// Or this many times the accuracy, whichever is more.
        anchor_accuracy_factor: f64 = 1.0,
        /// A stay lies within this radius, metres.
        stay_radius_m: f64 = 100.0,
        /// And lasts at least this long.
        stay_min: Span = seconds(300),
        /// A longer silence is a gap, not travel.
        gap_max: Span = seconds(900),
        /// Memory for tracks.
        memory_bytes_max: Size = Size(1 << 30),
    }
}

section! {
    /// HTTP. Only loopback, as long as there is no authentication.
    Http {
        /// Address and port; port 0 takes any free one and shows it.
        listen: String = "127.0.0.1:8080".to_owned(),
    }
}

section! {
    /// The PostgreSQL protocol. Only loopback, as long as there is no authentication.
    Postgres {
        /// Address and port; port 0 takes any free one and shows it.
        listen: String = "127.0.0.1:5433".to_owned(),
    }
}

section! {
    /// Flight SQL; not served by this version.
    Flight {
        /// Address and port.
        listen: String = "127.0.0.1:50051".to_owned(),
    }
}

section! {
    /// The port among instances; not served by this version.
    Internal {
        /// Address and port.
        listen: String = "127.0.0.1:7070".to_owned(),
        /// Address that others reach it by.
        advertise: Option<String> = None,
        /// File with the token that instances share.
        token_file: Option<PathBuf> = None,
    }
}

section! {
    /// Limits of queries.
    Query {
        /// Queries at the same time.
        concurrency: usize = 8,
        /// Longest time of one, planning and reading included.
        timeout: Span = seconds(30),
        /// How long one waits for lanes that are on their way, after a start or a rebalance; then it says whose rows it lacks.
        lanes_wait: Span = seconds(5),
        /// Memory of one.
        memory_bytes_max: Size = mib(512),
        /// Rows that one may return.
        rows_max: u64 = 1_000_000,
        /// Bytes that one may return.
        result_bytes_max: Size = mib(256),
        /// Longest statement.
        sql_bytes_max: Size = Size(256 << 10),
    }
}

section! {
    /// Business metrics.
    Metrics {
        /// Whether there are series of single reps.
        by_rep: bool = false,
        /// Series of one metric; the rest is summed as `other`.
        series_max: usize = 10_000,
        /// How often they are evaluated.
        every: Span = seconds(15),
    }
}

section! {
    /// What business means here.
    Business {
        /// Base currency, ISO 4217.
        currency: String = "USD".to_owned(),
        /// Calendar where none is given.
        calendar: String = "default".to_owned(),
        /// First day of the week: monday or sunday.
        week_start: String = "monday".to_owned(),
    }
}

/// Names of the tables that the lake keeps.
pub(crate) fn lake_tables() -> Vec<String> {
    let facts = legwork_types::Table::ALL.iter().filter(|table| table.def().day.is_some()).map(|table| table.name());
    let events = Kind::ALL.into_iter().filter(|kind| !kind.is_reference()).map(Kind::table);
    facts.chain(events).map(str::to_owned).collect()
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "legwork".to_owned())
}

/// JSON Schema of the configuration.
pub(crate) fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}
