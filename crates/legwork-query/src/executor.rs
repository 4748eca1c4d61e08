//! Where queries run: threads of their own, so that one that computes for long takes no time from ingest, health or other connections; and
//! what makes plans give way to each other on them.

use std::io;
use std::sync::{Arc, LazyLock};

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{ErrorKind, QueryError};

/// Evaluating a deeply nested expression recurses.
const STACK_BYTES: usize = 8 << 20;
/// Some operators, such as a join that compares everything with everything, keep a thread for long after their query was given up: a few
/// of those must not keep others from running. The cores are shared out by the operating system.
const THREADS_A_CORE: usize = 4;

// For the whole process and until its end: a runtime must not be dropped where engines are, and several would only share the same cores.
static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(n_cores * THREADS_A_CORE)
        .thread_name("legwork-query")
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
});

/// The runtime of all queries. *Errors:* `Retry` when its threads could not be started.
pub(crate) fn handle() -> Result<Handle, QueryError> {
    RUNTIME.as_ref().map(|runtime| runtime.handle().clone()).map_err(|error| QueryError {
        kind: ErrorKind::Retry,
        sqlstate: "53000",
        message: format!("no threads to run queries on: {error}"),
    })
}

/// Lets operators that make many batches out of one give way after some of them. DataFusion counts on the leaves of a plan for that, but
/// a join may produce for hours before it asks them again; until then its task could be neither stopped nor set aside.
#[derive(Debug)]
pub(crate) struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn name(&self) -> &str {
        "YieldingJoins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|plan| {
            Ok(match plan.children().len() > 1 {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        })?;
        Ok(wrapped.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
