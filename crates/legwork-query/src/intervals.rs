//! Spans of time in order, and multiplied, as PostgreSQL has it: a month is 30 days, a day is 24 hours. DataFusion compares months first, then
//! days, then the rest, so that 53 days in hours are less than one day, and does not multiply. *Source:* PostgreSQL's manual, "Date/Time Types",
//! and its `interval_cmp_value` and `interval_mul`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Between, InList, ScalarFunction, Sort};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast as cast_to,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::BinaryOperator;

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

/// `span * number`, `number * span` and `span / number`.
#[derive(Debug)]
pub(crate) struct SpanArithmetic;

impl ExprPlanner for SpanArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_division = match expr.op {
            BinaryOperator::Multiply => false,
            BinaryOperator::Divide => true,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // A parameter may have no type yet.
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_span = |data_type: &DataType| matches!(data_type, DataType::Interval(_) | DataType::Duration(_));
        let args = match (is_span(&left) && right.is_numeric(), is_span(&right) && left.is_numeric()) {
            (true, _) => vec![expr.left, expr.right],
            (_, true) if !is_division => vec![expr.right, expr.left],
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let signature = Signature::any(2, Volatility::Immutable);
        let function = Arc::new(ScalarUDF::from(Scaled { is_division, signature }));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Scaled {
    is_division: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Scaled {
    fn name(&self) -> &str {
        if self.is_division { "divided_span" } else { "multiplied_span" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if is_constant { 1 } else { args.number_rows };
        let column = |position: usize, data_type: &DataType| -> Result<ArrayRef> {
            Ok(cast(&args.args[position].to_array(n_rows)?, data_type)?)
        };
        let spans = column(0, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let (spans, numbers) = (spans.as_primitive::<IntervalMonthDayNanoType>(), column(1, &DataType::Float64)?);
        let scaled: IntervalMonthDayNanoArray =
            try_binary(spans, numbers.as_primitive::<Float64Type>(), |span, number| {
                match (self.is_division, number == 0.0) {
                    (true, true) => Err(ArrowError::DivideByZero),
                    (true, false) => scaled(span, |part| part / number),
                    (false, _) => scaled(span, |part| part * number),
                }
            })?;
        let scaled: ArrayRef = Arc::new(scaled);
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?),
            false => ColumnarValue::Array(scaled),
        })
    }
}

/// A part of a month is a part of 30 days, a part of a day one of 24 hours; to the microsecond.
fn scaled(span: IntervalMonthDayNano, by: impl Fn(f64) -> f64) -> Result<IntervalMonthDayNano, ArrowError> {
    let (months, days) = (by(f64::from(span.months)), by(f64::from(span.days)));
    let days_of_months = months.fract() * 30.0;
    let us_of_days = (days.fract() + days_of_months.fract()) * DAY_US as f64;
    let us = (by(span.nanoseconds as f64 / 1e3) + us_of_days).round();
    let (months, days) = (months.trunc(), days.trunc() + days_of_months.trunc());
    let fits = |part: f64, most: f64| part.is_finite() && part.abs() <= most;
    if !fits(months, f64::from(i32::MAX)) || !fits(days, f64::from(i32::MAX)) || !fits(us, 9e15) {
        return Err(ArrowError::ArithmeticOverflow("interval out of range".to_owned()));
    }
    Ok(IntervalMonthDayNano::new(months as i32, days as i32, us as i64 * 1_000))
}
