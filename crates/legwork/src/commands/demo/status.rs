//! What a demo says of itself while it runs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use futures::TryStreamExt;
use legwork_query::Session;

use crate::service::Service;

/// How often the status is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// What a glance at the pipeline shows, over SQL as anybody would.
const STATUS_SQL: &str = "SELECT \
    to_char(legwork_now(), '%Y-%m-%d %H:%M:%S') AS now, \
    (SELECT coalesce(sum(n_read), 0) FROM pipeline_lanes) AS n_read, \
    (SELECT coalesce(sum(n_rejected), 0) FROM pipeline_lanes) AS n_rejected, \
    (SELECT count(*) FROM rep_positions) AS n_positions, \
    (SELECT coalesce(sum(distance_m) / 1000, 0)::bigint FROM device_movement) AS km, \
    (SELECT coalesce(sum(n_calls), 0) FROM rep_calls) AS n_calls, \
    (SELECT count(*) FROM deals WHERE status = 'open') AS n_deals_open";

async fn status_line(session: &dyn Session) -> Result<String> {
    use arrow::util::display::array_value_to_string;
    let batches: Vec<_> = session.query(STATUS_SQL).await?.batches.try_collect().await?;
    let Some(batch) = batches.first().filter(|batch| batch.num_rows() == 1) else { return Ok(String::new()) };
    let cell = |column: usize| array_value_to_string(batch.column(column), 0).unwrap_or_default();
    Ok(format!(
        "{} UTC | {} read, {} rejected | {} devices, {} km | {} calls | {} open deals",
        cell(0),
        cell(1),
        cell(2),
        cell(3),
        cell(4),
        cell(5),
        cell(6)
    ))
}

/// Shows the status for ever: on a terminal in one line, otherwise a line now and then.
pub(super) async fn show_status(service: &Service, json: bool) {
    if json {
        return std::future::pending().await;
    }
    let is_terminal = std::io::stdout().is_terminal();
    for round in 0_u64.. {
        tokio::time::sleep(STATUS_EVERY).await;
        let line = match status_line(service.engine.session().as_ref()).await {
            Ok(line) => line,
            Err(error) => {
                tracing::warn!("the status cannot be had: {error:#}");
                continue;
            }
        };
        let mut out = std::io::stdout().lock();
        // When nobody reads the status any more, the demo goes on for those who read the tables.
        let _ = if is_terminal {
            write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush())
        } else if round % 5 == 0 {
            writeln!(out, "{line}")
        } else {
            Ok(())
        };
    }
}

pub(super) async fn summarise(service: &Service) -> Result<()> {
    let health = service.health();
    let line = status_line(service.engine.session().as_ref()).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line} | {} lanes", health.n_lanes)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use legwork_query::{Engine, QueryOptions, SqlEngine};
    use legwork_runtime::{ReferenceTables, run_files};

    use super::*;
    use crate::config::Config;
    use crate::topics;

    #[tokio::test]
    async fn the_status_has_numbers_before_the_first_event() -> Result<()> {
        let lanes = topics::lanes(&Config::default());
        let tables = run_files(Vec::new(), lanes, ReferenceTables::default(), &mut |_| {})?;
        let engine = SqlEngine::new(tables, QueryOptions::default())?;
        let line = status_line(engine.session().as_ref()).await?;
        let numbers = line.split_once(" UTC").map(|(_, numbers)| numbers);
        assert_eq!(numbers, Some(" | 0 read, 0 rejected | 0 devices, 0 km | 0 calls | 0 open deals"), "{line}");
        Ok(())
    }
}
