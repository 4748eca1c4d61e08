//! What a registry refuses, in the codes of Confluent's.

use axum::http::StatusCode;

/// A request that a registry refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No such subject.
    #[error("Subject '{0}' not found.")]
    SubjectNotFound(String),
    /// No such version of a subject.
    #[error("Version {0} not found.")]
    VersionNotFound(String),
    /// No such schema.
    #[error("Schema not found")]
    SchemaNotFound,
    /// The subject was deleted before; only a permanent deletion is left to do.
    #[error("Subject '{0}' was soft deleted. Set permanent=true to delete permanently")]
    SubjectSoftDeleted(String),
    /// A permanent deletion must follow a soft one.
    #[error("Subject '{0}' was not deleted first before being permanently deleted")]
    SubjectNotSoftDeleted(String),
    /// The version was deleted before; only a permanent deletion is left to do.
    #[error("Subject '{0}' Version {1} was soft deleted. Set permanent=true to delete permanently")]
    VersionSoftDeleted(String, u32),
    /// A permanent deletion must follow a soft one.
    #[error("Subject '{0}' Version {1} was not deleted first before being permanently deleted")]
    VersionNotSoftDeleted(String, u32),
    /// The subject has no level of its own.
    #[error("Subject '{0}' does not have subject-level compatibility configured")]
    NoSubjectLevel(String),
    /// The subject has no mode of its own.
    #[error("Subject '{0}' does not have subject-level mode configured")]
    NoSubjectMode(String),
    /// The schema does not go with an earlier one of its subject.
    #[error("Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: {}", details.join("; "))]
    Incompatible {
        /// The subject.
        subject: String,
        /// With which version, and why.
        details: Vec<String>,
    },
    /// No Avro schema, or one of a type or with references that this registry does not keep.
    #[error("Invalid schema: {0}")]
    InvalidSchema(String),
    /// No version's number.
    #[error(
        "The specified version '{0}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
    )]
    InvalidVersion(String),
    /// No level of compatibility.
    #[error("Invalid compatibility level. Valid values are {}", super::Level::ALL.map(super::Level::as_str).join(", "))]
    InvalidLevel,
    /// The request is no JSON of the form expected.
    #[error("Unprocessable request body: {0}")]
    InvalidBody(String),
    /// Larger than [`super::BODY_BYTES_MAX`].
    #[error("Request body is larger than 1 MiB")]
    TooLarge,
    /// No such endpoint.
    #[error("HTTP 404 Not Found")]
    NotFound,
    /// The endpoint does not do that.
    #[error("HTTP 405 Method Not Allowed")]
    MethodNotAllowed,
    /// The file behind the registry fails; nothing has changed.
    #[error("Error in the backend data store: {0}")]
    Storage(String),
}

impl RegistryError {
    /// Confluent's code; its first three digits are HTTP's status.
    pub fn code(&self) -> u32 {
        match self {
            RegistryError::NotFound => 404,
            RegistryError::MethodNotAllowed => 405,
            RegistryError::Incompatible { .. } => 409,
            RegistryError::TooLarge => 413,
            RegistryError::InvalidBody(_) => 422,
            RegistryError::SubjectNotFound(_) => 40401,
            RegistryError::VersionNotFound(_) => 40402,
            RegistryError::SchemaNotFound => 40403,
            RegistryError::SubjectSoftDeleted(_) => 40404,
            RegistryError::SubjectNotSoftDeleted(_) => 40405,
            RegistryError::VersionSoftDeleted(..) => 40406,
            RegistryError::VersionNotSoftDeleted(..) => 40407,
            RegistryError::NoSubjectLevel(_) => 40408,
            RegistryError::NoSubjectMode(_) => 40409,
            RegistryError::InvalidSchema(_) => 42201,
            RegistryError::InvalidVersion(_) => 42202,
            RegistryError::InvalidLevel => 42203,
            RegistryError::Storage(_) => 50001,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        let code = self.code();
        let status = if code < 1_000 { code } else { code / 100 };
        u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
