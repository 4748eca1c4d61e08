//! From an address to an object store.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use url::Url;

use crate::LakeError;
use crate::azure::FromOffset;
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
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(url.as_str());
            let builder = configure(url, builder, options, AmazonS3Builder::with_config)?;
            Ok(Arc::new(builder.build().map_err(|error| refused(error.to_string()))?))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            let builder = configure(url, builder, options, GoogleCloudStorageBuilder::with_config)?;
            Ok(Arc::new(builder.build().map_err(|error| refused(error.to_string()))?))
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            let builder = configure(url, builder, options, MicrosoftAzureBuilder::with_config)?;
            Ok(Arc::new(FromOffset(builder.build().map_err(|error| refused(error.to_string()))?)))
        }
        other => Err(refused(format!("scheme {other} is not known"))),
    }
}

/// Options come on top of what the environment says (`AWS_*`, `GOOGLE_*`, `AZURE_*`): on Kubernetes, that is where credentials are.
fn configure<B, K: FromStr>(
    url: &Url,
    builder: B,
    options: &HashMap<String, String>,
    with: impl Fn(B, K, String) -> B,
) -> Result<B, LakeError> {
    options.iter().try_fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => Ok(with(builder, key, value.clone())),
        // A name that is misspelt would be passed over in silence.
        Err(_) => Err(LakeError::Address { url: shown(url), detail: format!("the store has no option {name}") }),
    })
}

/// Whether the store that an address names knows an option; a folder knows none.
pub fn knows_option(url: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match url.split_once("://").map_or("file", |(scheme, _)| scheme) {
        "s3" | "s3a" => name.parse::<AmazonS3ConfigKey>().is_ok(),
        "gs" => name.parse::<GoogleConfigKey>().is_ok(),
        "az" | "azure" | "abfs" | "abfss" => name.parse::<AzureConfigKey>().is_ok(),
        _ => false,
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
        assert!(knows_option("s3://bucket/path", "AWS_Region") && !knows_option("s3://bucket/path", "account_name"));
        assert!(knows_option("abfss://box@account.dfs.core.windows.net/path", "account_name"));
        assert!(!knows_option("file:///tmp/lake", "region") && !knows_option("/tmp/lake", "region"));
        let error = open("hdfs://name/path", "").unwrap_err();
        assert!(error.contains("scheme hdfs is not known; expected file:///path"), "{error}");
    }
}
