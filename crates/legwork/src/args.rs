//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use legwork_types::{Kind, LaneId};

use crate::config::{Overrides, Span};
use crate::output::Format;

/// Live, correct, queryable facts about a field organisation, from Kafka to SQL.
///
/// Start with `legwork demo`: it needs nothing else. Data goes to stdout, logs to stderr. Exit codes: 0 done, 1 failed,
/// 2 wrong usage, 75 failed for now (trying again may help), 78 wrong configuration.
#[derive(Debug, Parser)]
#[command(name = "legwork", version, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command that reads the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file; ./legwork.toml when that exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key over file and environment, such as kafka.bootstrap=localhost:9092.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
}

impl ConfigArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { file: self.config.clone(), set: self.set.clone() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows everything at once: embedded broker and registry, a simulated organisation, the pipeline, SQL, metrics.
    ///
    /// It may be ended and started again: the facts of earlier runs are there at once, and the story goes on where it was, at most 8 hours back.
    Demo(DemoArgs),
    /// Runs everything in one process on a real Kafka: ingest, SQL, HTTP, metrics.
    Up(UpArgs),
    /// Runs the ingest with HTTP and metrics, without the PostgreSQL port.
    Run(UpArgs),
    /// Answers SQL: of a running Legwork, of the store and lake in a folder, or over files run through the same operators.
    #[command(
        after_help = "Examples:\n  legwork sql 'SELECT * FROM rep_activity WHERE window_start <= legwork_now() ORDER BY window_start DESC LIMIT 10'\n  legwork sql --data /var/lib/legwork 'SELECT count(*) FROM gps_pings'\n  legwork sql --input gps=pings.csv.gz --map device_id=uid --map event_time=datetime \\\n    'SELECT device_id, sum(raw_m) / 1000 AS raw_km FROM device_movement GROUP BY device_id'"
    )]
    Sql(SqlArgs),
    /// Explains a device's distance ping by ping: what was counted, what was not, and why.
    Explain(ExplainArgs),
    /// Sends recorded files to Kafka at a chosen speed.
    ///
    /// Records are stamped with their event times, so that replays agree: a topic that exists must keep records that old
    /// (retention.ms); topics that are made here keep everything. With --shift-to-now the recording starts now.
    Replay(ReplayArgs),
    /// Sends a simulated organisation's events to a Kafka.
    Simulate(SimulateArgs),
    /// Checks the configuration and every hop: broker, topics, registry, schemas, store, lake, lanes.
    ///
    /// It writes one small object into the lake, as commits do: run it as the user that the service runs as.
    Check(CheckArgs),
    /// Prints the configuration as it is in force, or its JSON Schema.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Lists the schemas of all events, or registers them.
    #[command(subcommand)]
    Schemas(SchemasCommand),
    /// Runs the small schema registry alone.
    Registry(RegistryArgs),
    /// Puts recorded files into the lake, once: through the same operators as everything else.
    ///
    /// The files of a kind are one set, with a name that follows from what they hold. Giving the same set again changes nothing, and goes on
    /// where it was interrupted. Give all files of a device, a rep or a deal together: what lies between two sets is not measured. Refused
    /// are files that the lake has already, changed files, and days that a running lane may still write.
    #[command(
        after_help = "Examples:\n  legwork backfill --input gps=2025-01.csv.gz --input gps=2025-02.csv.gz --data /var/lib/legwork\n  legwork sql --data /var/lib/legwork 'SELECT device_id, sum(distance_m) FROM device_movement GROUP BY 1'"
    )]
    Backfill(BackfillArgs),
    /// Computes the days anew that late events belong to, from everything that is stored, by the operators that lanes have.
    ///
    /// An event that comes later than time.late_horizon behind its device's or rep's newest one is kept in late_events and counted nowhere. This
    /// counts it: rows of device_movement, stays, trips, device_coverage, rep_emails, rep_messages and touches that come out differently get a
    /// new version in the lake, rows that are no more are retracted. Twice is once. Refused are days that a lane still counts. A running service
    /// does this by itself every lake.repair_every.
    #[command(
        after_help = "Examples:\n  legwork repair --from 2026-10-01 --to 2026-11-01 --dry-run\n  legwork repair --from 2026-10-01 --to 2026-11-01 --data /var/lib/legwork"
    )]
    Repair(RepairArgs),
    /// Lists the lanes of the store, or lets one go on that has halted.
    #[command(subcommand)]
    Lanes(LanesCommand),
    /// Prints a topic's messages, decoded, one JSON object a line.
    Tap(TapArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Size of the organisation.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) reps: u32,
    /// The same seed tells the same story.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Seconds that pass in a second until the story has reached now.
    #[arg(long, default_value_t = 60.0, value_parser = story_speed)]
    pub(crate) speed: f64,
    /// Ends after this time, such as 60s; runs until it is stopped otherwise.
    #[arg(long = "for", value_name = "DURATION")]
    pub(crate) run_for: Option<Span>,
    /// Folder where facts and story are kept, each story in a folder of its own; one below the cache folder of the user otherwise. The next demo of
    /// the same story shows them at once and goes on.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Forgets what earlier demos kept of this story, and begins it anew.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Prints one line of JSON once it is ready instead of the status.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Prints one line of JSON with the addresses once it is ready.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InputArgs {
    /// A file of events or reference records, such as gps=pings.csv.gz: CSV, Parquet, NDJSON, Avro or, for pings, GPX.
    #[arg(long, value_name = "KIND=FILE", value_parser = kind_file)]
    pub(crate) input: Vec<(Kind, PathBuf)>,
    /// The file's column for a field, such as event_time=datetime, or gps.event_time=datetime for one kind only.
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = key_value, requires = "input")]
    pub(crate) map: Vec<(String, String)>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    /// A running Legwork: http://... or postgres://...
    #[arg(long, conflicts_with = "input", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// A folder, or address, with store and lake: what is there is asked, whether a Legwork runs on it or not.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "url"])]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) files: InputArgs,
    /// Width of the fact window, such as 1m (5m otherwise).
    #[arg(long, value_name = "DURATION", requires = "input")]
    pub(crate) window: Option<Span>,
    /// What legwork_now() is, RFC 3339; the newest event time of the files otherwise.
    #[arg(long, value_name = "TIME")]
    pub(crate) as_of: Option<String>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The statement; read from stdin when it is absent or -.
    pub(crate) sql: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The device.
    #[arg(long)]
    pub(crate) device: String,
    /// From this time on, RFC 3339.
    #[arg(long)]
    pub(crate) from: String,
    /// Until this time, RFC 3339.
    #[arg(long)]
    pub(crate) to: String,
    /// A running Legwork.
    #[arg(long, conflicts_with = "input", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) files: InputArgs,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Files to send, such as gps=pings.csv.gz.
    #[arg(value_name = "KIND=FILE", required = true, value_parser = kind_file)]
    pub(crate) files: Vec<(Kind, PathBuf)>,
    /// The file's column for a field, such as event_time=datetime.
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = key_value)]
    pub(crate) map: Vec<(String, String)>,
    /// Event seconds in a second; 0 sends as fast as it can.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// Moves all times so that the recording starts now.
    #[arg(long)]
    pub(crate) shift_to_now: bool,
    /// Brokers; those of the configuration otherwise.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Brokers; those of the configuration otherwise.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) bootstrap: Option<String>,
    /// Size of the organisation.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) reps: u32,
    /// The same seed tells the same story.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Seconds that pass in a second until the story has reached now.
    #[arg(long, default_value_t = 60.0, value_parser = story_speed)]
    pub(crate) speed: f64,
    /// How long before now the story starts.
    #[arg(long, default_value = "8h")]
    pub(crate) since: Span,
    /// Ends after this time; runs until it is stopped otherwise.
    #[arg(long = "for", value_name = "DURATION")]
    pub(crate) run_for: Option<Span>,
    /// Partitions of topics that do not exist yet.
    #[arg(long, default_value_t = 4)]
    pub(crate) partitions: i32,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Prints the findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Prints what is in force, as TOML; secrets are masked.
    Print(ConfigArgs),
    /// Prints the JSON Schema of legwork.toml.
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemasCommand {
    /// Lists kinds, topics, keys and records; with --avro the schemas themselves.
    List {
        /// Prints the Avro schema of one kind.
        #[arg(long, value_name = "KIND")]
        avro: Option<Kind>,
    },
    /// Registers every schema as <topic>-value.
    Register(ConfigArgs),
}

