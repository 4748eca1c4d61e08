//! From an address to an object store.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
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
        scheme @ ("s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss") => {
            let options: Vec<(String, String)> =
                options.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            if let Some((name, _)) = options.iter().find(|(name, _)| !is_option(scheme, name)) {
                return Err(refused(format!("the store has no option {name}")));
            }
            let (store, _) = object_store::parse_url_opts(url, options).map_err(|error| refused(error.to_string()))?;
            Ok(Arc::from(store))
        }
        other => Err(refused(format!("scheme {other} is not known"))),
    }
}

/// Whether the store of a scheme knows an option: a name that is misspelt would be passed over in silence.
fn is_option(scheme: &str, name: &str) -> bool {
    match scheme {
        "s3" | "s3a" => name.parse::<AmazonS3ConfigKey>().is_ok(),
        "gs" => name.parse::<GoogleConfigKey>().is_ok(),
        _ => name.parse::<AzureConfigKey>().is_ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_options_are_checked() {
        let open = |url: &str, name: &str| {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let options = HashMap::from([(name.to_owned(), "true".to_owned())]);
            open(&Url::parse(url).unwrap(), &options).map_err(|error| error.to_string())
        };
        assert!(open("s3://bucket/path", "allow_http").is_ok());
        assert!(open("file:///tmp/lake", "").is_ok());
        let error = open("s3://user:secret@bucket/path?token=secret", "aws_acces_key_id").unwrap_err();
        assert!(error.contains("no option aws_acces_key_id") && !error.contains("secret"), "{error}");
        let error = open("hdfs://name/path", "").unwrap_err();
        assert!(error.contains("scheme hdfs is not known; expected file:///path"), "{error}");
    }
}
