//! The `legwork` program: configuration, wiring, commands.

mod allocator;
mod args;
mod commands;
mod config;
mod data;
mod delivery;
mod exit;
mod letters;
mod output;
mod service;
mod topics;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    // Both providers are linked, so rustls would not choose by itself.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("legwork: {}", exit::told(&error));
            exit::code(&error)
        }
    }
}

/// Whoever read our output has closed it, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
