//! Arrow to Prometheus text 0.0.4.

use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use legwork_query::{ErrorKind, QueryError};

use super::business::{Metric, MetricType};

/// What the labels of a series of the rest are called.
const OTHER: &str = "other";

fn bug(message: String) -> QueryError {
    QueryError { kind: ErrorKind::Bug, sqlstate: "XX000", message }
}

/// Help, type and series; nothing when there are no series. Nulls and NaN are left out. Beyond `series_max` series, the smallest are
/// summed into one (for quantiles, which have no sum, left out).
pub(crate) fn render(metric: &Metric, batches: &[RecordBatch], series_max: usize) -> Result<String, QueryError> {
    let mut series = Vec::new();
    for batch in batches {
        add_series(metric, batch, &mut series)?;
    }
    if series.is_empty() {
        return Ok(String::new());
    }
    let label_names = batches.first().map(label_names).unwrap_or_default();
    // By labels, so that two texts of the same values are the same.
    if series.len() > series_max {
        series.sort_by(|(labels, value), (other_labels, other)| {
            other.total_cmp(value).then_with(|| labels.cmp(other_labels))
        });
        let rest: f64 = series.drain(series_max.saturating_sub(1)..).map(|(_, value)| value).sum();
        if metric.metric_type == MetricType::Gauge {
            let labels: Vec<(&str, &str)> = label_names
                .iter()
                .map(|name| (name.as_str(), if name == "period" { "today" } else { OTHER }))
                .collect();
            series.push((label_text(labels.into_iter()), rest));
        }
    }
    series.sort_by(|(labels, _), (other, _)| labels.cmp(other));
    let mut out = String::with_capacity(100 + 80 * series.len());
    let _ = writeln!(out, "# HELP {} {}", metric.name, escape_help(metric.help));
    let _ = writeln!(out, "# TYPE {} {}", metric.name, metric.metric_type.as_str());
    for (labels, value) in &series {
        let _ = writeln!(out, "{}{labels} {}", metric.name, number(*value));
    }
    Ok(out)
}

fn label_names(batch: &RecordBatch) -> Vec<String> {
    let names = batch.schema_ref().fields().iter().map(|field| field.name().clone());
    names.filter(|name| name != "value").collect()
}

fn add_series(metric: &Metric, batch: &RecordBatch, series: &mut Vec<(String, f64)>) -> Result<(), QueryError> {
    let failed = |cause: arrow::error::ArrowError| bug(format!("{}: {cause}", metric.name));
    let values = batch.column_by_name("value").ok_or_else(|| bug(format!("{} has no column value", metric.name)))?;
    let values = cast(values, &DataType::Float64).map_err(failed)?;
    let values = values.as_primitive::<Float64Type>();
    let mut labels = Vec::new();
    for (name, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if name.name() != "value" {
            labels.push((name.name().as_str(), cast(column, &DataType::Utf8).map_err(failed)?));
        }
    }
    for row_idx in 0..batch.num_rows() {
        if values.is_null(row_idx) || values.value(row_idx).is_nan() {
            continue;
        }
        let of_row = labels.iter().map(|(name, column)| {
            let column = column.as_string::<i32>();
            (*name, if column.is_null(row_idx) { "" } else { column.value(row_idx) })
        });
        series.push((label_text(of_row), values.value(row_idx)));
    }
    Ok(())
}

fn label_text<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                _ => out.push(c),
            }
        }
        out.push('"');
    }
    if !out.is_empty() {
        out.push('}');
    }
    out
}

fn escape_help(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value.is_infinite() { if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { value.to_string() }
}
