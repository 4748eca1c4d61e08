//! Client of a schema registry that speaks Confluent's HTTP interface.
//!
//! Lanes are synchronous: [`RegistryClient::lookup`] never waits. It answers from memory or starts one fetch in the background,
//! however many lanes ask. Good schemas are kept for ever, since ids are immutable; what was missing or refused is asked for
//! again after a while; a registry that is down is asked again with back-off.

mod http;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::http::Http;
pub use self::schema::WriterSchema;

/// First pause after a failed fetch; it doubles with each further failure.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause after failed fetches.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Ids whose absence is remembered; made-up ids must not fill the memory.
const NEGATIVES_MAX: usize = 10_000;

/// Where a registry is and how to reach it.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Base URL, a path in front of `/schemas` included. A user and password in it are used when `username` is not set.
    pub url: String,
    /// User of basic authentication.
    pub username: Option<String>,
    /// Password of basic authentication.
    pub password: Option<String>,
    /// Bearer token; wins over `username`.
    pub token: Option<String>,
    /// PEM file of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Time for a whole request.
    pub timeout: Duration,
    /// How long an id that the registry does not know is not asked for again.
    pub missing_for: Duration,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        RegistryConfig {
            url: "http://localhost:8081".to_owned(),
            username: None,
            password: None,
            token: None,
            ca_file: None,
            timeout: Duration::from_secs(5),
            missing_for: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither secrets nor the URL, which may hold some.
        f.debug_struct("RegistryConfig")
            .field("ca_file", &self.ca_file)
            .field("timeout", &self.timeout)
            .field("missing_for", &self.missing_for)
            .finish_non_exhaustive()
    }
}

/// What the registry had to say against a request. Messages name the registry's URL without credentials.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The configuration cannot be used.
    #[error("{detail}")]
    Config {
        /// What is wrong and the way out.
        detail: String,
    },
    /// It does not know the id or subject.
    #[error("{detail}")]
    NotFound {
        /// What was asked for.
        detail: String,
    },
    /// It does not answer, not in time, or not as a registry does.
    #[error("{detail}")]
    Unavailable {
        /// What happened and what to do about it.
        detail: String,
    },
    /// It answered, and the answer cannot be used: not Avro, too large, incompatible.
    #[error("{detail}")]
    Refused {
        /// Why.
        detail: String,
        /// Whether asking again would give the same.
        is_final: bool,
    },
}

/// What a caller does about a [`RegistryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryErrorKind {
    /// Try again later.
    Retry,
    /// Correct the configuration.
    Config,
    /// The request or the schema is at fault.
    DeadLetter,
}

impl RegistryError {
    /// What to do about it.
    pub fn kind(&self) -> RegistryErrorKind {
        match self {
            RegistryError::Config { .. } => RegistryErrorKind::Config,
            RegistryError::Unavailable { .. } => RegistryErrorKind::Retry,
            RegistryError::NotFound { .. } | RegistryError::Refused { .. } => RegistryErrorKind::DeadLetter,
        }
    }
}

/// Answer to a look-up.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The writer's schema.
    Ready(Arc<WriterSchema>),
    /// It is being fetched for the first time.
    Pending,
    /// The registry does not know the id.
    Missing(String),
    /// The registry knows it, and it cannot be used: not Avro, or not valid.
    Refused(Arc<str>),
    /// The registry cannot be asked now. Which hop, what is wrong, what to do; it is asked again, with back-off, when somebody
    /// looks the id up again.
    Unavailable(String),
}

/// Newest version of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestSchema {
    /// Subject.
    pub subject: String,
    /// Version in the subject, from 1.
    pub version: u32,
    /// Schema id.
    pub id: u32,
    /// Text of the schema.
    pub schema: String,
}

/// Client of a schema registry. Clones share one cache.
#[derive(Clone)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

struct Inner {
    remote: Option<(Http, Handle)>,
    missing_for: Duration,
    entries: Mutex<HashMap<u32, Entry>>,
    wakers: Mutex<Vec<Weak<dyn Fn() + Send + Sync>>>,
}

#[derive(Clone, Debug)]
enum Entry {
    Ready(Arc<WriterSchema>),
    Refused(Arc<str>),
    Negative { answer: Lookup, until: Instant },
    Fetching { trouble: Option<Trouble> },
    Failed { trouble: Trouble, retry_at: Instant },
}

#[derive(Clone, Debug)]
struct Trouble {
    detail: String,
    n_failures: u32,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// A client whose requests run on `handle`. Nothing is asked yet. *Errors:* `Config` when the URL, the CA file or the
    /// credentials cannot be used.
    pub fn new(config: RegistryConfig, handle: Handle) -> Result<RegistryClient, RegistryError> {
        let http = Http::new(&config)?;
        Ok(RegistryClient::with(Some((http, handle)), config.missing_for, HashMap::new()))
    }