/// Where store and lake are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Folder, or address, with store and lake; those of the configuration otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackfillArgs {
    #[command(flatten)]
    pub(crate) files: InputArgs,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Prints one JSON object a kind.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// Events from this time on, RFC 3339 or a day.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: String,
    /// Events before this time, RFC 3339 or a day.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: String,
    /// Every device and rep that has events in this time, not only those with late ones: where a table of the lake was lost.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Shows what would change, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LanesCommand {
    /// Lists lanes: checkpoint, next offset, settings, and how far each table of the lake has them.
    ///
    /// Reads the store beside whoever owns the lanes; nothing is claimed. A lane whose row has a problem does not go on by itself.
    List(LanesListArgs),
    /// Lets a halted lane go on, after showing what is lost and what is read again.
    ///
    /// It claims the lane, so stop the instance that has it, or start it anew afterwards: its claim ends. What the lane counted stays
    /// wherever its state is of any use; otherwise the lane starts anew from the topic's first message, the rows it has in the lake are
    /// retracted and computed again. Refuses where the outcome would be wrong: then it says what to do instead.
    Accept(LanesAcceptArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LanesListArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LanesAcceptArgs {
    /// The lane, such as field.gps-pings.v1/3.
    #[arg(value_name = "TOPIC/PARTITION", value_parser = lane)]
    pub(crate) lane: LaneId,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Does it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Prints what is to be done, or was done, as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Address; port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub(crate) listen: String,
    /// File that keeps the schemas; in memory otherwise.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Prints one line of JSON with the address once it is ready.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TapArgs {
    /// The topic.
    pub(crate) topic: String,
    /// Ends after so many messages.
    #[arg(long, short = 'n')]
    pub(crate) count: Option<u64>,
    /// Starts with the oldest message instead of the next new one.
    #[arg(long)]
    pub(crate) from_start: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

fn story_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|error| format!("{error}"))?;
    (speed.is_finite() && speed > 0.0).then_some(speed).ok_or_else(|| "expected more than 0".to_owned())
}

fn kind_file(text: &str) -> Result<(Kind, PathBuf), String> {
    let (kind, file) = text.split_once('=').ok_or("expected KIND=FILE, such as gps=pings.csv.gz")?;
    Ok((kind.parse().map_err(|error: legwork_types::UnknownKind| error.to_string())?, PathBuf::from(file)))
}

fn lane(text: &str) -> Result<LaneId, String> {
    LaneId::parse(text).ok_or_else(|| "expected TOPIC/PARTITION, such as field.gps-pings.v1/3".to_owned())
}
