use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use std::sync::Arc;

use super::*;
use crate::lake::days::day_of_us;

/// 2026-02-26, a Thursday.
const DAY_0: i64 = 20_510;

/// A time as SQL, near the ends of days.
fn times() -> impl Strategy<Value = String> {
    let offsets = prop::sample::select(vec![0, 1, -1, DAY_US / 2, 3_600_000_000, DAY_US - 1]);
    (-40..40_i64, offsets, 0..4).prop_map(|(day, offset, form)| {
        let time_us = (DAY_0 + day) * DAY_US + offset;
        let time = chrono::DateTime::from_timestamp_micros(time_us).unwrap();
        match form {
            0 => format!("DATE '{}'", time.format("%Y-%m-%d")),
            1 => format!("arrow_cast({}, 'Timestamp(ns)')", time_us * 1_000 + 500 * (day % 2)),
            2 => "NULL".to_owned(),
            _ => format!("'{}'", time.to_rfc3339()),
        }
    })
}

fn sides() -> impl Strategy<Value = String> {
    let units = prop::sample::select(vec!["second", "minute", "hour", "day", "week", "month", "quarter", "year"]);
    prop_oneof![
        Just("t".to_owned()),
        Just("t::date".to_owned()),
        Just("arrow_cast(t, 'Timestamp(ns)')".to_owned()),
        Just("arrow_cast(t, 'Timestamp(s, \"UTC\")')".to_owned()),
        Just("t + interval '1 day'".to_owned()),
        Just("(t AT TIME ZONE 'Asia/Tokyo')::date".to_owned()),
        units.prop_map(|unit| format!("date_trunc('{unit}', t)")),
        Just("date_trunc('month', t)::date".to_owned()),
        Just("other".to_owned()),
    ]
}

fn conditions() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec!["=", "<", "<=", ">", ">=", "<>", "IS NOT DISTINCT FROM"]);
    let leaf = prop_oneof![
        (sides(), op.clone(), times()).prop_map(|(side, op, time)| format!("{side} {op} {time}")),
        (sides(), op, times()).prop_map(|(side, op, time)| format!("{time} {op} {side}")),
        (sides(), times(), times()).prop_map(|(side, low, high)| format!("{side} BETWEEN {low} AND {high}")),
        (sides(), times(), times()).prop_map(|(side, low, high)| format!("{side} NOT BETWEEN {low} AND {high}")),
        (sides(), times(), times()).prop_map(|(side, a, b)| format!("{side} IN ({a}, {b})")),
        (sides(), times(), times()).prop_map(|(side, a, b)| format!("{side} NOT IN ({a}, {b})")),
        Just("t IS NULL".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn sample() -> RecordBatch {
    let offsets = [0, 1, DAY_US / 2, DAY_US - 1];
    let times: Vec<i64> = (-45..45).flat_map(|day| offsets.map(|offset| (DAY_0 + day) * DAY_US + offset)).collect();
    let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let field = |name| Field::new(name, column.data_type().clone(), true);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field("t"), field("other")])), vec![column.clone(), column]).unwrap()
}

/// How often a condition of this kind prunes anything.
fn check(context: &SessionContext, sql: &str, is_simplified: bool) {
    let rows = sample();
    let schema = DFSchema::try_from(rows.schema().as_ref().clone()).unwrap();
    let Ok(filter) = context.parse_sql_expr(sql, &schema) else { return };
    let simplify = || {
        let info = datafusion::logical_expr::simplify::SimplifyContext::builder().with_schema(Arc::new(schema.clone()));
        let simplifier = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(info.build());
        simplifier.simplify(simplifier.coerce(filter.clone(), &schema).ok()?).ok()
    };
    let Some(filter) = (if is_simplified { simplify() } else { Some(filter.clone()) }) else { return };
    let days = days_of(std::slice::from_ref(&filter), "t");
    let Ok(physical) = context.create_physical_expr(filter, &schema) else { return };
    let Ok(passed) = physical.evaluate(&rows).and_then(|passed| passed.into_array(rows.num_rows())) else { return };
    let times = rows.column(0).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    for row in passed.as_boolean().iter().enumerate().filter(|(_, passed)| *passed == Some(true)) {
        let day = day_of_us(times.value(row.0));
        assert!(days.contains(day), "{sql}: {day} of {days}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_row_that_passes_lies_on_another_day(sql in conditions(), is_simplified in any::<bool>()) {
        thread_local!(static CONTEXT: SessionContext = SessionContext::new());
        CONTEXT.with(|context| check(context, &sql, is_simplified));
    }
}

#[test]
fn days_are_just_those_that_are_needed() {
    let context = SessionContext::new();
    let schema = DFSchema::try_from(sample().schema().as_ref().clone()).unwrap();
    for (sql, days) in [
        ("t >= TIMESTAMP '2026-03-01' AND t < TIMESTAMP '2026-03-02'", "[2026-03-01]"),
        ("t BETWEEN TIMESTAMP '2026-03-01' AND TIMESTAMP '2026-03-02'", "[2026-03-01..2026-03-02]"),
        ("TIMESTAMP '2026-03-01T10:00:00' < t", "[2026-03-01..]"),
        ("t::date = DATE '2026-03-01' OR t::date = DATE '2026-03-03'", "[2026-03-01, 2026-03-03]"),
        ("t::date > DATE '2026-03-01'", "[2026-03-02..]"),
        ("t::date < DATE '2026-03-01'", "[..2026-02-28]"),
        ("date_trunc('day', t) <= TIMESTAMP '2026-03-01'", "[..2026-03-01]"),
        ("date_trunc('hour', t) < TIMESTAMP '2026-03-01'", "[..2026-02-28]"),
        ("date_trunc('month', t) = TIMESTAMP '2026-03-01'", "[2026-03-01..2026-03-31]"),
        ("t = TIMESTAMP '2026-03-01' AND other = TIMESTAMP '2026-03-02'", "[2026-03-01]"),
        ("t = TIMESTAMP '2026-03-01' OR other = TIMESTAMP '2026-03-02'", "[..]"),
    ] {
        let info = datafusion::logical_expr::simplify::SimplifyContext::builder().with_schema(Arc::new(schema.clone()));
        let simplifier = datafusion::optimizer::simplify_expressions::ExprSimplifier::new(info.build());
        let filter = context.parse_sql_expr(sql, &schema).unwrap();
        let filter = simplifier.simplify(simplifier.coerce(filter, &schema).unwrap()).unwrap();
        assert_eq!(days_of(&[filter], "t").to_string(), days, "{sql}");
    }
}
