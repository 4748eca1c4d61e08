//! What is served, as an OpenAPI document.

use serde_json::{Value, json};

use super::negotiate::Format;

/// The document.
pub(crate) fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Legwork",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Live facts about a field organisation, as SQL. Read-only, without authentication: for this machine only.",
        },
        "paths": {
            "/": {"get": plain("A page with links and what the lanes do.", "text/html")},
            "/healthz": {"get": plain("The process lives.", "application/json")},
            "/readyz": {"get": readyz()},
            "/metrics": {"get": plain("Metrics of the pipeline and the business, Prometheus text 0.0.4.", "text/plain")},
            "/openapi.json": {"get": plain("This document.", "application/json")},
            "/v1/tables": {"get": tables()},
            "/v1/sql": {"post": sql()},
        },
        "components": {"schemas": {"Problem": problem(), "Result": result()}},
    })
}

fn plain(summary: &str, media_type: &str) -> Value {
    json!({"summary": summary, "responses": {"200": {"description": "OK", "content": {media_type: {}}}}})
}

fn readyz() -> Value {
    let report = json!({"application/json": {"schema": {"type": "object", "required": ["ready", "reasons"], "properties": {
        "ready": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"type": "string"}, "description": "What is missing, naming the hop; empty when ready."},
    }}}});
    json!({"summary": "The lanes are assigned, restored and progress.", "responses": {
        "200": {"description": "Ready", "content": report},
        "503": {"description": "Not ready", "content": report},
    }})
}

fn tables() -> Value {
    let column = json!({"type": "object", "properties": {"name": {"type": "string"}, "type": {"type": "string"}, "nullable": {"type": "boolean"}}});
    let table = json!({"type": "object", "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["table", "view"]},
        "doc": {"type": "string"},
        "key": {"type": "array", "items": {"type": "string"}, "description": "Columns that identify a row."},
        "columns": {"type": "array", "items": column},
    }});
    let body = json!({"type": "object", "properties": {"tables": {"type": "array", "items": table}}});
    json!({"summary": "Tables and views with their columns.", "responses": {
        "200": {"description": "OK", "content": {"application/json": {"schema": body}}},
        "default": failed("No answer"),
    }})
}

fn sql() -> Value {
    let mut content = serde_json::Map::new();
    for format in Format::ALL {
        let schema = if *format == Format::Json {
            json!({"schema": {"$ref": "#/components/schemas/Result"}})
        } else {
            json!({})
        };
        content.insert(format.media_type().to_owned(), schema);
    }
    let question = json!({"type": "object", "required": ["sql"], "additionalProperties": false, "properties": {"sql": {"type": "string"}}});
    let mut responses = json!({"200": {
        "description": "The rows, streamed in the format of Accept (JSON without one). A result that fails on the way is cut off: its body does not end as its format does.",
        "headers": {"legwork-notices": {
            "description": "As notices in JSON results, with every format; absent when there are none.",
            "schema": {"type": "string"},
        }},
        "content": content,
    }});
    for (status, description) in [
        ("400", "The statement, or the body, is wrong"),
        ("403", "The statement is not allowed: only reading is"),
        ("406", "None of the formats is accepted"),
        ("408", "The body did not arrive in time"),
        ("413", "A limit was reached: bytes of the statement, rows, bytes or memory of the result"),
        ("415", "The body is not application/json"),
        ("421", "Host is not a name of this server; of every path"),
        ("429", "Too many queries at once"),
        ("500", "Our mistake"),
        ("503", "It may work later"),
        ("504", "The query ran too long"),
    ] {
        responses[status] = failed(description);
    }
    json!({
        "summary": "Runs one statement that reads.",
        "requestBody": {"required": true, "content": {"application/json": {"schema": question}}},
        "responses": responses,
    })
}

fn failed(description: &str) -> Value {
    json!({"description": description, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}})
}

fn problem() -> Value {
    json!({"type": "object", "description": "RFC 9457", "required": ["type", "title", "status", "detail"], "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "sqlstate": {"type": "string", "description": "PostgreSQL's code, when the statement is the cause."},
    }})
}

fn result() -> Value {
    let column = json!({"type": "object", "properties": {
        "name": {"type": "string"},
        "type": {"type": "string", "description": "PostgreSQL's name: int8, float8, text, timestamptz, numeric, ..."},
    }});
    json!({"type": "object", "required": ["columns", "notices", "rows", "row_count"], "properties": {
        "columns": {"type": "array", "items": column},
        "notices": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What to know beside the rows, such as whose rows are not among them, and why; nearly always empty.",
        },
        "rows": {
            "type": "array",
            "items": {"type": "array"},
            "description": "Values in the order of the columns. Times are RFC 3339 in UTC, decimals are strings, bytes are hexadecimal, NaN and infinities are null.",
        },
        "row_count": {"type": "integer"},
    }})
}
