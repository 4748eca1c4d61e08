//! The service over HTTP, the file behind it, and Confluent's Python client where one is at hand.

use std::net::SocketAddr;

use apache_avro::Schema;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::compatibility::objections;
use super::*;

struct Served {
    base: String,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    async fn start(registry: Registry) -> Served {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, registry, async { drop(stopped.await) }));
        Served { base, client: Client::new(), stop: Some(stop), task }
    }

    async fn stop(mut self) {
        drop(self.client);
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Status and JSON of an answer.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.header("content-type", "application/vnd.schemaregistry.v1+json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/vnd.schemaregistry.v1+json", "{path}");
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, schema: &str) -> (u16, Value) {
        self.ask(Method::POST, path, Some(json!({"schema": schema}))).await
    }

    async fn put(&self, path: &str, level: &str) -> (u16, Value) {
        self.ask(Method::PUT, path, Some(json!({"compatibility": level}))).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.ask(Method::DELETE, path, None).await
    }
}

const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
/// The same, otherwise written.
const ONE_AGAIN: &str = r#" { "name": "R", "type": "record", "fields": [ {"type": {"type": "int"}, "name": "a"} ] } "#;
/// A promotion and a field with a default.
const TWO: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},{"name":"b","type":"string","default":""}]}"#;
/// A field without a default.
const THREE: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},{"name":"c","type":"string"}]}"#;

