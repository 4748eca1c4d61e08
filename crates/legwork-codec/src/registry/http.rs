//! Requests to a registry: no redirects, answers bounded in bytes and time, errors that name the hop and no secrets.

use std::collections::HashSet;
use std::error::Error;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::schema::WriterSchema;
use super::{LatestSchema, RegistryConfig, RegistryError};

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Schemas that one schema may refer to, directly or not.
const REFERENCES_MAX: usize = 64;
/// Codes of a subject, a version and a schema that a registry does not know. *Source:* Confluent's interface; Apicurio, Karapace and Redpanda
/// answer with the same.
const UNKNOWN: RangeInclusive<i64> = 40_401..=40_403;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

#[derive(Clone)]
enum Credentials {
    None,
    Basic { username: String, password: Option<String> },
    Bearer(String),
}

/// Requests to one registry.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    base: Url,
    display_url: Arc<str>,
    credentials: Credentials,
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaAnswer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct LatestAnswer {
    subject: String,
    version: u32,
    id: u32,
    schema: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: Option<i64>,
    message: Option<String>,
}

impl Http {
    pub(super) fn new(config: &RegistryConfig) -> Result<Http, RegistryError> {
        let refuse = |detail: String| RegistryError::Config { detail };
        let mut base = Url::parse(&config.url).map_err(|error| refuse(format!("registry.url is no URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(refuse("registry.url must begin with http:// or https:// and name a host".to_owned()));
        }
        let in_url =
            (!base.username().is_empty()).then(|| (base.username().to_owned(), base.password().map(str::to_owned)));
        let failed = || refuse("registry.url cannot hold credentials".to_owned());
        base.set_username("").map_err(|()| failed())?;
        base.set_password(None).map_err(|()| failed())?;
        base.set_query(None);
        base.set_fragment(None);
        let credentials = match (&config.token, &config.username, in_url) {
            (Some(token), ..) => Credentials::Bearer(token.clone()),
            (None, Some(username), _) => {
                Credentials::Basic { username: username.clone(), password: config.password.clone() }
            }
            (None, None, Some((username, password))) => Credentials::Basic { username, password },
            (None, None, None) => Credentials::None,
        };
        let mut client = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(config.timeout);
        if let Some(ca_file) = &config.ca_file {
            let at = |error: &dyn Error| refuse(format!("registry.ca_file {}: {error}", ca_file.display()));
            let pem = std::fs::read(ca_file).map_err(|error| at(&error))?;
            client = client.tls_certs_merge(Certificate::from_pem_bundle(&pem).map_err(|error| at(&error))?);
        }
        let client =
            client.build().map_err(|error| refuse(format!("the registry's client cannot be set up: {error}")))?;
        let display_url = base.as_str().trim_end_matches('/').into();
        Ok(Http { client, base, display_url, credentials, timeout: config.timeout })
    }

    pub(super) fn display_url(&self) -> &str {
        &self.display_url
    }

    /// Fetches a schema with all that it refers to.
    pub(super) async fn schema(&self, id: u32) -> Result<WriterSchema, RegistryError> {
        let refuse = |detail: String| RegistryError::Refused { detail, is_final: true };
        let answer: SchemaAnswer = self.get(&["schemas", "ids", &id.to_string()], &format!("schema id {id}")).await?;
        check_type(&answer, id)?;
        let mut seen = HashSet::new();
        let mut texts = Vec::new();
        let mut pending = answer.references;
        while let Some(Reference { subject, version }) = pending.pop() {
            if !seen.insert((subject.clone(), version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Err(refuse(format!("schema id {id} refers to more than {REFERENCES_MAX} schemas")));
            }
            let path = ["subjects", &subject, "versions", &version.to_string()];
            let what = format!("version {version} of subject {subject}, which schema id {id} refers to");
            let referenced: SchemaAnswer = self.get(&path, &what).await?;
            check_type(&referenced, id)?;
            pending.extend(referenced.references);
            texts.push(referenced.schema);
        }
        WriterSchema::parse(id, &answer.schema, &texts).map_err(refuse)
    }

    pub(super) async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let body = serde_json::json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        let path = ["subjects", subject, "versions"];
        let answer: IdAnswer = self.request(Method::POST, &path, Some(body), &format!("subject {subject}")).await?;
        Ok(answer.id)
    }

    pub(super) async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.get(&["subjects"], "the list of subjects").await
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<LatestSchema, RegistryError> {
        let path = ["subjects", subject, "versions", "latest"];
        let answer: LatestAnswer = self.get(&path, &format!("subject {subject}")).await?;
        Ok(LatestSchema { subject: answer.subject, version: answer.version, id: answer.id, schema: answer.schema })
    }

    pub(super) async fn health(&self) -> Result<(), RegistryError> {
        // Only the status: a registry of many subjects answers with more than we would read.
        let response = self.send(Method::GET, &["subjects"], None).await?;
        match self.refusal(&response) {
            Some(error) => Err(error),
            None if response.status().is_success() => Ok(()),
            None => Err(self.unavailable(&format!("answered {}", response.status()))),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], what: &str) -> Result<T, RegistryError> {
        self.request(Method::GET, path, None, what).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<String>,
        what: &str,
    ) -> Result<T, RegistryError> {
        let response = self.send(method, path, body).await?;
        if let Some(error) = self.refusal(&response) {
            return Err(error);
        }
        let status = response.status();
        let answer = self.read(response, what).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|_| {
                self.unavailable("answered with something else than a registry does: check registry.url")
            });
        }
        let error: ErrorAnswer =
            serde_json::from_slice(&answer).unwrap_or(ErrorAnswer { error_code: None, message: None });
        let said = match (error.error_code, error.message) {
            (Some(code), Some(message)) => format!("answered {status} ({code}: {message})"),
            _ => format!("answered {status}"),
        };
        match (status, error.error_code) {
            (StatusCode::NOT_FOUND, Some(code)) if UNKNOWN.contains(&code) => Err(RegistryError::NotFound {
                detail: format!("the schema registry at {} does not know {what}", self.display_url),
            }),
            (StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST, Some(_)) => {
                let detail = format!("the schema registry at {} {said} for {what}", self.display_url);
                Err(RegistryError::Refused { detail, is_final: false })
            }
            // A proxy says so while the registry is away, a server of another kind always.
            (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, _) => {
                Err(self.unavailable(&format!("{said}, not as a registry does: check registry.url if it stays so")))
            }
            _ => Err(self.unavailable(&said)),
        }
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<String>) -> Result<Response, RegistryError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url).header("accept", ACCEPT);
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body);
        }
        request = match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { username, password } => request.basic_auth(username, password.as_ref()),
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        request.send().await.map_err(|error| self.failed(&error))
    }

    /// Answers that no request gets past.
    fn refusal(&self, response: &Response) -> Option<RegistryError> {
        match response.status() {
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Some(self.unavailable(&format!(
                "refused our credentials ({status}): check registry.username with password_file, or token_file"
            ))),
            status if status.is_redirection() => Some(self.unavailable(&format!(
                "redirects ({status}), which is not followed: set registry.url to where it leads"
            ))),
            _ => None,
        }
    }

    async fn read(&self, mut response: Response, what: &str) -> Result<Vec<u8>, RegistryError> {
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                let detail = format!(
                    "the schema registry at {} answered with more than {ANSWER_BYTES_MAX} bytes for {what}",
                    self.display_url
                );
                return Err(RegistryError::Refused { detail, is_final: false });
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    fn failed(&self, error: &reqwest::Error) -> RegistryError {
        if error.is_timeout() {
            return self.unavailable(&format!("did not answer within {:?}", self.timeout));
        }
        // The innermost cause says most, and none of them but the outermost names a URL.
        let mut cause: &dyn Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        self.unavailable(&format!("cannot be reached: {cause}"))
    }

    fn unavailable(&self, what: &str) -> RegistryError {
        RegistryError::Unavailable { detail: format!("the schema registry at {} {what}", self.display_url) }
    }
}

fn check_type(answer: &SchemaAnswer, id: u32) -> Result<(), RegistryError> {
    match answer.schema_type.as_deref() {
        None | Some("AVRO") => Ok(()),
        Some(other) => Err(RegistryError::Refused {
            detail: format!(
                "schema id {id} is of type {}: only AVRO is read",
                other.chars().take(20).collect::<String>()
            ),
            is_final: true,
        }),
    }
}
