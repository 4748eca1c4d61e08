//! DataFusion's pushing of filters through physical plans, kept from what it does wrong: it finds the columns of a filter by name, and where two
//! have one name - a join of tables that both have a `rep_id` - takes the first for both. A filter over such columns then asks another question.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// DataFusion's rules, those that push filters stopped where two columns have one name.
pub(crate) fn physical_optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let rules = PhysicalOptimizer::new().rules.into_iter();
    let guarded = rules.map(|rule| match rule.name().starts_with("FilterPushdown") {
        true => Arc::new(Guarded(rule)) as Arc<dyn PhysicalOptimizerRule + Send + Sync>,
        false => rule,
    });
    guarded.collect()
}

/// A rule that sees no further than to plans with two columns of one name.
#[derive(Debug)]
struct Guarded(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for Guarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let stopped = plan.transform_up(|plan| {
            Ok(match has_names_twice(&plan) {
                true => Transformed::yes(Arc::new(Stop(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        });
        let pushed = self.0.optimize(stopped.data()?, config)?;
        let freed = pushed.transform_down(|plan| {
            Ok(match plan.downcast_ref::<Stop>() {
                Some(Stop(inner)) => Transformed::yes(inner.clone()),
                None => Transformed::no(plan),
            })
        });
        freed.data()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn has_names_twice(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let mut names = HashSet::new();
    schema.fields().iter().any(|field| !names.insert(field.name()))
}

/// Stands before a plan while filters are pushed: none passes, as an operator has it that says nothing else.
#[derive(Debug)]
struct Stop(Arc<dyn ExecutionPlan>);

impl DisplayAs for Stop {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

impl ExecutionPlan for Stop {
    fn name(&self) -> &str {
        "Stop"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(inner), true) => Ok(Arc::new(Stop(inner))),
            _ => internal_err!("it stands before one plan"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, context)
    }
}
