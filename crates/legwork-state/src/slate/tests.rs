//! What only the store on an object store can get wrong.

use std::sync::Arc;

use object_store_014::ObjectStore;
use object_store_014::memory::InMemory;
use object_store_014::path::Path;

use super::url::{self, Place};
use super::{SlateConfig, SlateStore};
use crate::tests::backings::Backing;
use crate::{StateStore, StoreError};

/// A bucket in memory.
#[derive(Debug)]
pub(crate) struct Objects(pub(crate) Arc<dyn ObjectStore>);

impl Default for Objects {
    fn default() -> Objects {
        Objects(Arc::new(InMemory::new()))
    }
}

impl Objects {
    pub(crate) fn store(&self) -> SlateStore {
        let place = Place { objects: Arc::clone(&self.0), root: Path::from("some/prefix"), folder: None };
        SlateStore::over(place, SlateConfig::new("memory://")).unwrap()
    }
}

impl Backing for Objects {
    fn open(&self) -> Arc<dyn StateStore> {
        Arc::new(self.store())
    }
}

/// A local folder.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Default for Folder {
    fn default() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }
}

impl Folder {
    fn url(&self) -> String {
        ::url::Url::from_directory_path(self.0.path()).unwrap().to_string()
    }
}

impl Backing for Folder {
    fn open(&self) -> Arc<dyn StateStore> {
        let config = SlateConfig::new(self.url());
        let place = url::resolve(&config.url, &config.options).unwrap();
        url::prepare_folder(place.folder.as_deref().unwrap()).unwrap();
        Arc::new(SlateStore::over(place, config).unwrap())
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let url = format!("file://{}/file/store", folder.path().display());
    let error = SlateStore::open(SlateConfig::new(url)).await.unwrap_err();
    let StoreError::Unavailable { detail } = &error else { panic!("{error:?}") };
    assert!(detail.contains("set store.url to a folder that this user may write"), "{detail}");
}

#[tokio::test]
async fn wrong_urls_and_options_are_refused() {
    for (url, options, expected) in [
        ("ftp://host/folder", None, "ftp:// is not known"),
        ("s3://", None, "cannot be used"),
        ("s3://bucket/prefix", Some(("regoin", "eu-west-1")), "\"regoin\" is no option"),
        ("/some/folder", Some(("region", "eu-west-1")), "a local folder has none"),
    ] {
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = SlateConfig { options, ..SlateConfig::new(url) };
        let error = SlateStore::open(config).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
    }
}
