//! One client's session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use legwork_types::LiveTables;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::calendars;
use crate::check::{Checked, check};
use crate::error;
use crate::executor;
use crate::held::Held;
use crate::pin::{Patience, QueryPin};
use crate::reads::tables_read;
use crate::settings::{LegworkSettings, parse_time};
use crate::sql_engine::Shared;
use crate::stream::{Limits, limited};
use crate::{ErrorKind, QueryError, QueryResult, Session};

/// Stack of the thread that plans a query: deep plans recurse, and their destruction does too.
const PLANNING_STACK_BYTES: usize = 32 << 20;

/// A thread that ended with nothing to show.
const NO_ANSWER: &str = "planning ended without an answer";

/// What sessions answer to `SHOW` where a client has set nothing.
const DEFAULTS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("extra_float_digits", "1"),
    ("intervalstyle", "postgres"),
    ("legwork.as_of", ""),
    ("max_identifier_length", "63"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.0"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// A session: settings of its own over the catalog and the limits that all share.
pub struct SqlSession {
    shared: Arc<Shared>,
    context: SessionContext,
    variables: Mutex<BTreeMap<String, String>>,
}

impl std::fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlSession").field("variables", &self.variables).finish_non_exhaustive()
    }
}

/// What a query is before it is planned.
enum Source {
    Statement(Statement),
    Plan(LogicalPlan),
}

impl Source {
    fn mentions(&self, function: &str) -> bool {
        match self {
            Source::Statement(statement) => statement.to_string().to_ascii_lowercase().contains(function),
            Source::Plan(plan) => plan.display_indent().to_string().contains(function),
        }
    }
}

impl SqlSession {
    pub(crate) fn new(shared: Arc<Shared>, context: SessionContext) -> SqlSession {
        SqlSession { shared, context, variables: Mutex::default() }
    }

    /// Runs a statement that [`check`] has passed, under the same limits as [`Session::query`].
    pub async fn run(&self, checked: Checked) -> Result<QueryResult, QueryError> {
        match checked {
            Checked::Query(statement) => self.start(Source::Statement(*statement)).await,
            Checked::Set { name, value } => {
                self.set(&name, value)?;
                Ok(no_rows())
            }
            Checked::Show { name } => self.show(&name).await,
            // Poolers send it before they hand a connection on: nothing of one client may reach the next.
            Checked::NoOp { tag: "DISCARD ALL" } => {
                self.set("all", None)?;
                Ok(no_rows())
            }
            Checked::NoOp { .. } | Checked::Empty => Ok(no_rows()),
        }
    }

    /// Runs a plan made with [`Session::context`], such as one whose parameters were filled in, under the limits of a query. Its
    /// statement must have passed [`check`].
    pub async fn run_plan(&self, plan: LogicalPlan) -> Result<QueryResult, QueryError> {
        self.start(Source::Plan(plan)).await
    }

    /// Names of the tables that a statement reads, itself or in the views that it names; none for one that is no query. *Errors:* as of
    /// [`Session::query`]; nothing is read.
    pub async fn tables_read(&self, sql: &str) -> Result<BTreeSet<String>, QueryError> {
        let Checked::Query(statement) = check(sql)? else { return Ok(BTreeSet::new()) };
        let state = self.query_state(Arc::default());
        let planned = on_planning_thread(async move {
            let plan = state.statement_to_plan(*statement).await?;
            tables_read(&plan)
        })?;
        let planned = planned.await.map_err(|_| error::bug(NO_ANSWER.to_owned()))?;
        planned.map_err(|failed| {
            error::of_query(&failed, &self.shared.table_names(), self.shared.options.memory_bytes_max)
        })
    }

    fn set(&self, name: &str, value: Option<String>) -> Result<(), QueryError> {
        let invalid = |message| QueryError { kind: ErrorKind::Statement, sqlstate: "22023", message };
        if name == "all" || name == "legwork.as_of" {
            let as_of_us = parse_time(value.as_deref().unwrap_or_default()).map_err(invalid)?;
            let state = self.context.state_ref();
            let mut state = state.write();
            if let Some(settings) = state.config_mut().options_mut().extensions.get_mut::<LegworkSettings>() {
                settings.as_of_us = as_of_us;
            }
        }
        if name == "statement_timeout"
            && let Some(text) = &value
        {
            parse_timeout(text)
                .ok_or_else(|| invalid(format!("expected milliseconds or such as '5s', found {text:?}")))?;
        }
        let mut variables = self.variables.lock();
        match value {
            _ if name == "all" => variables.clear(),
            Some(value) => drop(variables.insert(name.to_owned(), value)),
            None => drop(variables.remove(name)),
        }
        Ok(())
    }

