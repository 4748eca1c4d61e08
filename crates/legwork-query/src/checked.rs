//! Expressions that cannot hurt, in the place of DataFusion's. Sums, differences and products of integers that leave their type are
//! errors, as in PostgreSQL: DataFusion's wrap around. And what makes long values out of short ones is bounded.

use std::sync::Arc;

use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_expr_common::datum::apply;

use crate::functions::bounded::{self, Bounded};
use crate::held::TooLarge;
use crate::{intervals, meaning};

/// Most bytes that a type may take for each of its values, whatever they are, and a constant beside rows: 512 MiB in a batch of 8192.
const TYPE_BYTES_MAX: u64 = 64 << 10;
/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Most bytes of a constant list beside rows.
const LIST_BYTES_MAX: u64 = 4 << 20;
/// Functions that are casts by another name.
const CASTS: &[&str] = &["arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type"];

/// Puts checked expressions in place of the others, once types are known.
#[derive(Debug)]
pub(crate) struct CheckedExpressions;

impl CheckedExpressions {
    fn in_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan);
        let is_order = matches!(plan, LogicalPlan::Sort(_));
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let checked = checked(expr, &schema)?;
            if is_order && intervals::is_interval(&checked.data.get_type(&schema)?) {
                return Ok(Transformed::yes(intervals::length(checked.data)));
            }
            Ok(checked.update_data(|expr| name.restore(expr)))
        })
    }
}

impl AnalyzerRule for CheckedExpressions {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let checked = CheckedExpressions::in_plan(plan)?;
            if !checked.transformed {
                return Ok(checked);
            }
            checked.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(checked.data)
    }

    fn name(&self) -> &str {
        "checked_expressions"
    }
}

/// Refuses long constants beside rows: an expression repeats them for each row of a batch.
#[derive(Debug)]
pub(crate) struct LongConstants;

