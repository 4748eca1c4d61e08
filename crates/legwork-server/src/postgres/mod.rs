//! The PostgreSQL wire protocol, version 3, over [`legwork_query::Engine`]: simple and extended queries, `COPY (...) TO STDOUT`, cancel
//! requests. Read-only; transactions are accepted and mean nothing, each statement sees the newest rows.
//!
//! Messages, their encoding and dispatch are pgwire's; the catalog that clients ask for is datafusion-pg-catalog's. The accept loop is our
//! own: it bounds connections, the size of messages, the time of the handshake and of a stalled client.

mod adapt;
mod arrays;
mod cancel;
mod catalog;
mod compatible;
mod connection;
mod copy;
mod error;
mod frames;
mod handler;
mod names;
mod parameters;
mod print;
mod rows;
mod settings;
mod statement;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod values;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use legwork_query::Engine;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Bounds of the PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresLimits {
    /// Connections at once; one more gets `FATAL 53300`.
    pub connections_max: usize,
    /// Bytes of one SQL text.
    pub sql_bytes_max: usize,
    /// From accepting to the end of the startup; then the connection is dropped.
    pub handshake_max: Duration,
    /// Of one statement, its whole answer included, and of a portal that is read in parts: beyond it the client is taken to have stalled and
    /// the connection is dropped. Must exceed the engine's own deadline, which ends a query with an error that the client can read.
    pub statement_max: Duration,
}

impl Default for PostgresLimits {
    fn default() -> PostgresLimits {
        PostgresLimits {
            connections_max: 100,
            sql_bytes_max: 256 * 1024,
            handshake_max: Duration::from_secs(10),
            statement_max: Duration::from_secs(60),
        }
    }
}

/// Connections that are told that the server is full, or that ask for a cancellation, beyond `connections_max`.
const EXTRA_CONNECTIONS_MAX: usize = 16;
/// How long connections may take to say goodbye at a shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// After an error of `accept`, such as no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refuses addresses that others could reach, since nothing here authenticates.
pub fn require_loopback(addr: SocketAddr) -> io::Result<()> {
    if addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "{addr} can be reached from other machines and there is no authentication: listen on 127.0.0.1 or [::1]"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Serves until `shutdown` becomes true or its sender is gone, then ends all connections.
///
/// *Errors:* none after the listener is bound; failing to accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<dyn Engine>,
    mut shutdown: watch::Receiver<bool>,
    limits: PostgresLimits,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let extra_places = Arc::new(Semaphore::new(EXTRA_CONNECTIONS_MAX));
    let shared = Arc::new(connection::Shared::new(engine, limits));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = connection::ended(&mut shutdown) => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a PostgreSQL connection panicked");
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a PostgreSQL connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match places.clone().try_acquire_owned() {
            Ok(place) => connection::Place::Client(place),
            Err(_) => match extra_places.clone().try_acquire_owned() {
                Ok(place) => connection::Place::Extra(place),
                Err(_) => continue,
            },
        };
        connections.spawn(connection::run(shared.clone(), stream, place, shutdown.clone()));
    }
    drop(listener);
    let drained = tokio::time::timeout(SHUTDOWN_MAX, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}
