//! The views: SQL files of this crate, planned when the engine is made.
//!
//! A file begins with comment lines `-- name:`, `-- doc:` and `-- key:`; what follows is one query. `{base_currency}`, `{calendar}`
//! and `{week_shift_days}` stand for what the options say.

use std::sync::Arc;

use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use futures::FutureExt;
use legwork_types::{Column, ColumnType, Table};

use crate::catalog::{Schemas, is_covered};
use crate::error;
use crate::{QueryError, QueryOptions, TableInfo, WeekStart};

/// Files in the order of what they need.
const FILES: &[&str] = &[
    include_str!("../views/device_reps.sql"),
    include_str!("../views/rep_teams.sql"),
    include_str!("../views/fx_spans.sql"),
    include_str!("../views/rep_movement.sql"),
    include_str!("../views/rep_positions.sql"),
    include_str!("../views/device_coverage.sql"),
    include_str!("../views/rep_device_movement.sql"),
    include_str!("../views/rep_activity.sql"),
    include_str!("../views/rep_activity_daily.sql"),
    include_str!("../views/rep_activity_weekly.sql"),
    include_str!("../views/team_activity_daily.sql"),
    include_str!("../views/visits.sql"),
    include_str!("../views/check_in_verdicts.sql"),
    include_str!("../views/deals.sql"),
    include_str!("../views/deal_stage_intervals.sql"),
    include_str!("../views/stage_durations.sql"),
    include_str!("../views/stalled_deals.sql"),
    include_str!("../views/lead_first_touches.sql"),
    include_str!("../views/order_revenue.sql"),
];

/// What a view is before it is planned.
struct Definition {
    name: String,
    doc: String,
    key: Vec<String>,
    sql: String,
}

/// Plans the views and adds them to `public`. *Errors:* `Bug` with the view's name when one does not plan.
pub(crate) fn add_views(
    schemas: &Schemas,
    state: &SessionState,
    options: &QueryOptions,
) -> Result<Vec<TableInfo>, QueryError> {
    let files: Vec<Definition> = FILES.iter().map(|text| parse(text, options)).collect();
    let has_file = |table: &Table| files.iter().any(|file| file.name == table.name());
    let partial = Table::ALL.iter().filter(|table| is_covered(**table) && table.def().is_partial);
    let sums: Vec<Definition> = partial.filter(|table| !has_file(table)).map(|&table| sum_over_lanes(table)).collect();
    sums.into_iter().chain(files).map(|definition| add_view(schemas, state, definition)).collect()
}

fn add_view(schemas: &Schemas, state: &SessionState, view: Definition) -> Result<TableInfo, QueryError> {
    let broken = |message: String| error::bug(format!("view {}: {message}", view.name));
    // The catalog answers at once, so the plan is there when the future is first polled.
    let planned = state.create_logical_plan(&view.sql).now_or_never();
    let plan = planned.ok_or_else(|| broken("planning waits for something".to_owned()))?;
    let plan = plan.map_err(|e| broken(e.strip_backtrace()))?;
    let table = Arc::new(ViewTable::new(plan, Some(view.sql)));
    let schema = datafusion::catalog::TableProvider::schema(table.as_ref());
    schemas.public.add(&view.name, table);
    Ok(TableInfo { name: view.name, doc: view.doc, is_view: true, schema, key: view.key })
}

/// Rows of one rep and window may lie in several lanes, each with a part of the counts.
fn sum_over_lanes(table: Table) -> Definition {
    let def = table.def();
    let is_measure = |t: ColumnType| matches!(t, ColumnType::Count | ColumnType::Measure);
    let (sums, groups): (Vec<&Column>, Vec<&Column>) =
        def.columns.iter().partition(|column| is_measure(column.column_type));
    let groups = groups.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
    let sums = sums.iter().map(|column| format!("sum({0}) AS {0}", column.name)).collect::<Vec<_>>().join(", ");
    Definition {
        name: def.name.to_owned(),
        doc: def.doc.trim().to_owned(),
        key: def.key.iter().map(|&column| column.to_owned()).collect(),
        sql: format!("SELECT {groups}, {sums} FROM lanes.{} GROUP BY {groups}", def.name),
    }
}

fn parse(text: &str, options: &QueryOptions) -> Definition {
    // Weeks are truncated to Mondays; a week that starts on Sunday is shifted onto one and back.
    let week_shift_days = match options.week_start {
        WeekStart::Monday => "0",
        WeekStart::Sunday => "1",
    };
    let text = &text
        .replace("{base_currency}", &options.base_currency.replace('\'', "''"))
        .replace("{calendar}", &options.calendar.replace('\'', "''"))
        .replace("{week_shift_days}", week_shift_days);
    let header = |name: &str| {
        let prefix = format!("-- {name}:");
        text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    let key = header("key").split(',').map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned).collect();
    Definition { name: header("name"), doc: header("doc"), key, sql: text.clone() }
}
