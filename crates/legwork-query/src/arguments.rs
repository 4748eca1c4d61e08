//! Arguments of table functions. DataFusion evaluates them while it makes a plan, before its rules see them; here they are checked and
//! evaluated first, as all other expressions are.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use chrono::Utc;
use datafusion::common::tree_node::TransformedResult;
use datafusion::common::{DFSchema, Result, ScalarValue, TableReference, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::create_physical_expr;
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};

use crate::checked::checked;
use crate::held::Held;
use crate::settings::LegworkSettings;

/// Bytes of text and lists that the arguments of one table function may hold while they are computed.
const HELD_BYTES_MAX: usize = 128 << 20;

/// Plans table functions, and nothing else.
#[derive(Debug)]
pub(crate) struct CheckedArguments;

impl RelationPlanner for CheckedArguments {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (name, args, alias) = match relation {
            TableFactor::Table { name, args: Some(args), alias, .. } => (name, args.args, alias),
            TableFactor::Function { name, args, alias, .. } => (name, args, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let options = options(context);
        let constant = |arg| {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg else {
                return plan_err!("an argument of a table function is a constant, found {arg}");
            };
            constant(arg, &options, context)
        };
        let args = args.into_iter().map(constant).collect::<Result<Vec<Expr>>>()?;
        let name = context.object_name_to_table_reference(name)?.table().to_owned();
        let source = context.context_provider().get_table_function_source(&name, args)?;
        let plan = LogicalPlanBuilder::scan(TableReference::bare(format!("{name}()")), source, None)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The argument's value. *Errors:* what refuses it; that it is no constant.
fn constant(arg: ast::Expr, options: &Arc<ConfigOptions>, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    let no_columns = DFSchema::empty();
    let simplify = SimplifyContext::builder()
        .with_config_options(options.clone())
        .with_query_execution_start_time(Some(Utc::now()))
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    let arg = context.sql_expr_to_logical_expr(arg, &no_columns)?;
    let arg = checked(simplifier.coerce(arg, &no_columns)?, &no_columns).data()?;
    let simplified = simplifier.simplify(arg)?;
    if let Expr::Literal(..) = simplified {
        return Ok(simplified);
    }
    // What could not be computed is left as it was, without a word why.
    let mut properties = ExecutionProps::new();
    properties.config_options = Some(options.clone());
    let expression = create_physical_expr(&simplified, &no_columns, &properties, &PhysicalPlanningContext::default())?;
    let row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &row)?;
    let value = expression.evaluate(&row)?.into_array(1)?;
    Ok(Expr::Literal(ScalarValue::try_from_array(&value, 0)?, None))
}

/// The session's, with an account for what the arguments hold.
fn options(context: &dyn RelationPlannerContext) -> Arc<ConfigOptions> {
    let mut options = context.context_provider().options().clone();
    if let Some(settings) = options.extensions.get_mut::<LegworkSettings>() {
        settings.held = Arc::new(Held::new(HELD_BYTES_MAX));
    }
    Arc::new(options)
}
