//! An object store that counts, waits and fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store_014::path::Path;
use object_store_014::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered,
    /// Fails without effect.
    Refused,
    /// Takes effect, then fails.
    Lost,
    /// Is never answered, and has no effect.
    Unanswered,
    /// Takes effect, and is never answered.
    Late,
}

type Decide = Box<dyn Fn(&Path) -> Fate + Send + Sync>;

/// Requests so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) n_wal_puts: AtomicU64,
    pub(super) n_other_puts: AtomicU64,
    pub(super) n_gets: AtomicU64,
    pub(super) n_lists: AtomicU64,
    pub(super) n_deletes: AtomicU64,
    pub(super) put_bytes: AtomicU64,
}

/// Another store with counts, waits and faults in front of it.
pub(super) struct Watched {
    inner: Arc<dyn ObjectStore>,
    pub(super) counts: Arc<Counts>,
    put_takes: Duration,
    get_takes: Duration,
    fate_of_puts: Decide,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Watched {
        let (put_takes, get_takes) = (Duration::ZERO, Duration::ZERO);
        Watched { inner, counts: Arc::default(), put_takes, get_takes, fate_of_puts: Box::new(|_| Fate::Answered) }
    }

    /// Lists take as long as puts.
    pub(super) fn taking(self, put_takes: Duration, get_takes: Duration) -> Watched {
        Watched { put_takes, get_takes, ..self }
    }

    pub(super) fn with_fate_of_puts(self, fate: impl Fn(&Path) -> Fate + Send + Sync + 'static) -> Watched {
        Watched { fate_of_puts: Box::new(fate), ..self }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watched({})", self.inner)
    }
}

fn failure() -> Error {
    Error::Generic { store: "watched", source: "503 slow down".into() }
}

async fn wait(takes: Duration) {
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
}

pub(super) fn is_wal(path: &Path) -> bool {
    path.as_ref().contains("/wal/")
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let counter = if is_wal(path) { &self.counts.n_wal_puts } else { &self.counts.n_other_puts };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counts.put_bytes.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        wait(self.put_takes).await;
        match (self.fate_of_puts)(path) {
            Fate::Answered => self.inner.put_opts(path, payload, options).await,
            Fate::Refused => Err(failure()),
            Fate::Lost => self.inner.put_opts(path, payload, options).await.and_then(|_| Err(failure())),
            Fate::Unanswered => std::future::pending().await,
            Fate::Late => {
                let _ = self.inner.put_opts(path, payload, options).await;
                std::future::pending().await
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.counts.n_other_puts.fetch_add(1, Ordering::Relaxed);
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.counts.n_gets.fetch_add(1, Ordering::Relaxed);
        wait(self.get_takes).await;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let counts = Arc::clone(&self.counts);
        let count = move |_: &Result<Path>| {
            counts.n_deletes.fetch_add(1, Ordering::Relaxed);
        };
        self.inner.delete_stream(paths).inspect(count).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.n_lists.fetch_add(1, Ordering::Relaxed);
        let (listed, takes) = (self.inner.list(prefix), self.put_takes);
        futures::stream::once(wait(takes)).flat_map(|()| futures::stream::empty()).chain(listed).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.n_lists.fetch_add(1, Ordering::Relaxed);
        let (listed, takes) = (self.inner.list_with_offset(prefix, offset), self.put_takes);
        futures::stream::once(wait(takes)).flat_map(|()| futures::stream::empty()).chain(listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counts.n_lists.fetch_add(1, Ordering::Relaxed);
        wait(self.put_takes).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