impl OptimizerRule for LongConstants {
    fn name(&self) -> &str {
        "long_constants"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let n_rows = match &plan {
            LogicalPlan::TableScan(_) => BATCH_ROWS,
            plan => plan.inputs().iter().map(|input| input.max_rows().unwrap_or(BATCH_ROWS)).max().unwrap_or(0),
        };
        plan.apply_expressions(|expr| {
            expr.apply(|part| match part {
                Expr::Literal(constant, _) if is_long(constant, n_rows.clamp(1, BATCH_ROWS)) => {
                    Err(TooLarge::error(format!(
                        "a constant of {} bytes would be repeated for every row: at most {TYPE_BYTES_MAX} are allowed",
                        constant.size()
                    )))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })?;
        Ok(Transformed::no(plan))
    }
}

/// Lists may be longer than text: they are looked into rather than repeated, and what clients look for is many ids at a time.
fn is_long(constant: &ScalarValue, n_rows: usize) -> bool {
    let n_bytes_max = if constant.data_type().is_nested() { LIST_BYTES_MAX } else { TYPE_BYTES_MAX };
    constant.size() as u64 * n_rows as u64 > n_bytes_max * BATCH_ROWS as u64
}

/// An expression with all that it is made of; its types are coerced.
pub(crate) fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        expr if let Some(compared) = intervals::compared(&expr, schema)? => Ok(Transformed::yes(compared)),
        Expr::BinaryExpr(binary) => checked_operator(binary, schema),
        Expr::Cast(_) | Expr::TryCast(_) => {
            let data_type = expr.get_type(schema)?;
            refuse_wide(&data_type)?;
            let mut expr = expr;
            match meaning::fill_seconds(&mut expr, &data_type) {
                true => Ok(Transformed::yes(expr)),
                false => Ok(Transformed::no(expr)),
            }
        }
        Expr::ScalarFunction(call) => {
            if CASTS.contains(&call.func.name()) {
                let cast = Expr::ScalarFunction(call);
                refuse_wide(&cast.get_type(schema)?)?;
                return Ok(Transformed::no(cast));
            }
            let call = match meaning::rewritten(&call, schema)? {
                Some(Expr::ScalarFunction(call)) => call,
                Some(expr) => return Ok(Transformed::yes(expr)),
                None => call,
            };
            Ok(match Bounded::of(&call.func) {
                Some(function) => {
                    let call = ScalarFunction::new_udf(Arc::new(function), call.args);
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                None => Transformed::no(Expr::ScalarFunction(call)),
            })
        }
        _ => Ok(Transformed::no(expr)),
    })
}

fn checked_operator(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    let is_checked = match op {
        Operator::Plus | Operator::Minus | Operator::Multiply => {
            (chain(&left, is_arithmetic).is_some() || left.get_type(schema)?.is_integer())
                && right.get_type(schema)?.is_integer()
        }
        // Both sides are text or bytes of one type by now; those of a fixed length make a type of their own.
        Operator::StringConcat => {
            chain(&left, is_concat).is_some() || !matches!(left.get_type(schema)?, DataType::FixedSizeBinary(_))
        }
        _ => false,
    };
    if !is_checked {
        let expr = Expr::BinaryExpr(BinaryExpr { left, op, right });
        if is_concat(op) {
            refuse_wide(&expr.get_type(schema)?)?;
        }
        return Ok(Transformed::no(expr));
    }
    // One call for a whole chain: as deep as the chain is long, it would take the planner minutes.
    let alike: fn(Operator) -> bool = if is_concat(op) { is_concat } else { is_arithmetic };
    let mut operators = chain(&left, alike).map(|chain| chain.operators.clone()).unwrap_or_default();
    operators.push(op);
    let mut args = match (operators.len(), *left) {
        (2.., Expr::ScalarFunction(chain)) => chain.args,
        (_, left) => vec![left],
    };
    args.push(*right);
    let function = Arc::new(ScalarUDF::from(CheckedChain::new(operators)));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
}

fn is_arithmetic(operator: Operator) -> bool {
    matches!(operator, Operator::Plus | Operator::Minus | Operator::Multiply)
}

fn is_concat(operator: Operator) -> bool {
    operator == Operator::StringConcat
}

/// *Errors:* [`TooLarge`] for a type whose every value is large, even null.
fn refuse_wide(data_type: &DataType) -> Result<()> {
    match width(data_type) {
        n_bytes if n_bytes > TYPE_BYTES_MAX => Err(TooLarge::error(format!(
            "each value of the type {data_type} takes {n_bytes} bytes, at most {TYPE_BYTES_MAX} are allowed"
        ))),
        _ => Ok(()),
    }
}

fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(n_bytes) => u64::try_from(*n_bytes).unwrap_or(0),
        DataType::FixedSizeList(field, n) => width(field.data_type()).saturating_mul(u64::try_from(*n).unwrap_or(0)),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => width(field.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).fold(0, u64::saturating_add),
        DataType::Dictionary(_, value) => width(value),
        _ => 16,
    }
}

/// The chain of such operators that an expression is a call of.
fn chain(expr: &Expr, alike: fn(Operator) -> bool) -> Option<&CheckedChain> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let chain: Option<&CheckedChain> = call.func.inner().downcast_ref();
    chain.filter(|chain| chain.operators.iter().all(|&operator| alike(operator)))
}

/// Operators of integers, or of text, of one type, from left to right: `a + b - c`.
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
        match self.operators.as_slice() {
            [Operator::StringConcat, ..] => bounded::call("||", bounded::all, args, |args| concatenated(args.args)),
            operators => computed(operators, args.args),
        }
    }
}

fn computed(operators: &[Operator], args: Vec<ColumnarValue>) -> Result<ColumnarValue> {
    let mut args = args.into_iter();
    let first = args.next().expect("the signature has an argument more than operators");
    operators.iter().zip(args).try_fold(first, |left, (operator, right)| {
        let answer = match operator {
            Operator::Plus => apply(&left, &right, numeric::add),
            Operator::Minus => apply(&left, &right, numeric::sub),
            _ => apply(&left, &right, numeric::mul),
        };
        answer.map_err(|error| out_of_range(error, &left.data_type()))
    })
}

/// One after the other; null where any is.
fn concatenated(args: Vec<ColumnarValue>) -> Result<ColumnarValue> {
    let is_constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let mut arrays = ColumnarValue::values_to_arrays(&args)?.into_iter();
    let first = arrays.next().expect("the signature has an argument more than operators");
    let array = arrays.try_fold(first, |left, right| concat_elements_dyn(&left, &right))?;
    Ok(match is_constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
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
