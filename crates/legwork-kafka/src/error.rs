//! What can go wrong with a client of ours, and what to do about it.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;

use crate::config::{is_secret, nearest_option};

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later: a broker that does not answer.
    Retry,
    /// Change the configuration, a right or a topic.
    Config,
}

/// Why a client of Kafka could not be made or asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka refuses an option.
    #[error("kafka option {name}: {reason}; the names in [kafka.options] are librdkafka's own")]
    Option {
        /// Its name.
        name: String,
        /// Why; without the value where that is a secret.
        reason: String,
    },
    /// librdkafka refuses the options together.
    #[error("kafka client: {reason}; check [kafka.options]")]
    Client {
        /// Why.
        reason: String,
    },
    /// The brokers do not answer a request.
    #[error("broker {bootstrap} does not answer ({request}): {reason}")]
    Unreachable {
        /// Bootstrap addresses.
        bootstrap: String,
        /// What was asked.
        request: &'static str,
        /// What librdkafka says.
        reason: String,
    },
    /// The brokers refuse a request.
    #[error("broker {bootstrap} refused {request}: {reason}")]
    Refused {
        /// Bootstrap addresses.
        bootstrap: String,
        /// What was asked.
        request: &'static str,
        /// What the broker says.
        reason: String,
    },
    /// A topic is not there.
    #[error("topic {topic} does not exist: create it or change its name in the configuration")]
    NoTopic {
        /// Its name.
        topic: String,
    },
}

impl KafkaError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            KafkaError::Unreachable { .. } => ErrorKind::Retry,
            _ => ErrorKind::Config,
        }
    }

    /// From making a client. Values of secret options are left out: librdkafka repeats what it could not parse.
    pub(crate) fn from_creation(error: ClientError) -> KafkaError {
        match error {
            ClientError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
                let hint = nearest_option(&name).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                KafkaError::Option { name, reason: format!("there is no such option{hint}") }
            }
            ClientError::ClientConfig(_, reason, name, _) => {
                let reason = if is_secret(&name) { "invalid value".to_owned() } else { reason };
                KafkaError::Option { name, reason }
            }
            ClientError::ClientCreation(reason) => KafkaError::Client { reason },
            other => KafkaError::Client { reason: other.to_string() },
        }
    }

    /// From asking a broker.
    pub(crate) fn from_request(bootstrap: &str, request: &'static str, error: &ClientError) -> KafkaError {
        let bootstrap = bootstrap.to_owned();
        let reason = reason(error);
        match error.rdkafka_error_code() {
            Some(code) if !is_local_outage(code) => KafkaError::Refused { bootstrap, request, reason },
            _ => KafkaError::Unreachable { bootstrap, request, reason },
        }
    }
}

/// Whether this error means that nobody answered, rather than that somebody said no.
pub(crate) fn is_local_outage(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::TimedOutQueue
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::NotController
    )
}

/// What librdkafka says, without rdkafka's words around it.
pub(crate) fn reason(error: &ClientError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_secret_option_stays_out_of_the_message() {
        let make = |name: &str| {
            KafkaError::from_creation(ClientError::ClientConfig(
                RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
                "Invalid value \"hunter2\"".into(),
                name.into(),
                "hunter2".into(),
            ))
            .to_string()
        };
        assert!(!make("sasl.password").contains("hunter2"));
        assert!(make("fetch.wait.max.ms").contains("hunter2"));
    }
}
