//! From a URL to an object store.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store_014::ObjectStore;
use object_store_014::aws::AmazonS3Builder;
use object_store_014::azure::MicrosoftAzureBuilder;
use object_store_014::gcp::GoogleCloudStorageBuilder;
use object_store_014::local::LocalFileSystem;
use object_store_014::path::Path;
use url::Url;

use super::unavailable;
use crate::StoreError;

/// A half-written file of this age has no writer any more: no request is waited for so long.
const STAGED_AGE: Duration = Duration::from_secs(600);

/// Where lanes are.
pub(super) struct Place {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) root: Path,
    pub(super) folder: Option<PathBuf>,
}

/// The place that a URL names. A local folder is made where it is missing, and written to; of others nothing is asked yet.
pub(super) fn resolve(url: &str, options: &BTreeMap<String, String>) -> Result<Place, StoreError> {
    let wrong = |why: &dyn Display| {
        unavailable(format_args!(
            "store.url {:?} cannot be used ({why}): set it to file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
            shown(url)
        ))
    };
    if !url.contains("://") {
        return local(PathBuf::from(url), options);
    }
    let mut parsed = Url::parse(url).map_err(|error| wrong(&error))?;
    // No store takes it from there, and what is wrong with an address is told with the address.
    let _ = parsed.set_password(None);
    if parsed.scheme() == "file" {
        let folder = parsed.to_file_path().map_err(|()| wrong(&"it names no local folder"))?;
        return local(folder, options);
    }
    let root = Path::from_url_path(parsed.path()).map_err(|error| wrong(&error))?;
    // Only the bucket is the builder's; `root` is in front of every path.
    let bucket = parsed[..url::Position::BeforePath].to_owned();
    let objects: Arc<dyn ObjectStore> = match parsed.scheme() {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(bucket);
            let builder = configure(builder, options, AmazonS3Builder::with_config)?;
            Arc::new(builder.build().map_err(|error| wrong(&error))?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(bucket);
            let builder = configure(builder, options, GoogleCloudStorageBuilder::with_config)?;
            Arc::new(builder.build().map_err(|error| wrong(&error))?)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(bucket);
            let builder = configure(builder, options, MicrosoftAzureBuilder::with_config)?;
            Arc::new(builder.build().map_err(|error| wrong(&error))?)
        }
        scheme => return Err(wrong(&format_args!("{scheme}:// is not known"))),
    };
    Ok(Place { objects, root, folder: None })
}

/// The address as it may be told: without a password and what may be one.
pub(super) fn shown(url: &str) -> String {
    match (url.split_once("://"), Url::parse(url)) {
        (Some(_), Ok(mut parsed)) => {
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.to_string()
        }
        (Some((scheme, _)), Err(_)) => format!("{scheme}://..."),
        (None, _) => url.to_owned(),
    }
}

fn configure<B, K: FromStr>(
    builder: B,
    options: &BTreeMap<String, String>,
    with: impl Fn(B, K, String) -> B,
) -> Result<B, StoreError> {
    options.iter().try_fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => Ok(with(builder, key, value.clone())),
        Err(_) => Err(unavailable(format_args!(
            "store.options: {name:?} is no option of this kind of store: see object_store's names, such as region, endpoint or allow_http"
        ))),
    })
}

fn local(folder: PathBuf, options: &BTreeMap<String, String>) -> Result<Place, StoreError> {
    if let Some(name) = options.keys().next() {
        return Err(unavailable(format_args!("store.options: a local folder has none, found {name:?}")));
    }
    prepare_folder(&folder)?;
    let folder = std::fs::canonicalize(&folder).map_err(|error| unusable(&folder, &error))?;
    let files = LocalFileSystem::new_with_prefix(&folder).map_err(|error| unusable(&folder, &error))?;
    // A checkpoint counts once it would outlive a power cut.
    Ok(Place { objects: Arc::new(files.with_fsync(true)), root: Path::default(), folder: Some(folder) })
}

/// Makes the folder and writes to it once, so that a wrong one is found before anything depends on it. A full one is not wrong: lanes wait
/// for space.
fn prepare_folder(folder: &FsPath) -> Result<(), StoreError> {
    let lanes = folder.join("lanes");
    let probe = lanes.join(format!(".probe-{}", std::process::id()));
    let write = || {
        std::fs::create_dir_all(&lanes)?;
        match std::fs::write(&probe, b"legwork") {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                tracing::warn!(folder = %folder.display(), "the store's folder is full: nothing is kept until there is space");
                // It may not have been made at all.
                let _ = std::fs::remove_file(&probe);
                Ok(())
            }
            written => written.and_then(|()| std::fs::remove_file(&probe)),
        }
    };
    write().map_err(|error| unusable(folder, &error))
}

fn unusable(folder: &FsPath, error: &dyn Display) -> StoreError {
    unavailable(format_args!(
        "the folder {} cannot be written ({error}): set store.url to a folder that this user may write",
        folder.display()
    ))
}

/// Deletes files that a writer staged and left behind. *Returns* how many.
pub(super) fn sweep_staged(folder: &FsPath) -> io::Result<usize> {
    let mut n_files = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if is_staged(&entry) {
                std::fs::remove_file(entry.path())?;
                n_files += 1;
            }
        }
    }
    Ok(n_files)
}

/// object_store writes `name#1` first and then links it to `name`; no name of an object has a `#`.
fn is_staged(entry: &std::fs::DirEntry) -> bool {
    let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    entry.file_name().to_string_lossy().contains('#') && age().is_some_and(|age| age > STAGED_AGE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_told() {
        assert_eq!(shown("s3://user:hush@bucket/path?sas=hush"), "s3://user@bucket/path");
        assert_eq!(shown("s3://user:hush@bucket:port/path"), "s3://...");
        assert_eq!(shown("/var/lib/legwork"), "/var/lib/legwork");
        for url in ["ftp://user:hush@host/path", "s3://user:hush@bucket:port/path", "gs://user:hush@/path"] {
            let told = resolve(url, &BTreeMap::new()).err().map(|error| error.to_string());
            assert!(told.is_none_or(|told| !told.contains("hush")), "{url}");
        }
    }
}