    /// A client of no registry: it knows these schemas (id, text), for bounded inputs, benches and tests. *Errors:* `Refused`
    /// when one is not valid.
    pub fn fixed<'s>(schemas: impl IntoIterator<Item = (u32, &'s str)>) -> Result<RegistryClient, RegistryError> {
        let entries = schemas.into_iter().map(|(id, text)| {
            let schema = WriterSchema::parse(id, text, &[])
                .map_err(|detail| RegistryError::Refused { detail, is_final: true })?;
            Ok((id, Entry::Ready(Arc::new(schema))))
        });
        Ok(RegistryClient::with(None, Duration::MAX, entries.collect::<Result<_, RegistryError>>()?))
    }

    fn with(remote: Option<(Http, Handle)>, missing_for: Duration, entries: HashMap<u32, Entry>) -> RegistryClient {
        let inner = Inner { remote, missing_for, entries: Mutex::new(entries), wakers: Mutex::new(Vec::new()) };
        RegistryClient { inner: Arc::new(inner) }
    }

    /// Its URL without credentials; empty for [`RegistryClient::fixed`].
    pub fn url(&self) -> &str {
        self.inner.remote.as_ref().map_or("", |(http, _)| http.display_url())
    }

    /// Calls `wake` whenever a fetch has ended, well or not, for as long as the caller keeps it alive.
    pub fn on_ready(&self, wake: &Arc<dyn Fn() + Send + Sync>) {
        self.inner.wakers.lock().push(Arc::downgrade(wake));
    }

    /// The schema of an id as far as it is known. Never waits.
    pub fn lookup(&self, id: u32) -> Lookup {
        let now = Instant::now();
        let mut entries = self.inner.entries.lock();
        let (answer, trouble) = match entries.get(&id) {
            Some(Entry::Ready(schema)) => return Lookup::Ready(schema.clone()),
            Some(Entry::Refused(why)) => return Lookup::Refused(why.clone()),
            Some(Entry::Negative { answer, until }) if now < *until => return answer.clone(),
            Some(Entry::Fetching { trouble: None }) => return Lookup::Pending,
            Some(Entry::Fetching { trouble: Some(trouble) }) => return Lookup::Unavailable(trouble.detail.clone()),
            Some(Entry::Failed { trouble, retry_at }) => {
                let answer = Lookup::Unavailable(trouble.detail.clone());
                if now < *retry_at {
                    return answer;
                }
                (answer, Some(trouble.clone()))
            }
            Some(Entry::Negative { .. }) | None => (Lookup::Pending, None),
        };
        let Some((http, handle)) = &self.inner.remote else {
            return Lookup::Missing(format!("schema id {id} is not among the known ones"));
        };
        let n_failures = trouble.as_ref().map_or(0, |trouble| trouble.n_failures);
        entries.insert(id, Entry::Fetching { trouble });
        let (http, client) = (http.clone(), self.clone());
        handle.spawn(async move {
            let outcome = http.schema(id).await;
            client.inner.settle(id, outcome, n_failures);
        });
        answer
    }

    /// Registers a schema under a subject (or finds it there). *Returns* its id.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let (subject, schema) = (subject.to_owned(), schema.to_owned());
        self.spawn(move |http| async move { http.register(&subject, &schema).await }).await
    }

    /// All subjects.
    pub async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.spawn(|http| async move { http.subjects().await }).await
    }

    /// Newest version of a subject.
    pub async fn latest(&self, subject: &str) -> Result<LatestSchema, RegistryError> {
        let subject = subject.to_owned();
        self.spawn(move |http| async move { http.latest(&subject).await }).await
    }

    /// Whether it answers and accepts our credentials.
    pub async fn health(&self) -> Result<(), RegistryError> {
        self.spawn(|http| async move { http.health().await }).await
    }

    async fn spawn<T: Send + 'static, F: Future<Output = Result<T, RegistryError>> + Send + 'static>(
        &self,
        request: impl FnOnce(Http) -> F,
    ) -> Result<T, RegistryError> {
        let Some((http, handle)) = &self.inner.remote else {
            return Err(RegistryError::Config { detail: "there is no schema registry: set registry.url".to_owned() });
        };
        // On its own runtime: the caller's may be another one, or none of tokio's.
        let ended = handle.spawn(request(http.clone())).await;
        ended.unwrap_or_else(|_| Err(RegistryError::Unavailable { detail: "the program is shutting down".to_owned() }))
    }
}

impl Inner {
    fn settle(&self, id: u32, outcome: Result<WriterSchema, RegistryError>, n_failures: u32) {
        let now = Instant::now();
        let negative = |answer| Entry::Negative { answer, until: now + self.missing_for };
        let entry = match outcome {
            Ok(schema) => Entry::Ready(Arc::new(schema)),
            Err(RegistryError::NotFound { detail }) => negative(Lookup::Missing(detail)),
            Err(RegistryError::Refused { detail, is_final: true }) => Entry::Refused(detail.into()),
            Err(RegistryError::Refused { detail, is_final: false }) => negative(Lookup::Refused(detail.into())),
            Err(RegistryError::Unavailable { detail } | RegistryError::Config { detail }) => {
                let pause = BACK_OFF_MIN.saturating_mul(1 << n_failures.min(16)).min(BACK_OFF_MAX);
                tracing::warn!(schema_id = id, detail, "schema registry");
                Entry::Failed { trouble: Trouble { detail, n_failures: n_failures + 1 }, retry_at: now + pause }
            }
        };
        {
            let mut entries = self.entries.lock();
            entries.insert(id, entry);
            let is_negative = |entry: &Entry| matches!(entry, Entry::Negative { .. });
            if entries.len() > NEGATIVES_MAX
                && entries.values().filter(|entry| is_negative(entry)).count() > NEGATIVES_MAX
            {
                entries.retain(|_, entry| !is_negative(entry));
            }
        }
        let wakers: Vec<_> = {
            let mut wakers = self.wakers.lock();
            wakers.retain(|waker| waker.strong_count() > 0);
            wakers.iter().filter_map(Weak::upgrade).collect()
        };
        wakers.iter().for_each(|wake| wake());
    }
}
