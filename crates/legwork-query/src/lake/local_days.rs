//! A condition on a local day implies one on the time itself, which can go where the zone is not known: down to the lake's partitions.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Filter, Join, LogicalPlan, Operator, lit};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::days::DAY_US;

/// Adds what conditions on `local_date(time, zone)` imply about `time`. No zone is a day or more away from UTC.
#[derive(Debug)]
pub(crate) struct LocalDays;

impl OptimizerRule for LocalDays {
    fn name(&self) -> &str {
        "legwork_local_days"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let implied = implied(&predicate);
                let is_new = implied.is_some();
                let predicate = implied.into_iter().fold(predicate, Expr::and);
                Ok(Transformed::new_transformed(LogicalPlan::Filter(Filter::try_new(predicate, input)?), is_new))
            }
            LogicalPlan::Join(join) => {
                let implied = join.filter.as_ref().and_then(implied);
                let is_new = implied.is_some();
                let filter = implied.into_iter().chain(join.filter.clone()).reduce(Expr::and);
                Ok(Transformed::new_transformed(LogicalPlan::Join(Join { filter, ..join }), is_new))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

/// What is true of the time wherever `filter` is true.
fn implied(filter: &Expr) -> Option<Expr> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            implied(left).into_iter().chain(implied(right)).reduce(Expr::and)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Some(implied(left)?.or(implied(right)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compared(left, *op, right).or_else(|| compared(right, op.swap()?, left))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let low = compared(expr, Operator::GtEq, low);
            low.into_iter().chain(compared(expr, Operator::LtEq, high)).reduce(Expr::and)
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let days = list.iter().map(|day| compared(expr, Operator::Eq, day)).collect::<Option<Vec<_>>>()?;
            days.into_iter().reduce(Expr::or)
        }
        _ => None,
    }
}

/// Of `local_date(time, zone) op day`.
fn compared(side: &Expr, op: Operator, day: &Expr) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = side else { return None };
    let ([time, _zone], "local_date") = (args.as_slice(), func.name()) else { return None };
    let Expr::Literal(ScalarValue::Date32(Some(day)), _) = day else { return None };
    if time.is_volatile() {
        return None;
    }
    let at = |n_days: i64| {
        let time_us = (i64::from(*day) + n_days).checked_mul(DAY_US)?;
        Some(lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into()))))
    };
    let (from, until) = (|n_days| Some(time.clone().gt_eq(at(n_days)?)), |n_days| Some(time.clone().lt(at(n_days)?)));
    match op {
        Operator::Eq => Some(from(-1)?.and(until(2)?)),
        Operator::Gt => from(0),
        Operator::GtEq => from(-1),
        Operator::Lt => until(1),
        Operator::LtEq => until(2),
        _ => None,
    }
}
