//! Spans of time in order, as PostgreSQL has it: a month is 30 days, a day is 24 hours. DataFusion compares months first, then days, then the
//! rest, so that 53 days in hours are less than one day. *Source:* PostgreSQL's manual, "Date/Time Types", and `interval_cmp_value`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast as cast_to,
};
use datafusion::optimizer::AnalyzerRule;

const DAY_US: i128 = 86_400_000_000;

/// Whether values of a type have to be put in order here.
pub(crate) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// The length of an interval, by which intervals are compared, microseconds.
pub(crate) fn length(interval: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::from(Length { signature: Signature::any(1, Volatility::Immutable) }));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![interval]))
}

/// An expression that compares intervals, by their lengths. None for all others.
pub(crate) fn compared(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let is_span = |expr: &Expr| Ok::<_, datafusion::error::DataFusionError>(is_interval(&expr.get_type(schema)?));
    let boxed = |expr: &Expr| Box::new(length(expr.clone()));
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) && is_span(left)? && is_span(right)? => {
            Some(Expr::BinaryExpr(BinaryExpr { left: boxed(left), op: *op, right: boxed(right) }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_span(expr)? && is_span(low)? && is_span(high)? => {
            Some(Expr::Between(Between { expr: boxed(expr), negated: *negated, low: boxed(low), high: boxed(high) }))
        }
        Expr::InList(InList { expr, list, negated }) if is_span(expr)? => {
            let list = list.iter().cloned().map(length).collect();
            Some(Expr::InList(InList { expr: boxed(expr), list, negated: *negated }))
        }
        _ => None,
    })
}

/// Orders windows by lengths: DataFusion refuses windows in the order of spans, before it gives expressions their types.
#[derive(Debug)]
pub(crate) struct WindowsOverSpans;

impl AnalyzerRule for WindowsOverSpans {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let ordered = plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Window(_) = &plan else { return Ok(Transformed::no(plan)) };
            let (schema, names) = (merge_schema(&plan.inputs()), NamePreserver::new(&plan));
            let ordered = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let ordered = expr.transform_up(|expr| by_length(expr, &schema))?;
                Ok(ordered.update_data(|expr| name.restore(expr)))
            })?;
            match ordered.transformed {
                true => ordered.map_data(LogicalPlan::recompute_schema),
                false => Ok(ordered),
            }
        })?;
        Ok(ordered.data)
    }

    fn name(&self) -> &str {
        "windows_over_spans"
    }
}

fn by_length(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(mut window) = expr else { return Ok(Transformed::no(expr)) };
    let mut is_changed = false;
    for Sort { expr, .. } in &mut window.params.order_by {
        *expr = match expr.get_type(schema)? {
            DataType::Interval(_) => length(expr.clone()),
            DataType::Duration(_) => cast_to(expr.clone(), DataType::Int64),
            _ => continue,
        };
        is_changed = true;
    }
    let window = Expr::WindowFunction(window);
    Ok(if is_changed { Transformed::yes(window) } else { Transformed::no(window) })
}

fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "length_of_interval"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = matches!(args.args[0], ColumnarValue::Scalar(_));
        let array = args.args[0].to_array(if is_constant { 1 } else { args.number_rows })?;
        let array = cast(&array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let lengths: Int64Array = array.as_primitive::<IntervalMonthDayNanoType>().unary(length_us);
        let lengths: ArrayRef = Arc::new(lengths);
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?),
            false => ColumnarValue::Array(lengths),
        })
    }
}

/// Beyond 292,000 years it is as long as that.
fn length_us(interval: IntervalMonthDayNano) -> i64 {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    let us = days * DAY_US + i128::from(interval.nanoseconds).div_euclid(1_000);
    us.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
