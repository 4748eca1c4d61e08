//! The endpoints: Confluent Schema Registry's REST API, version 1, as far as its clients use it for Avro.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::compatibility::Level;
use super::error::RegistryError;
use super::store::{Store, Version};
use super::{BODY_BYTES_MAX, Registry};

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// JSON, or why not.
type Answer = Result<Reply, RegistryError>;
/// Switches such as `permanent=true`; clients write them in any case.
type Switches = Query<HashMap<String, String>>;
type Body = Result<Bytes, BytesRejection>;

struct Reply(Value);

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        (StatusCode::OK, [(CONTENT_TYPE, MEDIA_TYPE)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let body = json!({"error_code": self.code(), "message": self.to_string()});
        (self.status(), [(CONTENT_TYPE, MEDIA_TYPE)], body.to_string()).into_response()
    }
}

/// The registry as a service.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/", get(async || Reply(json!({}))))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_schema))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .route("/schemas", get(schemas))
        .route("/schemas/types", get(async || Reply(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/config", get(global_level).put(set_global_level).delete(unset_global_level))
        .route("/config/{subject}", get(level).put(set_level).delete(unset_level))
        .route("/compatibility/subjects/{subject}/versions", post(test_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(test))
        .route("/mode", get(async || Reply(json!({"mode": "READWRITE"}))))
        .route("/mode/{subject}", get(mode))
        .fallback(async || RegistryError::NotFound)
        .method_not_allowed_fallback(async || RegistryError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(registry)
}

fn is_on(switches: &Switches, name: &str) -> bool {
    switches.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Runs a change apart from the threads that serve requests, since it waits for the disk.
async fn change<T: Send + 'static>(
    registry: Registry,
    change: impl FnOnce(&mut Store) -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(move || change(&mut registry.store.lock()))
        .await
        .map_err(|error| RegistryError::Storage(error.to_string()))?
}

fn body<T: for<'de> Deserialize<'de>>(bytes: Body) -> Result<T, RegistryError> {
    let bytes = bytes.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => RegistryError::TooLarge,
        _ => RegistryError::InvalidBody(rejection.body_text()),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| RegistryError::InvalidBody(error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<Value>>,
}

/// The Avro schema of a request.
fn schema_of(bytes: Body) -> Result<String, RegistryError> {
    let body: SchemaBody = body(bytes)?;
    let invalid = |why: String| Err(RegistryError::InvalidSchema(why));
    match body.schema_type.as_deref() {
        None | Some("AVRO") => {}
        Some(other) => return invalid(format!("type {other} is not supported; this registry keeps AVRO only")),
    }
    if body.references.is_some_and(|references| !references.is_empty()) {
        return invalid("references to other schemas are not supported; write the types out".to_owned());
    }
    body.schema.filter(|schema| !schema.trim().is_empty()).map_or_else(|| invalid("it is empty".to_owned()), Ok)
}

async fn subjects(State(registry): State<Registry>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let prefix = switches.get("subjectPrefix").map_or("", String::as_str);
    Ok(Reply(json!(store.subjects(is_on(&switches, "deleted"), prefix))))
}

async fn register(State(registry): State<Registry>, Path(subject): Path<String>, bytes: Body) -> Answer {
    let schema = schema_of(bytes)?;
    let id = change(registry, move |store| store.register(&subject, &schema)).await?;
    Ok(Reply(json!({"id": id})))
}

async fn look_up(
    State(registry): State<Registry>,
    Path(subject): Path<String>,
    switches: Switches,
    bytes: Body,
) -> Answer {
    let schema = schema_of(bytes)?;
    let store = registry.store.lock();
    let version = store.look_up(&subject, &schema, is_on(&switches, "deleted"))?;
    described(&store, &subject, version)
}

fn described(store: &Store, subject: &str, version: &Version) -> Answer {
    let schema = store.schema(version.id)?;
    Ok(Reply(json!({"subject": subject, "version": version.version, "id": version.id, "schema": schema})))
}

async fn delete_subject(State(registry): State<Registry>, Path(subject): Path<String>, switches: Switches) -> Answer {
    let permanent = is_on(&switches, "permanent");
    let versions = change(registry, move |store| store.delete_subject(&subject, permanent)).await?;
    Ok(Reply(json!(versions)))
}

async fn versions(State(registry): State<Registry>, Path(subject): Path<String>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let versions = store.versions(&subject, is_on(&switches, "deleted"))?;
    Ok(Reply(versions.iter().map(|version| version.version).collect()))
}

type AtVersion = Path<(String, String)>;

async fn version(State(registry): State<Registry>, Path((subject, version)): AtVersion, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let version = store.version(&subject, version.parse()?, is_on(&switches, "deleted"))?;
    described(&store, &subject, version)
}

async fn version_schema(
    State(registry): State<Registry>,
    Path((subject, version)): AtVersion,
    switches: Switches,
) -> Result<Response, RegistryError> {
    let store = registry.store.lock();
    let version = store.version(&subject, version.parse()?, is_on(&switches, "deleted"))?;
    store.schema(version.id).map(text)
}

async fn referenced_by(State(registry): State<Registry>, Path((subject, version)): AtVersion) -> Answer {
    registry.store.lock().version(&subject, version.parse()?, false)?;
    Ok(Reply(json!([])))
}

async fn delete_version(
    State(registry): State<Registry>,
    Path((subject, version)): AtVersion,
    switches: Switches,
) -> Answer {
    let which = version.parse()?;
    let permanent = is_on(&switches, "permanent");
    let version = change(registry, move |store| store.delete_version(&subject, which, permanent)).await?;
    Ok(Reply(json!(version)))
}

async fn schemas(State(registry): State<Registry>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let with_deleted = is_on(&switches, "deleted");
    let prefix = switches.get("subjectPrefix").map_or("", String::as_str);
    let mut all = Vec::new();
    for subject in store.subjects(with_deleted, prefix) {
        let mut versions = store.versions(subject, with_deleted)?;
        if is_on(&switches, "latestOnly") {
            versions.drain(..versions.len() - 1);
        }
        for version in versions {
            all.push(described(&store, subject, version)?.0);
        }
    }
    Ok(Reply(all.into()))
}

/// A schema itself, which is JSON already.
fn text(schema: &str) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, MEDIA_TYPE)], schema.to_owned()).into_response()
}

/// Ids are numbers: anything else is the id of no schema.
fn id_of(text: &str) -> Result<u32, RegistryError> {
    text.parse().map_err(|_| RegistryError::SchemaNotFound)
}

async fn schema(State(registry): State<Registry>, Path(id): Path<String>) -> Answer {
    let store = registry.store.lock();
    Ok(Reply(json!({"schema": store.schema(id_of(&id)?)?})))
}

async fn schema_text(State(registry): State<Registry>, Path(id): Path<String>) -> Result<Response, RegistryError> {
    registry.store.lock().schema(id_of(&id)?).map(text)
}

async fn schema_subjects(State(registry): State<Registry>, Path(id): Path<String>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let users = store.users(id_of(&id)?, is_on(&switches, "deleted"))?;
    let mut subjects: Vec<&str> = users.into_iter().map(|(subject, _)| subject).collect();
    subjects.dedup();
    Ok(Reply(json!(subjects)))
}

async fn schema_versions(State(registry): State<Registry>, Path(id): Path<String>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    let users = store.users(id_of(&id)?, is_on(&switches, "deleted"))?;
    Ok(Reply(users.into_iter().map(|(subject, version)| json!({"subject": subject, "version": version})).collect()))
}

fn shown_level(level: Level) -> Reply {
    Reply(json!({"compatibilityLevel": level.as_str()}))
}

#[derive(Deserialize)]
struct LevelBody {
    compatibility: String,
}

async fn global_level(State(registry): State<Registry>) -> Answer {
    Ok(shown_level(registry.store.lock().level(None)))
}

async fn set_global_level(State(registry): State<Registry>, bytes: Body) -> Answer {
    put_level(registry, None, bytes).await
}

async fn unset_global_level(State(registry): State<Registry>) -> Answer {
    change(registry, |store| {
        let before = store.level(None);
        store.set_level(None, None).map(|()| shown_level(before))
    })
    .await
}

async fn level(State(registry): State<Registry>, Path(subject): Path<String>, switches: Switches) -> Answer {
    let store = registry.store.lock();
    match store.own_level(&subject) {
        Err(_) if is_on(&switches, "defaultToGlobal") => Ok(shown_level(store.level(None))),
        own => own.map(shown_level),
    }
}

async fn set_level(State(registry): State<Registry>, Path(subject): Path<String>, bytes: Body) -> Answer {
    put_level(registry, Some(subject), bytes).await
}

async fn put_level(registry: Registry, subject: Option<String>, bytes: Body) -> Answer {
    let level: Level = body::<LevelBody>(bytes)?.compatibility.parse()?;
    change(registry, move |store| store.set_level(subject.as_deref(), Some(level))).await?;
    Ok(Reply(json!({"compatibility": level.as_str()})))
}

async fn unset_level(State(registry): State<Registry>, Path(subject): Path<String>) -> Answer {
    change(registry, move |store| {
        let before = store.own_level(&subject)?;
        store.set_level(Some(&subject), None).map(|()| shown_level(before))
    })
    .await
}

async fn test(State(registry): State<Registry>, Path((subject, version)): AtVersion, bytes: Body) -> Answer {
    let schema = schema_of(bytes)?;
    let objections = registry.store.lock().test(&subject, Some(version.parse()?), &schema)?;
    Ok(Reply(json!({"is_compatible": objections.is_empty(), "messages": objections})))
}

async fn test_all(State(registry): State<Registry>, Path(subject): Path<String>, bytes: Body) -> Answer {
    let schema = schema_of(bytes)?;
    let objections = registry.store.lock().test(&subject, None, &schema)?;
    Ok(Reply(json!({"is_compatible": objections.is_empty(), "messages": objections})))
}

async fn mode(Path(subject): Path<String>, switches: Switches) -> Answer {
    if is_on(&switches, "defaultToGlobal") {
        return Ok(Reply(json!({"mode": "READWRITE"})));
    }
    Err(RegistryError::NoSubjectMode(subject))
}
