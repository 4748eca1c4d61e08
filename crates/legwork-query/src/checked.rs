//! Sums, differences and products of integers that leave their type are errors, as in PostgreSQL: DataFusion's wrap around.

use std::sync::Arc;

use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

/// Puts checked operators in place of the others, once types are known.
#[derive(Debug)]
pub(crate) struct CheckedIntegers;

impl CheckedIntegers {
    fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
        if !matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
            || !(chain(&left).is_some() || left.get_type(schema)?.is_integer())
            || !right.get_type(schema)?.is_integer()
        {
            return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
        }
        // One call for a whole chain: as deep as the chain is long, it would take the planner minutes.
        let mut operators = chain(&left).map(|chain| chain.operators.clone()).unwrap_or_default();
        operators.push(op);
        let mut args = match (operators.len(), *left) {
            (2.., Expr::ScalarFunction(chain)) => chain.args,
            (_, left) => vec![left],
        };
        args.push(*right);
        let function = Arc::new(ScalarUDF::from(CheckedChain::new(operators)));
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }

    fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let checked = expr.transform_up(|expr| CheckedIntegers::checked(expr, &schema))?;
            Ok(checked.update_data(|expr| name.restore(expr)))
        })
    }
}

impl AnalyzerRule for CheckedIntegers {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let checked = CheckedIntegers::in_plan(plan)?;
            if !checked.transformed {
                return Ok(checked);
            }
            checked.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(checked.data)
    }

    fn name(&self) -> &str {
        "checked_integers"
    }
}

/// The chain that an expression is a call of.
fn chain(expr: &Expr) -> Option<&CheckedChain> {
    match expr {
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref(),
        _ => None,
    }
}

/// Operators of integers of one type, from left to right: `a + b - c`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedChain {
    operators: Vec<Operator>,
    signature: Signature,
}

impl CheckedChain {
    fn new(operators: Vec<Operator>) -> CheckedChain {
        let signature = Signature::any(operators.len() + 1, Volatility::Immutable);
        CheckedChain { operators, signature }
    }

    fn written(&self, args: impl Iterator<Item = String>) -> String {
        let operators = self.operators.iter().map(|operator| format!(" {operator} ")).chain([String::new()]);
        args.zip(operators).map(|(arg, operator)| arg + &operator).collect()
    }
}

impl ScalarUDFImpl for CheckedChain {
    fn name(&self) -> &str {
        "checked"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.written(args.iter().map(ToString::to_string)))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.written(args.iter().map(|arg| arg.schema_name().to_string())))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut args = args.args.into_iter();
        let first = args.next().expect("the signature has an argument more than operators");
        self.operators.iter().zip(args).try_fold(first, |left, (operator, right)| {
            let answer = match operator {
                Operator::Plus => apply(&left, &right, numeric::add),
                Operator::Minus => apply(&left, &right, numeric::sub),
                _ => apply(&left, &right, numeric::mul),
            };
            answer.map_err(|error| out_of_range(error, &left.data_type()))
        })
    }
}

/// In PostgreSQL's words.
fn out_of_range(error: DataFusionError, data_type: &DataType) -> DataFusionError {
    use arrow::error::ArrowError;
    let named = match data_type {
        DataType::Int64 => "bigint",
        DataType::Int32 => "integer",
        DataType::Int16 => "smallint",
        _ => return error,
    };
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) if matches!(arrow.as_ref(), ArrowError::ArithmeticOverflow(_)) => {
            DataFusionError::from(ArrowError::ArithmeticOverflow(format!("{named} out of range")))
        }
        _ => error,
    }
}
