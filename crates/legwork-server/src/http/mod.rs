//! HTTP: `POST /v1/sql`, tables, health, metrics, a page.
//!
//! What lives here: routes, formats, errors as problem JSON (RFC 9457), bounds of connections. What does not: authentication. So requests
//! whose `Host` is a name that others could point here are refused (DNS rebinding), and there is no CORS: a page of another origin can
//! neither send JSON here nor read an answer.

mod formats;
mod guard;
mod negotiate;
mod openapi;
mod page;
mod problem;
mod server;
mod sql;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use legwork_query::Engine;
use prometheus::TextEncoder;
use serde_json::{Value, json};

use crate::Readiness;
use crate::metrics::BusinessMetrics;
use problem::Problem;

pub use formats::{as_text, csv_schema};
pub use server::{HttpLimits, serve};
pub use sql::NOTICES;

/// What the routes answer from.
#[derive(Clone, Debug)]
pub struct HttpState {
    /// Answers SQL.
    pub engine: Arc<dyn Engine>,
    /// Answers `/readyz`.
    pub readiness: Arc<dyn Readiness>,
    /// Metrics of the pipeline.
    pub registry: prometheus::Registry,
    /// Metrics of the business, when they are evaluated in this process.
    pub business: Option<Arc<BusinessMetrics>>,
    /// Names that `Host` may have beside loopback and addresses.
    pub hosts: Vec<String>,
    /// Bytes of one SQL text.
    pub sql_bytes_max: usize,
}

/// Every route with its methods, as `/openapi.json` must have them.
#[cfg(test)]
const ROUTES: &[(&str, &str)] = &[
    ("/", "get"),
    ("/healthz", "get"),
    ("/metrics", "get"),
    ("/openapi.json", "get"),
    ("/readyz", "get"),
    ("/v1/sql", "post"),
    ("/v1/tables", "get"),
];

/// All routes.
pub fn router(state: HttpState) -> Router {
    let state = Arc::new(state);
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .route("/v1/sql", post(sql::query))
        .route("/v1/tables", get(tables))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here: see /openapi.json"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this path: see /openapi.json")
        })
        .layer(middleware::from_fn_with_state(state.clone(), guard::guard))
        .with_state(state)
}

async fn readyz(State(state): State<Arc<HttpState>>) -> Response {
    let report = state.readiness.readiness();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// The pipeline's metrics, then the business's.
async fn metrics(State(state): State<Arc<HttpState>>) -> Result<Response, Problem> {
    let gathered = TextEncoder::new().encode_to_string(&state.registry.gather());
    let mut text = gathered.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    if let Some(business) = &state.business {
        text.push_str(&business.render());
    }
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

async fn tables(State(state): State<Arc<HttpState>>) -> Result<Json<Value>, Problem> {
    let tables = state.engine.tables().await?;
    let tables = tables.iter().map(|table| {
        let columns = table.schema.fields().iter().map(|field| {
            json!({"name": field.name(), "type": formats::type_name(field.data_type()), "nullable": field.is_nullable()})
        });
        let columns: Vec<Value> = columns.collect();
        json!({"name": table.name, "kind": if table.is_view { "view" } else { "table" }, "doc": table.doc, "key": table.key, "columns": columns})
    });
    let tables: Vec<Value> = tables.collect();
    Ok(Json(json!({"tables": tables})))
}
