//! Cancel requests: they come on a connection of their own and name the other by process id and secret.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pgwire::messages::startup::SecretKey;
use tokio::sync::watch;

/// Ends what one connection is doing.
#[derive(Clone, Debug)]
pub(crate) struct Canceller(watch::Sender<u64>);

impl Canceller {
    pub(crate) fn new() -> Canceller {
        Canceller(watch::Sender::new(0))
    }

    /// For a statement that starts now: earlier requests do not count.
    pub(crate) fn statement(&self) -> Cancelled {
        Cancelled(self.0.subscribe())
    }

    fn cancel(&self) {
        self.0.send_modify(|n_requests| *n_requests += 1);
    }
}

/// Whether a statement is to end.
#[derive(Clone, Debug)]
pub(crate) struct Cancelled(watch::Receiver<u64>);

impl Cancelled {
    /// Resolves when the statement is to end.
    pub(crate) async fn requested(&mut self) {
        if self.0.changed().await.is_err() {
            // The connection is gone; its task ends by itself.
            std::future::pending::<()>().await;
        }
    }
}

/// All connections by process id.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<i32, (SecretKey, Canceller)>>);

impl Registry {
    /// Until the guard is dropped, `cancel` finds this connection.
    pub(crate) fn register(self: &Arc<Registry>, pid: i32, secret: SecretKey, canceller: Canceller) -> Registration {
        self.0.lock().insert(pid, (secret, canceller));
        Registration { registry: self.clone(), pid }
    }

    /// Nothing happens when no connection has this id and secret: the protocol gives no answer.
    pub(crate) fn cancel(&self, pid: i32, secret: &SecretKey) {
        if let Some((expected, canceller)) = self.0.lock().get(&pid)
            && expected.eq_value(secret)
        {
            canceller.cancel();
        }
    }
}

/// Keeps a connection findable.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    pid: i32,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.0.lock().remove(&self.pid);
    }
}
