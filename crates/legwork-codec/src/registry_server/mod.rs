//! A small schema registry that Confluent's clients can talk to, for demonstrations, tests and single machines.
//!
//! It keeps Avro schemas by subject, hands out ids and enforces compatibility, in memory or with a file behind it. Not here: other schema
//! types, references between schemas, authentication, clusters.

mod compatibility;
mod error;
mod http;
mod log;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use legwork_types::Kind;
use parking_lot::Mutex;
use tokio::net::TcpListener;

pub use compatibility::Level;
pub use error::RegistryError;
pub use http::router;

use store::Store;

/// Largest request that is read. Our own schemas have some 5 KiB.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Schemas and their subjects. Clones share them.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<Mutex<Store>>,
}

impl Registry {
    /// An empty one, which is forgotten with its last clone.
    pub fn in_memory() -> Registry {
        Registry { store: Arc::new(Mutex::new(Store::default())) }
    }

    /// One that lives in a file, which is made if need be: a line of JSON a change, appended and made durable before it counts. A last line
    /// that was cut off by a crash never counted and is removed.
    ///
    /// *Errors:* [`RegistryError::Storage`] when the file cannot be read or written, or is damaged elsewhere than at its end. One process
    /// at a time may have it open.
    pub fn open(path: &Path) -> Result<Registry, RegistryError> {
        Ok(Registry { store: Arc::new(Mutex::new(Store::open(path)?)) })
    }

    /// Registers our own schema of every kind as `<topic>-value`. What is there already stays.
    ///
    /// *Errors:* [`RegistryError::Incompatible`] when a subject holds a schema that ours does not go with, [`RegistryError::Storage`].
    pub fn register_defaults(&self) -> Result<(), RegistryError> {
        for kind in Kind::ALL {
            self.register(&format!("{}-value", kind.topic()), kind.avro())?;
        }
        Ok(())
    }

    /// Registers an Avro schema and *returns* its id; the same schema has the same id under every subject.
    ///
    /// *Errors:* [`RegistryError::InvalidSchema`], [`RegistryError::Incompatible`], [`RegistryError::Storage`].
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        self.store.lock().register(subject, schema)
    }

    /// Sets what a new schema must be compatible with, for one subject or for all that have no level of their own.
    ///
    /// *Errors:* [`RegistryError::Storage`].
    pub fn set_level(&self, subject: Option<&str>, level: Level) -> Result<(), RegistryError> {
        self.store.lock().set_level(subject, Some(level))
    }
}

/// Serves a registry until `shutdown` is ready and requests under way are answered.
///
/// *Errors:* the listener's.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(registry)).with_graceful_shutdown(shutdown).await
}
