//! What an operator of the service may set.

use std::time::Duration;

/// Where `legwork_now()` comes from, unless a session says `SET legwork.as_of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NowSource {
    /// The system's clock: in service.
    System,
    /// The newest event time over all lanes: bounded input, the demo. The system's clock before the first event.
    Event {
        /// What lanes that are not taken up yet have seen, microseconds since 1970-01-01 UTC.
        known_us: Option<i64>,
    },
    /// A fixed time, microseconds since 1970-01-01 UTC.
    Fixed(i64),
}

/// First day of a week in roll-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeekStart {
    /// ISO 8601.
    Monday,
    /// As in North America.
    Sunday,
}

/// Limits and conventions of the engine; the sections `[query]`, `[business]` and `time.now` of the configuration.
#[derive(Clone, Debug)]
pub struct QueryOptions {
    /// Queries that run at once; more wait, and their waiting counts into their time.
    pub concurrency: usize,
    /// Time from the arrival of a statement to its last row.
    pub timeout: Duration,
    /// How long lanes that are on their way, after a start or a rebalance, are waited for.
    pub lanes_wait: Duration,
    /// Memory of one query, bytes.
    pub memory_bytes_max: usize,
    /// Rows of one result.
    pub rows_max: usize,
    /// Bytes of one result, as Arrow.
    pub result_bytes_max: usize,
    /// Bytes of one statement.
    pub sql_bytes_max: usize,
    /// Partitions of a plan; none means the machine's cores.
    pub target_partitions: Option<usize>,
    /// Where `legwork_now()` comes from.
    pub now: NowSource,
    /// ISO 4217 code of the currency that `fx_rates` convert to.
    pub base_currency: String,
    /// Calendar of teams that name none.
    pub calendar: String,
    /// First day of a week.
    pub week_start: WeekStart,
}

impl Default for QueryOptions {
    fn default() -> QueryOptions {
        QueryOptions {
            concurrency: 8,
            timeout: Duration::from_secs(30),
            lanes_wait: Duration::from_secs(5),
            memory_bytes_max: 512 << 20,
            rows_max: 1_000_000,
            result_bytes_max: 256 << 20,
            sql_bytes_max: 256 << 10,
            target_partitions: None,
            now: NowSource::System,
            base_currency: "USD".to_owned(),
            calendar: "default".to_owned(),
            week_start: WeekStart::Monday,
        }
    }
}
