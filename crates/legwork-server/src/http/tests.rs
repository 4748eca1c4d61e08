//! The routes, asked as clients ask them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use legwork_query::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::ReadinessReport;
use crate::metrics::MetricsOptions;
use crate::testing::{FakeEngine, samples};

#[derive(Debug)]
struct Ready(Vec<String>);

impl Readiness for Ready {
    fn readiness(&self) -> ReadinessReport {
        ReadinessReport::unless(self.0.clone())
    }
}

fn state(engine: FakeEngine) -> HttpState {
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let registry = prometheus::Registry::new();
    let counter = prometheus::IntCounter::new("legwork_events_read_total", "Events read.").unwrap();
    counter.inc_by(3);
    registry.register(Box::new(counter)).unwrap();
    HttpState {
        business: Some(Arc::new(BusinessMetrics::new(engine.as_ref(), MetricsOptions::default()))),
        engine,
        readiness: Arc::new(Ready(Vec::new())),
        registry,
        hosts: vec!["legwork.example".to_owned()],
        sql_bytes_max: 1_000,
    }
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Result<Bytes, axum::Error>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(self.body.as_ref().unwrap()).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.as_ref().unwrap().to_vec()).unwrap()
    }

    /// It is a problem of this status; returns its detail.
    fn problem(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], json!(status.as_u16()));
        assert!(body["title"].is_string() && body["detail"].is_string() && body["type"].is_string());
        body
    }
}

async fn ask(state: HttpState, request: Request<Body>) -> Answer {
    let response = router(state).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: axum::body::to_bytes(body, usize::MAX).await }
}

fn request(method: Method, path: &str, host: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).header(header::HOST, host).body(Body::empty()).unwrap()
}

async fn get(path: &str) -> Answer {
    ask(state(FakeEngine::default()), request(Method::GET, path, "127.0.0.1:8080")).await
}

async fn sql_of(engine: FakeEngine, sql: &str, accept: &str) -> Answer {
    let body = json!({"sql": sql}).to_string();
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/sql")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header(header::ACCEPT, accept)
        .body(Body::from(body))
        .unwrap();
    ask(state(engine), request).await
}

async fn sql(sql: &str, accept: &str) -> Answer {
    sql_of(FakeEngine::default(), sql, accept).await
}

#[tokio::test]
async fn json_has_every_type() {
    let answer = sql("SELECT * FROM samples ORDER BY id", "*/*").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    let body = answer.json();
    let types: Vec<_> =
        body["columns"].as_array().unwrap().iter().map(|column| column["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["int8", "text", "float8", "numeric", "timestamptz", "date", "bool", "bytea", "text[]"]);
    let first = json!([
        1,
        "Ada",
        0.1,
        "1234.5678",
        "2026-05-28T20:26:40.123456Z",
        "2024-10-04",
        true,
        "00ff27",
        ["a", null, "it's \"b\""]
    ]);
    assert_eq!(body["rows"][0], first);
    assert_eq!(body["rows"][1], json!([2, null, null, null, null, null, null, null, null]));
    assert_eq!(body["row_count"], json!(3));
    let empty = sql("SELECT id FROM samples WHERE id > 9", "*/*").await.json();
    assert_eq!(empty, json!({"columns": [{"name": "id", "type": "int8"}], "notices": [], "rows": [], "row_count": 0}));
}

#[tokio::test]
async fn what_an_answer_lacks_is_told_with_every_format() {
    let notices = ["lane t/0 \"halted\"", "Größe\n\u{1f4cd}"].map(str::to_owned).to_vec();
    for format in ["application/json", "text/csv", "application/vnd.apache.arrow.stream"] {
        let engine = FakeEngine { notices: notices.clone(), ..FakeEngine::default() };
        let answer = sql_of(engine, "SELECT id FROM samples", format).await;
        let header = answer.headers["legwork-notices"].to_str().unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(header).unwrap(), notices, "{header}");
        if format == "application/json" {
            assert_eq!(answer.json()["notices"], json!(notices));
        }
    }
    assert!(!sql("SELECT id FROM samples", "*/*").await.headers.contains_key("legwork-notices"));
}

#[tokio::test]
async fn csv_arrow_and_parquet_hold_the_same_rows() {
    let csv = sql("SELECT id, name, amount, at, tags FROM samples ORDER BY id", "text/csv").await.text();
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(
        lines[..3],
        ["id,name,amount,at,tags", "1,Ada,1234.5678,2026-05-28T20:26:40.123456Z,\"a;;it's \"\"b\"\"\"", "2,,,,"]
    );
    assert_eq!(sql("SELECT id FROM samples WHERE id > 9", "text/csv").await.text(), "id\n");
    let arrow = sql("SELECT * FROM samples ORDER BY id", "application/vnd.apache.arrow.stream").await;
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.body.as_ref().unwrap().as_ref(), None).unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(arrow::compute::concat_batches(&samples().schema(), &batches).unwrap(), samples());
    let parquet = sql("SELECT * FROM samples ORDER BY id", "application/vnd.apache.parquet").await;
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(parquet.body.unwrap()).unwrap();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap().columns(), samples().columns());
}

