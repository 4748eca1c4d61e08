//! The engine: what all sessions share.

use std::sync::Arc;

use datafusion::common::DataFusionError;
use datafusion::config::Dialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;
use futures::future::BoxFuture;
use legwork_types::LiveTables;
use tokio::sync::Semaphore;

use crate::arguments::CheckedArguments;
use crate::catalog::{self, Schemas};
use crate::check::RECURSION_MAX;
use crate::checked::{CheckedExpressions, LongConstants};
use crate::clock::Clock;
use crate::error;
use crate::executor::YieldingJoins;
use crate::intervals::{SpanArithmetic, WindowsOverSpans};
use crate::lake::LocalDays;
use crate::pushdown::physical_optimizer_rules;
use crate::session::SqlSession;
use crate::settings::LegworkSettings;
use crate::{Engine, History, QueryError, QueryOptions, Session, TableInfo, functions, views};

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) options: QueryOptions,
    pub(crate) clock: Clock,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) live: Arc<dyn LiveTables>,
    schemas: Schemas,
    base: SessionState,
    tables: Vec<TableInfo>,
}

impl Shared {
    pub(crate) fn table_names(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }
}

/// SQL over the live tables of a pipeline.
#[derive(Clone)]
pub struct SqlEngine {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SqlEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlEngine").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl SqlEngine {
    /// Builds the catalog and plans every view. *Errors:* `Bug` when a view does not plan.
    pub fn new(live: Arc<dyn LiveTables>, options: QueryOptions) -> Result<SqlEngine, QueryError> {
        SqlEngine::build(live, None, options)
    }

    /// As [`SqlEngine::new`], over live tables and a lake: what the lake keeps is read from both, every row once. *Errors:* as there.
    pub fn with_history(
        live: Arc<dyn LiveTables>,
        history: Arc<dyn History>,
        options: QueryOptions,
    ) -> Result<SqlEngine, QueryError> {
        SqlEngine::build(live, Some(history), options)
    }

    fn build(
        live: Arc<dyn LiveTables>,
        history: Option<Arc<dyn History>>,
        options: QueryOptions,
    ) -> Result<SqlEngine, QueryError> {
        let broken = |error: DataFusionError| error::bug(error.strip_backtrace());
        let clock = Clock::new(live.clone(), options.now);
        let schemas = Schemas::default();
        let mut tables = catalog::add_tables(&schemas, &live, history.as_ref());
        let base = base_state(&schemas, &options, &clock, &live, history.as_ref()).map_err(broken)?;
        tables.extend(views::add_views(&schemas, &base, &options)?);
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let permits = Arc::new(Semaphore::new(options.concurrency.max(1)));
        Ok(SqlEngine { shared: Arc::new(Shared { options, clock, permits, live, schemas, base, tables }) })
    }

    /// A session with all that [`Engine::session`] gives and more: parts of a query one by one.
    pub fn sql_session(&self) -> SqlSession {
        let builder = SessionStateBuilder::new_from_existing(self.shared.base.clone());
        // A list that cannot be filled is impossible: the schemas are ours. The base's own list would still be read-only.
        let builder = match self.shared.schemas.catalog_list() {
            Ok(list) => builder.with_catalog_list(list),
            Err(_) => builder,
        };
        let context = SessionContext::new_with_state(builder.build());
        SqlSession::new(self.shared.clone(), context)
    }
}

impl Engine for SqlEngine {
    fn session(&self) -> Arc<dyn Session> {
        Arc::new(self.sql_session())
    }

    fn tables(&self) -> BoxFuture<'_, Result<Vec<TableInfo>, QueryError>> {
        std::future::ready(Ok(self.shared.tables.clone())).boxed()
    }
}

fn base_state(
    schemas: &Schemas,
    options: &QueryOptions,
    clock: &Clock,
    live: &Arc<dyn LiveTables>,
    history: Option<&Arc<dyn History>>,
) -> Result<SessionState, DataFusionError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(options.memory_bytes_max)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .with_object_store_registry(Arc::new(no_object_stores()?))
        .build_arc()?;
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(config(options))
        .with_runtime_env(runtime)
        .with_catalog_list(schemas.catalog_list()?)
        .with_analyzer_rules(analyzer_rules())
        .with_relation_planners(vec![Arc::new(CheckedArguments)])
        .with_optimizer_rules(optimizer_rules())
        .with_table_factories(Default::default())
        .with_file_formats(Vec::new())
        .with_physical_optimizer_rules(physical_optimizer_rules())
        .with_physical_optimizer_rule(Arc::new(YieldingJoins))
        .build();
    state.register_expr_planner(Arc::new(SpanArithmetic))?;
    functions::register(&mut state, clock, live, history, options)?;
    Ok(state)
}

/// DataFusion's, which give expressions their types, between ours.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(WindowsOverSpans)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(CheckedExpressions));
    rules
}

/// DataFusion's, with ours before the one that takes filters down to the tables, and after all of them.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let idx = rules.iter().position(|rule| rule.name() == "push_down_filter").unwrap_or(rules.len());
    rules.insert(idx, Arc::new(LocalDays));
    rules.push(Arc::new(LongConstants));
    rules
}

/// A registry without the `file://` that DataFusion puts into new ones.
fn no_object_stores() -> Result<DefaultObjectStoreRegistry, DataFusionError> {
    let registry = DefaultObjectStoreRegistry::new();
    let files = datafusion::execution::object_store::ObjectStoreUrl::local_filesystem();
    registry.deregister_store(files.as_ref())?;
    Ok(registry)
}

fn config(options: &QueryOptions) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(catalog::CATALOG, catalog::PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    if let Some(n_partitions) = options.target_partitions {
        config = config.with_target_partitions(n_partitions);
    }
    let settings = config.options_mut();
    // What PostgreSQL calls timestamptz has a zone, as the columns have.
    settings.execution.time_zone = Some("UTC".to_owned());
    settings.sql_parser.dialect = Dialect::PostgreSQL;
    // Text columns are Utf8: a cast to text should be no other type.
    settings.sql_parser.map_string_types_to_utf8view = false;
    if let Ok(limit) = datafusion::common::config::ConfigNonZeroUsize::try_new(RECURSION_MAX) {
        settings.sql_parser.recursion_limit = limit;
    }
    settings.extensions.insert(LegworkSettings::default());
    config
}
