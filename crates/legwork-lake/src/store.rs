//! From an address to an object store.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use url::Url;

use crate::LakeError;
use crate::local::DurableLocal;

/// The store at the root of an address: the bucket, the disk.
pub(crate) fn open(url: &Url, options: &HashMap<String, String>) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let refused = |detail: String| LakeError::Address { url: shown(url), detail };
    match url.scheme() {
        "file" => match url.to_file_path() {
            Ok(_) => Ok(Arc::new(DurableLocal::default())),
            Err(()) => Err(refused("it is no path of this machine".to_owned())),
        },
        "memory" => Ok(Arc::new(InMemory::new())),
        "s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" => {
            let options = options.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
            let (store, _) = object_store::parse_url_opts(url, options).map_err(|error| refused(error.to_string()))?;
            Ok(Arc::from(store))
        }
        other => Err(refused(format!("scheme {other} is not known"))),
    }
}

/// An address without user, password and query.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}
