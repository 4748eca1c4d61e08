//! A local folder that keeps what it said it has: a write counts once its bytes and its name are on the disk.
//!
//! `LocalFileSystem` leaves that to the operating system: after a power cut a commit may be an empty file, and a table with an empty file
//! in its log cannot be read any more. Here bytes are synced before the name appears, and the name before the write is acknowledged.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

const NAME: &str = "DurableLocal";

/// The local file system, synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct DurableLocal {
    inner: std::sync::Arc<LocalFileSystem>,
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

fn generic(error: io::Error) -> Error {
    Error::Generic { store: NAME, source: Box::new(error) }
}

/// Makes a folder with those above it that are missing, and their names durable.
fn make_folder(folder: &FsPath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().ok_or_else(|| io::Error::other("no folder above"))?;
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// A name that lists leave out: `object_store` takes `#` and digits at the end for a write under way.
fn staging(path: &FsPath) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}{:06}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    name.into()
}

fn write(path: &FsPath, payload: &[Bytes], is_new: bool) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("no folder above"))?;
    make_folder(folder)?;
    let staged = staging(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&staged)?;
    let written = payload.iter().try_for_each(|bytes| file.write_all(bytes)).and_then(|()| file.sync_all());
    drop(file);
    let named = written.and_then(|()| match is_new {
        true => fs::hard_link(&staged, path),
        false => fs::rename(&staged, path),
    });
    if is_new || named.is_err() {
        // What stays behind when the process dies here is no file of any table: its name is left out of lists.
        let _ = fs::remove_file(&staged);
    }
    named?;
    File::open(folder)?.sync_all()
}

/// Removes what writes that died left behind below a folder, if it is older. *Returns* how many files.
pub(crate) fn sweep(folder: &FsPath, before: SystemTime) -> io::Result<usize> {
    let mut n_swept = 0;
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            n_swept += sweep(&entry.path(), before)?;
            continue;
        }
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.split_once('#')).map_or("", |(_, suffix)| suffix);
        let is_staged = !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit());
        if is_staged
            && entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|modified| modified < before)
        {
            fs::remove_file(entry.path())?;
            n_swept += 1;
        }
    }
    Ok(n_swept)
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_new = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "PutMode::Update".into(), implementer: NAME.into() });
            }
        };
        let path = self.inner.path_to_filesystem(location)?;
        let payload: Vec<Bytes> = payload.into_iter().collect();
        let location = location.to_string();
        let done = tokio::task::spawn_blocking(move || write(&path, &payload, is_new)).await;
        match done.map_err(|error| generic(io::Error::other(error)))? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if is_new && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location, source: Box::new(error) })
            }
            Err(error) => Err(generic(error)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload in parts, kept in memory until it is whole: the checkpoints of a table's log come this way.
#[derive(Debug)]
struct Upload {
    store: DurableLocal,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload: PutPayload = std::mem::take(&mut self.parts).into_iter().collect();
        self.store.put_opts(&self.location, payload, PutOptions::default()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_name_appears_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocal::default();
        let root = Path::from_absolute_path(folder.path()).unwrap();
        let path = root.clone().join("deep").join("er").join("commit.json");
        store.put_opts(&path, "first".into(), PutMode::Create.into()).await.unwrap();
        let again = store.put_opts(&path, "second".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&path, "third".into()).await.unwrap();
        let mut upload = store.put_multipart(&root.clone().join("parts")).await.unwrap();
        upload.put_part("a".into()).await.unwrap();
        upload.put_part("b".into()).await.unwrap();
        let listed = async || store.list(Some(&root)).try_collect::<Vec<_>>().await.unwrap().len();
        assert_eq!(listed().await, 1, "a part is no file yet");
        upload.complete().await.unwrap();
        assert_eq!(store.get(&root.clone().join("parts")).await.unwrap().bytes().await.unwrap(), "ab");
        // What a write that died leaves behind is not listed, and goes when it is old.
        fs::write(folder.path().join("deep/er/commit.json#123000001"), "to").unwrap();
        fs::write(folder.path().join("deep/er/note#1a"), "somebody's").unwrap();
        assert_eq!(sweep(folder.path(), SystemTime::now() - Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(sweep(folder.path(), SystemTime::now() + Duration::from_secs(60)).unwrap(), 1);
        assert_eq!(listed().await, 3);
        assert_eq!(sweep(&folder.path().join("missing"), SystemTime::now()).unwrap(), 0);
    }
}