    async fn show(&self, name: &str) -> Result<QueryResult, QueryError> {
        if name == "all" {
            return self.show_all();
        }
        let set = self.variables.lock().get(name).cloned();
        let default = || DEFAULTS.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let Some(value) = set.or_else(default) else {
            let names: Vec<&str> = DEFAULTS.iter().map(|(key, _)| *key).collect();
            let message = format!("there is no setting {name}{}", error::nearest(name, &names));
            return Err(QueryError { kind: ErrorKind::Statement, sqlstate: "42704", message });
        };
        let schema = Schema::new(vec![Field::new(name, DataType::Utf8, false)]);
        one_batch(schema, vec![Arc::new(StringArray::from(vec![value]))])
    }

    fn show_all(&self) -> Result<QueryResult, QueryError> {
        let set = self.variables.lock().clone();
        let defaults = DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let all: BTreeMap<String, String> = defaults.chain(set).collect();
        let schema = Schema::new(["name", "setting"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec());
        let names = StringArray::from_iter_values(all.keys());
        let values = StringArray::from_iter_values(all.values());
        one_batch(schema, vec![Arc::new(names), Arc::new(values)])
    }

    /// The time of a query: the service's, or less if the session asked for less.
    fn timeout(&self) -> Duration {
        let asked = self.variables.lock().get("statement_timeout").and_then(|text| parse_timeout(text));
        let service = self.shared.options.timeout;
        asked.filter(|asked| !asked.is_zero()).map_or(service, |asked| asked.min(service))
    }

    /// A copy of the session's state for one query: its clock stands still, its snapshots are taken once.
    fn query_state(&self, pin: Arc<QueryPin>) -> SessionState {
        let mut state = self.context.state();
        let now_us = self.shared.clock.now_us(state.config_options());
        if let Some(settings) = state.config_mut().options_mut().extensions.get_mut::<LegworkSettings>() {
            settings.now_us = Some(now_us);
            settings.held = Arc::new(Held::new(self.shared.options.memory_bytes_max));
        }
        state.config_mut().set_extension(pin);
        state
    }

    async fn start(&self, source: Source) -> Result<QueryResult, QueryError> {
        let options = &self.shared.options;
        let timeout = self.timeout();
        let limits = Limits {
            deadline: Instant::now() + timeout,
            timeout,
            rows_max: options.rows_max,
            bytes_max: options.result_bytes_max,
            memory_bytes_max: options.memory_bytes_max,
        };
        let permit = match timeout_at(limits.deadline, self.shared.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(closed)) => return Err(error::bug(closed.to_string())),
            Err(_) => {
                let message = format!(
                    "{} queries ran all the time: try again later, or raise query.concurrency",
                    options.concurrency
                );
                return Err(QueryError { kind: ErrorKind::Retry, sqlstate: "53300", message });
            }
        };
        // A query that has waited still has time to be answered.
        let until = Instant::now() + options.lanes_wait.min(limits.deadline.duration_since(Instant::now()) / 2);
        let pin = Arc::new(QueryPin::new(Patience { lanes_wait: options.lanes_wait, until }));
        let executor = executor::handle()?;
        let (batches, permit) = self.plan_on_thread(source, &limits, permit, pin.clone()).await?;
        let schema = batches.schema();
        Ok(QueryResult { schema, batches: limited(batches, limits, permit, &executor), notices: pin.notices() })
    }

