//! How commands end: what went wrong decides the exit code.

use std::process::ExitCode;

/// The kinds of failure that a caller can tell apart by the exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong: 2.
    #[error("{0}")]
    Usage(String),
    /// Trying again may help: 75.
    #[error("{0}")]
    Temporary(String),
    /// The configuration is wrong: 78.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

/// Exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Usage(_)) => ExitCode::from(2),
        Some(Failure::Temporary(_)) => ExitCode::from(75),
        Some(Failure::Config(_)) => ExitCode::from(78),
        None if error.downcast_ref::<crate::config::ConfigError>().is_some() => ExitCode::from(78),
        None => ExitCode::FAILURE,
    }
}