#[tokio::test]
async fn errors_are_problems() {
    assert_eq!(sql("SELEC 1", "*/*").await.problem(StatusCode::BAD_REQUEST)["sqlstate"], "42601");
    sql("DROP TABLE samples", "*/*").await.problem(StatusCode::FORBIDDEN);
    sql("SELECT 1", "text/html").await.problem(StatusCode::NOT_ACCEPTABLE);
    let long = format!("SELECT '{}'", "x".repeat(1_000));
    assert_eq!(sql(&long, "*/*").await.problem(StatusCode::PAYLOAD_TOO_LARGE)["sqlstate"], "54000");
    let longer = format!("SELECT '{}'", "x".repeat(100_000));
    sql(&longer, "*/*").await.problem(StatusCode::PAYLOAD_TOO_LARGE);
    get("/nowhere").await.problem(StatusCode::NOT_FOUND);
    let not_allowed = get("/v1/sql").await;
    not_allowed.problem(StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(not_allowed.headers[header::ALLOW], "POST");
    let untyped = request(Method::POST, "/v1/sql", "localhost");
    ask(state(FakeEngine::default()), untyped).await.problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // Rows that are computed but cannot be written: known before the status is sent.
    sql("SELECT at AT TIME ZONE 'Nowhere/City' FROM samples", "*/*").await.problem(StatusCode::NOT_ACCEPTABLE);
    let late = FakeEngine { timeout: Some(Duration::from_millis(20)), ..FakeEngine::default() };
    let slow = "SELECT count(*) FROM generate_series(1, 100000000000)";
    assert_eq!(sql_of(late, slow, "*/*").await.problem(StatusCode::GATEWAY_TIMEOUT)["sqlstate"], "57014");
}

#[tokio::test]
async fn an_error_in_the_middle_cuts_the_body() {
    let engine = FakeEngine { rows_max: Some(20_000), ..FakeEngine::default() };
    let answer = sql_of(engine, "SELECT value FROM generate_series(1, 100000)", "*/*").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body.is_err());
}

#[tokio::test]
async fn only_our_own_hosts_are_answered() {
    for host in [
        "127.0.0.1:8080",
        "[::1]:8080",
        "localhost:1",
        "x.localhost",
        "legwork.example",
        "LEGWORK.example.:80",
        "192.0.2.7",
    ] {
        let answer = ask(state(FakeEngine::default()), request(Method::GET, "/healthz", host)).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
        ask(state(FakeEngine::default()), request(Method::GET, "/metrics", host))
            .await
            .problem(StatusCode::MISDIRECTED_REQUEST);
    }
    let hostless = Request::builder().uri("/healthz").body(Body::empty()).unwrap();
    ask(state(FakeEngine::default()), hostless).await.problem(StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn readiness_has_its_reasons() {
    assert_eq!(get("/readyz").await.json(), json!({"ready": true, "reasons": []}));
    let mut state = state(FakeEngine::default());
    state.readiness = Arc::new(Ready(vec!["kafka: no broker answers at localhost:9092".to_owned()]));
    let answer = ask(state, request(Method::GET, "/readyz", "localhost")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["reasons"][0], "kafka: no broker answers at localhost:9092");
}

#[tokio::test]
async fn metrics_are_text_that_promtool_accepts() {
    let answer = get("/metrics").await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    assert!(text.contains("legwork_events_read_total 3\n") && text.contains("legwork_metrics_errors_total{"), "{text}");
    crate::metrics::promtool(&text);
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let document = get("/openapi.json").await.json();
    let mut documented: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented.extend(methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
    }
    documented.sort();
    let served: Vec<(String, String)> =
        ROUTES.iter().map(|(path, method)| ((*path).to_owned(), (*method).to_owned())).collect();
    assert_eq!(documented, served);
    for (path, method) in ROUTES {
        let method: Method = method.to_uppercase().parse().unwrap();
        let answer = ask(state(FakeEngine::default()), request(method, path, "localhost")).await;
        assert!(![StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status), "{path}");
    }
}

#[tokio::test]
async fn tables_and_the_page() {
    let tables = get("/v1/tables").await.json();
    assert_eq!(tables["tables"][0]["columns"][4], json!({"name": "at", "type": "timestamptz", "nullable": true}));
    let page = get("/").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.text().contains(&format!("<script nonce=\"{nonce}\">")) && !page.text().contains("{nonce}"));
}

#[tokio::test]
async fn silent_clients_are_dropped_and_a_shutdown_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (down, shutdown) = watch::channel(false);
    let limits = HttpLimits { connections_max: 1, head_max: Duration::from_millis(200), ..HttpLimits::default() };
    let server = tokio::spawn(serve(listener, router(state(FakeEngine::default())), shutdown, limits));
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    // The only place is free again once the silent one is gone.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(20), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    down.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap().unwrap();
}
