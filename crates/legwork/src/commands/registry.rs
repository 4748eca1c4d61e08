//! `legwork registry`: the small schema registry alone.

use std::io::Write;

use anyhow::{Context, Result};
use legwork_codec::registry_server;
use tokio::net::TcpListener;

use crate::args::RegistryArgs;
use crate::config::{Config, ConfigError};

pub(crate) async fn run(args: RegistryArgs) -> Result<()> {
    super::start_logging(&Config::default())?;
    let listener = TcpListener::bind(&args.listen).await.with_context(|| {
        format!("{} cannot be bound: choose another address, or port 0 for any free port", args.listen)
    })?;
    let address = listener.local_addr()?;
    legwork_server::postgres::require_loopback(address)
        .map_err(|_| ConfigError(format!("{address} is not loopback: the registry has no authentication")))?;
    let registry = match &args.file {
        Some(path) => registry_server::Registry::open(path)?,
        None => registry_server::Registry::in_memory(),
    };
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "registry": format!("http://{address}") }))?;
    } else {
        writeln!(out, "schema registry at http://{address}")?;
    }
    out.flush()?;
    let stop = async {
        if let Err(error) = super::stop_signal().await {
            tracing::error!("{error:#}");
        }
    };
    Ok(registry_server::serve(listener, registry, stop).await?)
}
