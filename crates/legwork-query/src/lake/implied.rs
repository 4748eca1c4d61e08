//! Which days a filter on a time leaves: what it implies for the lake's partitions.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Operator};

use super::days::{DAY_US, DaySet};

/// Days outside of which every row fails one of `filters`. *Shape:* `time_column` is Timestamp(us, UTC), and a row's day is its day.
pub(crate) fn days_of(filters: &[Expr], time_column: &str) -> DaySet {
    filters.iter().fold(DaySet::all(), |days, filter| days.intersect(&of(filter, time_column)))
}

/// What is not understood leaves every day.
fn of(filter: &Expr, time_column: &str) -> DaySet {
    match filter {
        Expr::Alias(alias) => of(&alias.expr, time_column),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            of(left, time_column).intersect(&of(right, time_column))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            of(left, time_column).union(&of(right, time_column))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op.swap() {
            Some(swapped) => {
                compared(left, *op, right, time_column).intersect(&compared(right, swapped, left, time_column))
            }
            None => DaySet::all(),
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let low = compared(expr, Operator::GtEq, low, time_column);
            low.intersect(&compared(expr, Operator::LtEq, high, time_column))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let days = list.iter().map(|value| compared(expr, Operator::Eq, value, time_column));
            days.fold(DaySet::none(), |all, days| all.union(&days))
        }
        Expr::Literal(ScalarValue::Boolean(Some(false) | None), _) => DaySet::none(),
        _ => DaySet::all(),
    }
}

/// `side op value`, where `side` follows from the time and `value` is a constant.
fn compared(side: &Expr, op: Operator, value: &Expr, time_column: &str) -> DaySet {
    let (Some(side), Expr::Literal(value, _)) = (Side::of(side, time_column), value) else {
        return DaySet::all();
    };
    // A comparison with null is never true.
    if value.is_null() && is_comparison(op) {
        return DaySet::none();
    }
    let Some((value_us, is_exact)) = time_us(value) else { return DaySet::all() };
    // Times are whole microseconds: before a value that is not one means up to the one below it.
    let before_us = if is_exact { value_us.saturating_sub(1) } else { value_us };
    match op {
        Operator::Eq | Operator::IsNotDistinctFrom => DaySet::of_times(value_us, side.last_us(value_us)),
        // The next value begins where the times of this one end.
        Operator::Gt if side.is_aligned => DaySet::of_times(side.last_us(value_us).saturating_add(1), i64::MAX),
        Operator::Gt | Operator::GtEq => DaySet::of_times(value_us, i64::MAX),
        Operator::Lt => DaySet::of_times(i64::MIN, side.last_us(before_us)),
        Operator::LtEq => DaySet::of_times(i64::MIN, side.last_us(value_us)),
        _ => DaySet::all(),
    }
}

fn is_comparison(op: Operator) -> bool {
    matches!(op, Operator::Eq | Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq)
}

/// What of the time is compared: a value that is the time or earlier, by less than `width_us`.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// 1 for the time itself.
    width_us: i64,
    /// Whether the value is always a multiple of the width.
    is_aligned: bool,
}

impl Side {
    const TIME: Side = Side { width_us: 1, is_aligned: true };
    const DAY: Side = Side { width_us: DAY_US, is_aligned: true };

    fn of(expr: &Expr, time_column: &str) -> Option<Side> {
        match expr {
            Expr::Column(column) if column.name == time_column => Some(Side::TIME),
            Expr::Alias(alias) => Side::of(&alias.expr, time_column),
            Expr::Cast(Cast { expr, field }) => match (Side::of(expr, time_column)?, field.data_type()) {
                (Side { width_us: 1, .. }, DataType::Date32) => Some(Side::DAY),
                (side, data_type) if keeps_instants(data_type) => Some(side),
                _ => None,
            },
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "date_trunc" => {
                let [Expr::Literal(unit, _), time] = args.as_slice() else { return None };
                match Side::of(time, time_column)? {
                    Side { width_us: 1, .. } => Side::truncated(unit.try_as_str()??),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn truncated(unit: &str) -> Option<Side> {
        // The longest that a unit can be.
        let (width_us, is_aligned) = match unit.to_ascii_lowercase().as_str() {
            "second" => (1_000_000, true),
            "minute" => (60_000_000, true),
            "hour" => (3_600_000_000, true),
            "day" => (DAY_US, true),
            "week" => (7 * DAY_US, false),
            "month" => (31 * DAY_US, false),
            "quarter" => (92 * DAY_US, false),
            "year" => (366 * DAY_US, false),
            _ => return None,
        };
        Some(Side { width_us, is_aligned })
    }

    /// The last time whose value is `value_us` or less.
    fn last_us(self, value_us: i64) -> i64 {
        let start_us = match self.is_aligned {
            true => value_us.saturating_sub(value_us.rem_euclid(self.width_us)),
            false => value_us,
        };
        start_us.saturating_add(self.width_us - 1)
    }
}

/// A cast of a time in UTC to this type changes nothing that a comparison sees.
fn keeps_instants(data_type: &DataType) -> bool {
    let is_utc = |zone: &Option<_>| zone.as_deref().is_none_or(|zone: &str| matches!(zone, "UTC" | "+00:00" | "Z"));
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, zone) if is_utc(zone))
}

/// A constant in microseconds, rounded down, and whether it is just that.
fn time_us(value: &ScalarValue) -> Option<(i64, bool)> {
    match value {
        ScalarValue::TimestampSecond(Some(value), _) => Some((value.checked_mul(1_000_000)?, true)),
        ScalarValue::TimestampMillisecond(Some(value), _) => Some((value.checked_mul(1_000)?, true)),
        ScalarValue::TimestampMicrosecond(Some(value), _) => Some((*value, true)),
        ScalarValue::TimestampNanosecond(Some(value), _) => Some((value.div_euclid(1_000), value % 1_000 == 0)),
        ScalarValue::Date32(Some(day)) => Some((i64::from(*day) * DAY_US, true)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "implied_tests.rs"]
mod tests;
