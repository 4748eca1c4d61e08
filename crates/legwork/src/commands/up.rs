//! `legwork up` and `legwork run`: the pipeline on a real Kafka.

use std::io::Write;

use anyhow::Result;

use crate::args::UpArgs;
use crate::config;
use crate::service::Service;

pub(crate) async fn run(args: UpArgs, has_postgres: bool) -> Result<()> {
    let config = config::load(&args.config.overrides())?;
    super::start_logging(&config)?;
    let stop = tokio::spawn(super::stop_signal());
    let service = Service::start(&config, has_postgres, None).await?;
    announce(&service, args.json)?;
    stop.await??;
    tracing::info!("stopping");
    service.stop().await;
    Ok(())
}

/// The ready line: JSON for programs, a few lines for people.
pub(crate) fn announce(service: &Service, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let addresses = &service.addresses;
    if json {
        writeln!(out, "{}", serde_json::to_string(addresses)?)?;
    } else {
        writeln!(out, "reading   {}", addresses.kafka)?;
        writeln!(out, "HTTP      {}   (/metrics, /readyz, POST /v1/sql)", addresses.http)?;
        if let Some(postgres) = &addresses.postgres {
            writeln!(out, "SQL       psql {postgres}")?;
        }
    }
    Ok(out.flush()?)
}
