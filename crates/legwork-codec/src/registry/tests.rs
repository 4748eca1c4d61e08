//! The client against a small registry on loopback.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::{Lookup, RegistryClient, RegistryConfig, RegistryError};

const PING: &str = r#"{"schema": "{\"type\": \"record\", \"name\": \"r\", \"fields\": []}"}"#;

/// What the registry answers on each path; every request is counted.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<&'static str, (u16, String)>>,
    n_requests: AtomicUsize,
    /// Value of the authorization header that is needed.
    authorization: Mutex<Option<&'static str>>,
}

impl Script {
    fn set(&self, path: &'static str, status: u16, body: &str) {
        self.answers.lock().insert(path, (status, body.to_owned()));
    }

    fn n_requests(&self) -> usize {
        self.n_requests.load(Ordering::SeqCst)
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    script.n_requests.fetch_add(1, Ordering::SeqCst);
    let needed = *script.authorization.lock();
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if needed.is_some() && needed != given {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match request.uri().path() {
        "/schemas/ids/301" => (StatusCode::FOUND, [(header::LOCATION, "/schemas/ids/1")]).into_response(),
        "/schemas/ids/408" => std::future::pending().await,
        path => match script.answers.lock().get(path) {
            Some((status, body)) => (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response(),
            None => (StatusCode::NOT_FOUND, r#"{"error_code": 40403, "message": "Schema not found"}"#).into_response(),
        },
    }
}

struct Setting {
    runtime: Runtime,
    script: Arc<Script>,
    url: String,
}

impl Setting {
    fn new() -> Setting {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let script = Arc::new(Script::default());
        script.set("/schemas/ids/1", 200, PING);
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Setting { runtime, script, url }
    }

    fn client(&self, change: impl FnOnce(&mut RegistryConfig)) -> RegistryClient {
        let mut config = RegistryConfig { url: self.url.clone(), ..RegistryConfig::default() };
        change(&mut config);
        RegistryClient::new(config, self.runtime.handle().clone()).unwrap()
    }
}

/// Looks up until the answer is one that is waited for.
fn until(client: &RegistryClient, id: u32, is_awaited: impl Fn(&Lookup) -> bool) -> Lookup {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.lookup(id);
        if is_awaited(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn settled(client: &RegistryClient, id: u32) -> Lookup {
    until(client, id, |answer| !matches!(answer, Lookup::Pending))
}

fn unavailable(answer: Lookup) -> String {
    match answer {
        Lookup::Unavailable(detail) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_fetch_serves_all_who_ask_and_wakes_them() {
    let setting = Setting::new();
    let client = setting.client(|_| {});
    let n_woken = Arc::new(AtomicUsize::new(0));
    let counter = n_woken.clone();
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    client.on_ready(&wake);
    assert!(matches!(client.lookup(1), Lookup::Pending));
    let clones: Vec<_> = (0..4).map(|_| client.clone()).collect();
    let threads: Vec<_> = clones.into_iter().map(|client| std::thread::spawn(move || settled(&client, 1))).collect();
    for thread in threads {
        assert!(matches!(thread.join().unwrap(), Lookup::Ready(schema) if schema.id() == 1));
    }
    assert_eq!(setting.script.n_requests(), 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while n_woken.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    // A known id outlives its registry.
    drop(setting);
    assert!(matches!(client.lookup(1), Lookup::Ready(_)));
}

#[test]
fn an_unknown_id_is_asked_for_again_after_a_while() {
    let setting = Setting::new();
    let client = setting.client(|config| config.missing_for = Duration::from_millis(300));
    let Lookup::Missing(detail) = settled(&client, 2) else { panic!() };
    assert_eq!(detail, format!("the schema registry at {} does not know schema id 2", setting.url));
    let n_requests = setting.script.n_requests();
    assert!(matches!(client.lookup(2), Lookup::Missing(_)));
    assert_eq!(setting.script.n_requests(), n_requests);
    setting.script.set("/schemas/ids/2", 200, PING);
    assert!(matches!(until(&client, 2, |answer| matches!(answer, Lookup::Ready(_))), Lookup::Ready(_)));
}

#[test]
fn a_registry_in_trouble_is_told_and_gets_well() {
    let setting = Setting::new();
    setting.script.set("/schemas/ids/3", 503, r#"{"error_code": 50301, "message": "leader unknown"}"#);
    let client = setting.client(|_| {});
    assert_eq!(
        unavailable(settled(&client, 3)),
        format!("the schema registry at {} answered 503 Service Unavailable (50301: leader unknown)", setting.url)
    );
    setting.script.set("/schemas/ids/3", 200, PING);
    until(&client, 3, |answer| matches!(answer, Lookup::Ready(_)));
}

#[test]
fn a_registry_that_is_not_there_is_named_without_credentials() {
    let setting = Setting::new();
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = setting.client(|config| config.url = format!("http://user:secret@{address}/base/?token=secret"));
    assert!(!format!("{client:?}").contains("secret"));
    let detail = unavailable(settled(&client, 1));
    assert!(
        detail.starts_with(&format!("the schema registry at http://{address}/base cannot be reached: ")),
        "{detail}"
    );
    assert!(!detail.contains("secret"), "{detail}");
}

#[test]
fn redirects_slow_answers_and_foreign_ones_are_trouble() {
    let setting = Setting::new();
    setting.script.set("/schemas/ids/4", 200, "<html>log in</html>");
    let client = setting.client(|config| config.timeout = Duration::from_millis(250));
    let at = format!("the schema registry at {} ", setting.url);
    let of = |id| unavailable(settled(&client, id)).strip_prefix(&at).unwrap().to_owned();
    assert!(of(301).starts_with("redirects (302 Found), which is not followed"));
    assert_eq!(of(408), "did not answer within 250ms");
    assert!(of(4).starts_with("answered with something else than a registry does"));
}

#[test]
fn only_a_registry_may_say_that_there_is_no_such_schema() {
    let setting = Setting::new();
    setting.script.set("/schemas/ids/2", 404, "404 page not found");
    setting.script.set("/schemas/ids/3", 404, r#"{"error_code": 404, "message": "HTTP 404 Not Found"}"#);
    setting.script.set("/schemas/ids/4", 400, "<html>The plain HTTP request was sent to HTTPS port</html>");
    setting.script.set("/schemas/ids/5", 404, r#"{"error_code": 40402, "message": "Version not found."}"#);
    setting.script.set("/schemas/ids/6", 422, r#"{"error_code": 42202, "message": "no version"}"#);
    let client = setting.client(|_| {});
    for (id, said) in [(2, "404 Not Found"), (3, "404 Not Found (404: HTTP 404 Not Found)"), (4, "400 Bad Request")] {
        let expected = format!(
            "the schema registry at {} answered {said}, not as a registry does: check registry.url if it stays so",
            setting.url
        );
        assert_eq!(unavailable(settled(&client, id)), expected);
    }
    assert!(matches!(settled(&client, 5), Lookup::Missing(_)));
    assert!(matches!(settled(&client, 6), Lookup::Refused(_)));
    setting.script.set("/schemas/ids/2", 200, PING);
    until(&client, 2, |answer| matches!(answer, Lookup::Ready(_)));
}

#[test]
fn answers_that_cannot_be_used_are_refused() {
    let setting = Setting::new();
    let large = format!(r#"{{"schema": "{}"}}"#, "x".repeat(2 << 20));
    setting.script.set("/schemas/ids/5", 200, &large);
    setting.script.set("/schemas/ids/6", 200, r#"{"schemaType": "PROTOBUF", "schema": "syntax = \"proto3\";"}"#);
    setting.script.set("/schemas/ids/7", 200, r#"{"schema": "{\"type\": \"rekord\"}"}"#);
    let client = setting.client(|_| {});
    for (id, expected) in [(5, "more than 1048576 bytes"), (6, "PROTOBUF: only AVRO is read"), (7, "is not valid Avro")]
    {
        match settled(&client, id) {
            Lookup::Refused(why) => assert!(why.contains(expected), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn credentials_are_sent_and_their_refusal_is_told() {
    let setting = Setting::new();
    *setting.script.authorization.lock() = Some("Basic dTpw");
    let detail = unavailable(settled(&setting.client(|_| {}), 1));
    assert!(detail.contains("refused our credentials (401 Unauthorized)"), "{detail}");
    let basic = setting.client(|config| {
        config.username = Some("u".to_owned());
        config.password = Some("p".to_owned());
    });
    assert!(matches!(settled(&basic, 1), Lookup::Ready(_)));
    let in_url = setting.client(|config| config.url = config.url.replace("http://", "http://u:p@"));
    assert!(matches!(settled(&in_url, 1), Lookup::Ready(_)));
    *setting.script.authorization.lock() = Some("Bearer t");
    let bearer = setting.client(|config| config.token = Some("t".to_owned()));
    assert!(matches!(settled(&bearer, 1), Lookup::Ready(_)));
}

#[test]
fn references_are_followed_once_each() {
    let setting = Setting::new();
    let record = |name: &str, field: &str| {
        let avro = format!(r#"{{"type": "record", "name": "{name}", "fields": [{{"name": "f", "type": {field}}}]}}"#);
        serde_json::Value::String(avro).to_string()
    };
    let with = |schema: String, references: &str| format!(r#"{{"schema": {schema}, "references": [{references}]}}"#);
    let b = r#"{"name": "B", "subject": "b/b", "version": 1}"#;
    let c = r#"{"name": "C", "subject": "c", "version": 2}"#;
    setting.script.set("/schemas/ids/8", 200, &with(record("A", r#"["null", "B", "C"]"#), &format!("{b}, {c}")));
    setting.script.set("/subjects/b%2Fb/versions/1", 200, &with(record("B", r#""C""#), c));
    setting.script.set("/subjects/c/versions/2", 200, &with(record("C", r#""int""#), b));
    let client = setting.client(|_| {});
    match settled(&client, 8) {
        Lookup::Ready(schema) => assert_eq!(schema.references().len(), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(setting.script.n_requests(), 3);
}

#[test]
fn requests_of_producers_and_checks() {
    let setting = Setting::new();
    setting.script.set("/subjects/s-value/versions", 200, r#"{"id": 12}"#);
    setting.script.set("/subjects", 200, r#"["s-value"]"#);
    let latest = r#"{"subject": "s-value", "version": 2, "id": 12, "schema": "\"int\""}"#;
    setting.script.set("/subjects/s-value/versions/latest", 200, latest);
    setting.script.set("/subjects/t/versions", 409, r#"{"error_code": 409, "message": "incompatible"}"#);
    let client = setting.client(|_| {});
    setting.runtime.block_on(async {
        assert_eq!(client.register("s-value", "\"int\"").await.unwrap(), 12);
        assert_eq!(client.subjects().await.unwrap(), ["s-value"]);
        assert_eq!(client.latest("s-value").await.unwrap().id, 12);
        assert!(matches!(client.latest("nothing").await, Err(RegistryError::NotFound { .. })));
        assert!(matches!(client.register("t", "\"int\"").await, Err(RegistryError::Refused { .. })));
        client.health().await.unwrap();
    });
    *setting.script.authorization.lock() = Some("Bearer t");
    assert!(matches!(setting.runtime.block_on(client.health()), Err(RegistryError::Unavailable { .. })));
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let setting = Setting::new();
    for url in ["", "localhost:8081", "ftp://localhost", "http://"] {
        let config = RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() };
        let refused = RegistryClient::new(config, setting.runtime.handle().clone());
        assert!(matches!(refused, Err(RegistryError::Config { .. })), "{url}");
    }
    let ca_file = Some("/nonexistent/ca.pem".into());
    let config = RegistryConfig { ca_file, ..RegistryConfig::default() };
    let Err(error) = RegistryClient::new(config, setting.runtime.handle().clone()) else { panic!() };
    assert!(error.to_string().starts_with("registry.ca_file /nonexistent/ca.pem: "), "{error}");
}
