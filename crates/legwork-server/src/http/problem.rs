//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use legwork_query::{ErrorKind, QueryError};
use serde_json::json;

/// What went wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) sqlstate: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), sqlstate: None }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let status = match (error.kind, error.sqlstate) {
            (_, "57014") => StatusCode::GATEWAY_TIMEOUT,
            (_, "53300") => StatusCode::TOO_MANY_REQUESTS,
            (ErrorKind::Statement, _) => StatusCode::BAD_REQUEST,
            (ErrorKind::Forbidden, _) => StatusCode::FORBIDDEN,
            (ErrorKind::Limit, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (ErrorKind::Retry, _) => StatusCode::SERVICE_UNAVAILABLE,
            (ErrorKind::Bug, _) => {
                tracing::error!(sqlstate = error.sqlstate, message = %error.message, "a query failed by our mistake");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Problem { status, detail: error.message, sqlstate: Some(error.sqlstate) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(sqlstate) = self.sqlstate {
            body["sqlstate"] = json!(sqlstate);
        }
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, content_type)], body.to_string()).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
