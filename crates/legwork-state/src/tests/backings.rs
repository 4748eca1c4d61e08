//! What stores stand on: it outlives them, as a folder outlives a process.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{MemoryStore, StateStore};

/// Makes stores that share what they store.
pub(crate) trait Backing: Debug {
    /// A store, as a new process would open it.
    fn open(&self) -> Arc<dyn StateStore>;
}

#[derive(Debug, Default)]
struct Memory(MemoryStore);

impl Backing for Memory {
    fn open(&self) -> Arc<dyn StateStore> {
        Arc::new(self.0.clone())
    }
}

/// One of each kind, all empty.
pub(super) fn all() -> Vec<Box<dyn Backing>> {
    #[cfg_attr(not(feature = "slate"), expect(unused_mut))]
    let mut all: Vec<Box<dyn Backing>> = vec![Box::new(Memory::default())];
    #[cfg(feature = "slate")]
    {
        all.push(Box::new(crate::slate::tests::Objects::default()));
        all.push(Box::new(crate::slate::tests::Folder::default()));
        all.extend(crate::slate::tests::Bucket::from_env().map(|bucket| Box::new(bucket) as Box<dyn Backing>));
    }
    all
}

/// Runs a demand on each kind of store.
pub(super) fn on_each(demand: impl AsyncFn(&dyn Backing)) {
    for backing in all() {
        on_runtime(demand(&*backing));
    }
}

pub(crate) fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}
