//! How commands end: what went wrong decides the exit code.

use std::process::ExitCode;

use legwork_codec::files::FileError;
use legwork_codec::{RegistryError, RegistryErrorKind};
use legwork_kafka::{ErrorKind, KafkaError};
use legwork_query::QueryError;

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

/// Whether an error is for the user to mend in the configuration.
pub(crate) fn is_config(error: &anyhow::Error) -> bool {
    code(error) == ExitCode::from(78)
}

/// Exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Usage(_)) => ExitCode::from(2),
        Some(Failure::Temporary(_)) => ExitCode::from(75),
        Some(Failure::Config(_)) => ExitCode::from(78),
        None if error.downcast_ref::<crate::config::ConfigError>().is_some() => ExitCode::from(78),
        None if error.chain().filter_map(|cause| cause.downcast_ref::<FileError>()).any(FileError::is_usage) => {
            ExitCode::from(2)
        }
        None if error.chain().any(is_temporary) => ExitCode::from(75),
        None => match error.chain().find_map(|cause| cause.downcast_ref::<KafkaError>()).map(KafkaError::kind) {
            Some(ErrorKind::Retry) => ExitCode::from(75),
            Some(ErrorKind::Config) => ExitCode::from(78),
            None => ExitCode::FAILURE,
        },
    }
}

fn is_temporary(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_registry = cause.downcast_ref::<RegistryError>().map(|error| error.kind() == RegistryErrorKind::Retry);
    let of_query = cause.downcast_ref::<QueryError>().map(|error| error.kind == legwork_query::ErrorKind::Retry);
    of_registry.or(of_query).unwrap_or(false)
}

/// An error with its causes. Many errors tell their cause themselves: nothing is said twice.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_does_not_answer_is_worth_another_try() {
        let silent = KafkaError::Unreachable {
            bootstrap: "b:9092".to_owned(),
            request: "to ask",
            reason: "timed out".to_owned(),
        };
        assert_eq!(code(&anyhow::Error::new(silent).context("creating topics")), ExitCode::from(75));
        let silent = RegistryError::Unavailable { detail: "it does not answer".to_owned() };
        assert_eq!(code(&anyhow::Error::new(silent).context("registering gps")), ExitCode::from(75));
        let mut full = QueryError {
            kind: legwork_query::ErrorKind::Retry,
            sqlstate: "53300",
            message: "8 queries ran all the time: try again later".to_owned(),
        };
        assert_eq!(code(&anyhow::Error::new(full.clone())), ExitCode::from(75));
        full.kind = legwork_query::ErrorKind::Statement;
        assert_eq!(code(&anyhow::Error::new(full)), ExitCode::FAILURE);
        let refused = KafkaError::Client { reason: "no such mechanism".to_owned() };
        assert_eq!(code(&anyhow::Error::new(refused)), ExitCode::from(78));
    }

    #[test]
    fn a_cause_is_told_once() {
        let io = || std::io::Error::other("no such folder");
        let file = FileError::Io { path: "a.csv".into(), source: io() };
        assert_eq!(told(&anyhow::Error::new(file)), "cannot read a.csv: no such folder");
        assert_eq!(told(&anyhow::Error::new(io()).context("opening the lake")), "opening the lake: no such folder");
    }
}
