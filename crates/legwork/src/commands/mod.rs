//! One module a command.

mod backfill;
mod check;
mod check_kept;
mod config;
mod demo;
mod explain;
mod lanes;
mod publish;
mod registry;
pub(crate) mod repair;
mod replay;
mod schemas;
mod simulate;
mod sql;
mod tap;
mod up;

use std::future::Future;

use anyhow::{Context, Result};

use crate::args::{Args, Command};
use crate::config::{Config, LogFormat, Overrides, load_quiet};

/// Runs a command to its end.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Up(args) => block_on(up::run(args, true)),
        Command::Run(args) => block_on(up::run(args, false)),
        Command::Sql(args) => block_on(sql::run(args)),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Simulate(args) => block_on(simulate::run(args)),
        Command::Check(args) => block_on(check::run(args)),
        Command::Config(command) => config::run(command),
        Command::Schemas(command) => block_on(schemas::run(command)),
        Command::Registry(args) => block_on(registry::run(args)),
        Command::Backfill(args) => block_on(backfill::run(args)),
        Command::Repair(args) => block_on(repair::run(args)),
        Command::Lanes(command) => block_on(lanes::run(command)),
        Command::Tap(args) => block_on(tap::run(args)),
    }
}

fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("legwork")
        // Planning a large statement in the optimiser recurses deeply.
        .thread_stack_size(8 << 20)
        .build()
        .context("starting the runtime")?;
    let done = runtime.block_on(command);
    // What still runs ends with the process: a call that does not return must not keep it, and one that is torn apart panics.
    std::mem::forget(runtime);
    done
}

/// The configuration of a command that answers one question, its log started: it says nothing else unless something is wrong, or somebody
/// asked for more.
pub(crate) fn quiet(overrides: &Overrides) -> Result<Config> {
    let config = load_quiet(overrides, "warn")?;
    start_logging(&config)?;
    Ok(config)
}

/// Log lines go to stderr, as text or JSON.
pub(crate) fn start_logging(config: &Config) -> Result<()> {
    use tracing_subscriber::EnvFilter;
    let level = &config.log.level;
    // Store and lake tell at length what they do; what matters of it is told by us. Whoever names them gets them.
    let quiet = ["slatedb=warn", "deltalake_core=error", "buoyant_kernel=error", "delta_kernel=error"];
    let directives: Vec<&str> = quiet.into_iter().chain([level.as_str()]).collect();
    let filter = EnvFilter::try_new(directives.join(","))
        .map_err(|error| crate::config::ConfigError(format!("log.level {level:?} is wrong: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log.format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))?;
    config.without_effect().iter().for_each(|notice| tracing::warn!("{notice}"));
    Ok(())
}

/// Resolves when SIGINT or SIGTERM comes. A second signal ends the process at once.
pub(crate) async fn stop_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}