    /// Plans on a thread of its own: planning may keep a core busy for longer than the deadline, and it needs a deep stack. The
    /// permit stays with the thread, so that a planning that is given up still counts as running.
    async fn plan_on_thread(
        &self,
        source: Source,
        limits: &Limits,
        permit: OwnedSemaphorePermit,
        pin: Arc<QueryPin>,
    ) -> Result<(SendableRecordBatchStream, OwnedSemaphorePermit), QueryError> {
        let (state, runtime, live) = (self.query_state(pin), self.query_runtime(), self.shared.live.clone());
        let deadline = limits.deadline;
        let planned = on_planning_thread(async move {
            // When the client has gone, all is dropped there, in this order.
            (timeout_at(deadline, plan(state, source, runtime, live)).await, permit)
        })?;
        match timeout_at(limits.deadline, planned).await {
            Err(_) | Ok(Ok((Err(_), _))) => Err(limits.timed_out()),
            Ok(Err(_)) => Err(error::bug(NO_ANSWER.to_owned())),
            Ok(Ok((Ok(Err(failed)), _))) => {
                Err(error::of_query(&failed, &self.shared.table_names(), self.shared.options.memory_bytes_max))
            }
            Ok(Ok((Ok(Ok(batches)), permit))) => Ok((batches, permit)),
        }
    }

    /// A runtime with memory of its own for one query.
    fn query_runtime(&self) -> Arc<RuntimeEnv> {
        let memory_pool = Arc::new(GreedyMemoryPool::new(self.shared.options.memory_bytes_max));
        Arc::new(RuntimeEnv { memory_pool, ..self.context.runtime_env().as_ref().clone() })
    }
}

impl Session for SqlSession {
    fn query<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<QueryResult, QueryError>> {
        let run = async move {
            let sql_bytes_max = self.shared.options.sql_bytes_max;
            if sql.len() > sql_bytes_max {
                let message = format!("the statement has {} bytes, at most {sql_bytes_max} are allowed", sql.len());
                return Err(error::limit("54000", message));
            }
            self.run(check(sql)?).await
        };
        run.boxed()
    }

    fn context(&self) -> &SessionContext {
        &self.context
    }
}

/// Runs what recurses deeply on a thread of its own. *Errors:* `Retry` when there is no thread to be had.
fn on_planning_thread<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<oneshot::Receiver<T>, QueryError> {
    let executor = executor::handle()?;
    let (send, receive) = oneshot::channel();
    let thread = std::thread::Builder::new().name("legwork-plan".to_owned()).stack_size(PLANNING_STACK_BYTES);
    let spawned = thread.spawn(move || drop(send.send(executor.block_on(work))));
    match spawned {
        Ok(_) => Ok(receive),
        Err(failed) => Err(QueryError {
            kind: ErrorKind::Retry,
            sqlstate: "53000",
            message: format!("no thread to plan on: {failed}"),
        }),
    }
}

async fn plan(
    mut state: SessionState,
    source: Source,
    runtime: Arc<RuntimeEnv>,
    live: Arc<dyn LiveTables>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    if source.mentions("business_seconds") {
        let pin = state.config().get_extension::<QueryPin>().unwrap_or_default();
        let loaded = calendars::load(live.as_ref(), &pin).await.map_err(|e| DataFusionError::External(Box::new(e)))?;
        if let Some(settings) = state.config_mut().options_mut().extensions.get_mut::<LegworkSettings>() {
            settings.calendars = Arc::new(loaded);
        }
    }
    // Functions over rows see the settings as they are at this moment.
    state.mark_start_execution();
    let plan = match source {
        Source::Statement(statement) => state.statement_to_plan(statement).await?,
        Source::Plan(plan) => plan,
    };
    // The allow-list has refused all of this already; the plan is looked at too, should the two ever disagree.
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false).verify_plan(&plan)?;
    let physical = state.create_physical_plan(&plan).await?;
    let task = TaskContext::from(&state).with_runtime(runtime);
    execute_stream(physical, Arc::new(task))
}

fn one_batch(schema: Schema, columns: Vec<ArrayRef>) -> Result<QueryResult, QueryError> {
    let schema = Arc::new(schema);
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|failed| error::bug(failed.to_string()))?;
    Ok(QueryResult { schema, batches: futures::stream::iter([Ok(batch)]).boxed(), notices: Vec::new() })
}

fn no_rows() -> QueryResult {
    QueryResult { schema: Arc::new(Schema::empty()), batches: futures::stream::empty().boxed(), notices: Vec::new() }
}

/// PostgreSQL's notation: a number is milliseconds, units are ms, s, min, h, d.
fn parse_timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor_ms = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor_ms).map(Duration::from_millis)
}
