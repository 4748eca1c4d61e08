//! Who may ask, and headers that every answer has.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::HttpState;
use super::problem::Problem;

static HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses foreign hosts and adds the headers that are not there.
pub(crate) async fn guard(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    let mut response = match check_host(&request, &state.hosts) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    for (name, value) in &HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check_host(request: &Request, hosts: &[String]) -> Result<(), Problem> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => host.and_then(|host| host.parse::<Authority>().ok()),
    };
    let Some(authority) = authority else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the request has no valid Host"));
    };
    if is_own(authority.host(), hosts) {
        return Ok(());
    }
    let detail =
        format!("{:?} is not a name of this server: use its address, localhost, or list the name", authority.host());
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// An address cannot be pointed elsewhere; a name can, unless it is always loopback or listed.
fn is_own(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&host))
}