fn code(answer: (u16, Value)) -> (u16, u64) {
    assert!(answer.1["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", answer.1);
    (answer.0, answer.1["error_code"].as_u64().unwrap())
}

#[tokio::test]
async fn schemas_are_registered_found_and_deleted() {
    let served = Served::start(Registry::in_memory()).await;
    assert_eq!(served.get("/").await, (200, json!({})));
    assert_eq!(served.get("/schemas/types").await, (200, json!(["AVRO"])));
    assert_eq!(served.get("/subjects").await, (200, json!([])));
    assert_eq!(served.post("/subjects/s%2F1/versions?normalize=True", ONE).await, (200, json!({"id": 1})));
    assert_eq!(served.post("/subjects/s%2F1/versions", ONE_AGAIN).await, (200, json!({"id": 1})));
    assert_eq!(served.post("/subjects/s%2F1/versions", TWO).await, (200, json!({"id": 2})));
    assert_eq!(served.post("/subjects/other/versions", TWO).await, (200, json!({"id": 2})));
    assert_eq!(served.get("/subjects").await.1, json!(["other", "s/1"]));
    assert_eq!(served.get("/subjects?subjectPrefix=s").await.1, json!(["s/1"]));
    assert_eq!(served.get("/subjects/s%2F1/versions").await.1, json!([1, 2]));
    let second = json!({"subject": "s/1", "version": 2, "id": 2, "schema": TWO});
    assert_eq!(served.get("/subjects/s%2F1/versions/latest").await.1, second);
    assert_eq!(served.get("/subjects/s%2F1/versions/-1").await.1, second);
    assert_eq!(served.post("/subjects/s%2F1", TWO).await.1, second);
    assert_eq!(served.post("/subjects/s%2F1", ONE_AGAIN).await.1["version"], 1);
    assert_eq!(served.get("/subjects/s%2F1/versions/1/schema").await.1, serde_json::from_str::<Value>(ONE).unwrap());
    assert_eq!(served.get("/subjects/s%2F1/versions/1/referencedby").await.1, json!([]));
    assert_eq!(served.get("/schemas/ids/2").await.1, json!({"schema": TWO}));
    assert_eq!(served.get("/schemas/ids/2/schema").await.1, serde_json::from_str::<Value>(TWO).unwrap());
    assert_eq!(served.get("/schemas/ids/2/subjects").await.1, json!(["other", "s/1"]));
    assert_eq!(
        served.get("/schemas/ids/2/versions").await.1,
        json!([{"subject": "other", "version": 1}, {"subject": "s/1", "version": 2}])
    );
    assert_eq!(served.get("/schemas?latestOnly=true&subjectPrefix=s").await.1, json!([second]));

    assert_eq!(code(served.delete("/subjects/s%2F1/versions/1?permanent=true").await), (404, 40407));
    assert_eq!(served.delete("/subjects/s%2F1/versions/1").await, (200, json!(1)));
    assert_eq!(code(served.delete("/subjects/s%2F1/versions/1").await), (404, 40406));
    assert_eq!(served.get("/subjects/s%2F1/versions").await.1, json!([2]));
    assert_eq!(served.get("/subjects/s%2F1/versions?deleted=true").await.1, json!([1, 2]));
    assert_eq!(served.delete("/subjects/s%2F1/versions/1?permanent=true").await, (200, json!(1)));
    assert_eq!(code(served.delete("/subjects/s%2F1?permanent=true").await), (404, 40405));
    assert_eq!(served.delete("/subjects/s%2F1").await, (200, json!([2])));
    assert_eq!(code(served.delete("/subjects/s%2F1").await), (404, 40404));
    assert_eq!(served.get("/subjects").await.1, json!(["other"]));
    // What was hidden counts no more against a new schema, but its number stays taken.
    assert_eq!(served.post("/subjects/s%2F1/versions", THREE).await, (200, json!({"id": 3})));
    assert_eq!(served.get("/subjects/s%2F1/versions").await.1, json!([3]));
    served.stop().await;
}

#[tokio::test]
async fn refusals_have_confluents_codes() {
    let served = Served::start(Registry::in_memory()).await;
    served.post("/subjects/s/versions", ONE).await;
    assert_eq!(code(served.get("/nowhere").await), (404, 404));
    assert_eq!(code(served.delete("/subjects").await), (405, 405));
    assert_eq!(code(served.get("/subjects/none/versions").await), (404, 40401));
    assert_eq!(code(served.post("/subjects/none", ONE).await), (404, 40401));
    assert_eq!(code(served.get("/subjects/s/versions/2").await), (404, 40402));
    assert_eq!(code(served.post("/subjects/s", TWO).await), (404, 40403));
    assert_eq!(code(served.get("/schemas/ids/9").await), (404, 40403));
    assert_eq!(code(served.get("/schemas/ids/x").await), (404, 40403));
    assert_eq!(code(served.get("/subjects/s/versions/0").await), (422, 42202));
    assert_eq!(code(served.get("/subjects/s/versions/newest").await), (422, 42202));
    assert_eq!(code(served.post("/subjects/s/versions", "{").await), (422, 42201));
    assert_eq!(code(served.post("/subjects/s/versions", r#"{"type":"recrod"}"#).await), (422, 42201));
    let typed = |kind: &str| Some(json!({"schema": ONE, "schemaType": kind}));
    assert_eq!(served.ask(Method::POST, "/subjects/s/versions", typed("AVRO")).await.0, 200);
    let refused = served.ask(Method::POST, "/subjects/s/versions", typed("JSON")).await;
    assert!(refused.1["message"].as_str().unwrap().contains("AVRO only"));
    assert_eq!(code(refused), (422, 42201));
    let referring = json!({"schema": ONE, "references": [{"name": "x", "subject": "s", "version": 1}]});
    assert_eq!(code(served.ask(Method::POST, "/subjects/s/versions", Some(referring)).await), (422, 42201));
    assert_eq!(code(served.ask(Method::POST, "/subjects/s/versions", Some(json!([1]))).await), (422, 422));
    assert_eq!(code(served.post("/subjects/s/versions", &" ".repeat(BODY_BYTES_MAX)).await), (413, 413));
    served.stop().await;
}

#[tokio::test]
async fn levels_are_kept_and_enforced() {
    let served = Served::start(Registry::in_memory()).await;
    assert_eq!(served.get("/mode").await.1, json!({"mode": "READWRITE"}));
    assert_eq!(code(served.get("/mode/s").await), (404, 40409));
    assert_eq!(served.get("/mode/s?defaultToGlobal=true").await.0, 200);
    assert_eq!(served.get("/config").await.1, json!({"compatibilityLevel": "BACKWARD"}));
    served.post("/subjects/s/versions", ONE).await;
    served.post("/subjects/s/versions", TWO).await;
    let refused = served.post("/subjects/s/versions", THREE).await;
    assert!(refused.1["message"].as_str().unwrap().contains("version 2"), "{}", refused.1);
    assert_eq!(code(refused), (409, 409));
    let test = async |path: &str, schema| served.post(path, schema).await.1["is_compatible"].as_bool().unwrap();
    assert!(!test("/compatibility/subjects/s/versions/latest?verbose=true", THREE).await);
    assert!(!test("/compatibility/subjects/s/versions", THREE).await);
    // A long is no int: back to the first schema is backward compatible to nothing but itself.
    assert!(test("/compatibility/subjects/s/versions/1", ONE).await);
    assert!(!test("/compatibility/subjects/s/versions/2", ONE).await);
    assert!(test("/compatibility/subjects/unknown/versions", ONE).await);
    assert_eq!(code(served.post("/compatibility/subjects/unknown/versions/1", ONE).await), (404, 40401));
    assert_eq!(code(served.get("/config/s").await), (404, 40408));
    assert_eq!(served.get("/config/s?defaultToGlobal=true").await.1, json!({"compatibilityLevel": "BACKWARD"}));
    assert_eq!(code(served.put("/config/s", "SOMETIMES").await), (422, 42203));
    assert_eq!(served.put("/config/s", "NONE").await, (200, json!({"compatibility": "NONE"})));
    assert_eq!(served.get("/config/s").await.1, json!({"compatibilityLevel": "NONE"}));
    assert_eq!(served.post("/subjects/s/versions", THREE).await.0, 200);
    assert_eq!(served.delete("/config/s").await, (200, json!({"compatibilityLevel": "NONE"})));
    assert_eq!(served.put("/config", "full").await, (200, json!({"compatibility": "FULL"})));
    // Backward compatible to the third, but not forward.
    let fourth = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"double"}]}"#;
    assert_eq!(code(served.post("/subjects/s/versions", fourth).await), (409, 409));
    assert_eq!(served.post("/subjects/s/versions", ONE).await, (200, json!({"id": 1})), "it is a version already");
    assert_eq!(served.delete("/config").await, (200, json!({"compatibilityLevel": "FULL"})));
    assert_eq!(served.get("/config").await.1, json!({"compatibilityLevel": "BACKWARD"}));
    served.stop().await;
}

#[test]
fn each_level_asks_for_its_directions() {
    let parse = |schema| Schema::parse_str(schema).unwrap();
    let (one, two) = (parse(ONE), parse(TWO));
    let fits = |level: Level, new: &Schema, old: &Schema| objections(level, new, old).is_empty();
    for level in Level::ALL {
        assert_eq!(level.as_str().parse::<Level>().unwrap(), level);
        let (backward, forward) = match level {
            Level::None => (false, false),
            Level::Backward | Level::BackwardTransitive => (true, false),
            Level::Forward | Level::ForwardTransitive => (false, true),
            Level::Full | Level::FullTransitive => (true, true),
        };
        // Two reads what one wrote, one does not read what two wrote.
        assert_eq!(fits(level, &two, &one), !forward, "{level}");
        assert_eq!(fits(level, &one, &two), !backward, "{level}");
    }
    let nullable = parse(r#"["null", "int"]"#);
    assert!(!fits(Level::Backward, &parse(r#""int""#), &nullable));
    assert!(fits(Level::Backward, &nullable, &parse(r#""int""#)));
}

#[test]
fn transitive_levels_look_at_every_version() {
    let field = |field: &str| format!(r#"{{"type":"record","name":"R","fields":[{field}]}}"#);
    let first = field(r#"{"name":"a","type":"string"}"#);
    let second = field("");
    let third = field(r#"{"name":"a","type":"int","default":0}"#);
    let registry = Registry::in_memory();
    registry.register("s", &first).unwrap();
    registry.register("s", &second).unwrap();
    registry.set_level(Some("s"), Level::BackwardTransitive).unwrap();
    assert!(matches!(registry.register("s", &third), Err(RegistryError::Incompatible { .. })));
    registry.set_level(Some("s"), Level::Backward).unwrap();
    registry.register("s", &third).unwrap();
}

#[test]
fn the_file_brings_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.jsonl");
    let registry = Registry::open(&path).unwrap();
    registry.register_defaults().unwrap();
    registry.register_defaults().unwrap();
    registry.register("s", ONE).unwrap();
    let two = registry.register("s", TWO).unwrap();
    registry.set_level(None, Level::Full).unwrap();
    registry.set_level(Some("s"), Level::None).unwrap();
    registry.store.lock().delete_version("s", "1".parse().unwrap(), false).unwrap();
    assert!(matches!(Registry::open(&path), Err(RegistryError::Storage(_))), "it is open");
    let shown = |registry: &Registry| {
        let store = registry.store.lock();
        let subjects: Vec<String> = store.subjects(true, "").into_iter().map(str::to_owned).collect();
        let versions: Vec<String> =
            subjects.iter().map(|s| format!("{:?}", store.versions(s, true).unwrap())).collect();
        (subjects, versions, store.level(None), store.level(Some("s")))
    };
    let before = shown(&registry);
    assert_eq!(before.0.len(), Kind::ALL.len() + 1);
    drop(registry);
    let whole = std::fs::read(&path).unwrap();
    // A crash in the middle of an append.
    std::fs::write(&path, [&whole[..], b"{\"op\":\"register\",\"subj\xc3"].concat()).unwrap();
    let registry = Registry::open(&path).unwrap();
    assert_eq!(shown(&registry), before);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(registry.register("t", TWO).unwrap(), two);
    assert_eq!(registry.register("t", r#""string""#).unwrap_err().code(), 409);
    assert_eq!(registry.register("u", "string").unwrap(), two + 1);
    drop(registry);
    let mut damaged = whole;
    damaged[3] = b'!';
    std::fs::write(&path, damaged).unwrap();
    let Err(RegistryError::Storage(why)) = Registry::open(&path) else { panic!("it opens") };
    assert!(why.contains("line 1 is damaged"), "{why}");
}

/// `LEGWORK_TEST_PYTHON` names a Python that has `confluent-kafka[avro,schema-registry]`.
#[tokio::test(flavor = "multi_thread")]
async fn confluents_python_client_agrees() {
    let Some(python) = std::env::var_os("LEGWORK_TEST_PYTHON") else {
        eprintln!("NOT TESTED: Confluent's Python client; LEGWORK_TEST_PYTHON names no Python that has it");
        return;
    };
    let registry = Registry::in_memory();
    registry.register_defaults().unwrap();
    let served = Served::start(registry).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/registry_client.py");
    let url = served.base.clone();
    let run = tokio::task::spawn_blocking(move || std::process::Command::new(python).arg(script).arg(url).output());
    let output = run.await.unwrap().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("all checks passed"), "{text}");
    served.stop().await;
}
