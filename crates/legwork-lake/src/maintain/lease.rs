//! Who maintains the lake: one instance, for a while.
//!
//! A lease is an object with a number; whoever creates the next number holds it. Creating an object that must not exist yet is the one
//! condition that every store knows, a local folder included. Nothing is lost when two instances maintain at once, as each commit is
//! against the version that was read: the lease saves work, not data.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Lake, LakeError};

const FOLDER: &str = "_legwork/maintenance";
/// Numbers below the newest that stay, so that whoever looks at the folder sees who was in charge before.
const KEPT: u64 = 4;
const WHAT: &str = "maintenance lease";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    owner: String,
    /// Tells two claims of one owner apart.
    nonce: String,
    expires_ms: i64,
}

/// The newest claim that is there.
#[derive(Debug)]
struct Newest {
    number: u64,
    claim: Claim,
    stored_ms: i64,
}

/// The right to maintain the lake until it expires.
#[derive(Clone, Debug)]
pub struct Lease {
    number: u64,
    claim: Claim,
    lasts_ms: i64,
    /// When it was taken, by the clock of the object store.
    stored_ms: i64,
}

impl Lease {
    /// When it ends, milliseconds since 1970, by the clock of its owner.
    pub fn expires_ms(&self) -> i64 {
        self.claim.expires_ms
    }

    /// As if it had no end.
    #[cfg(test)]
    pub(crate) fn stretched(mut self) -> Lease {
        self.claim.expires_ms = i64::MAX;
        self
    }

    /// By how much a clock is ahead of the object store's, milliseconds, at least.
    pub(super) fn ahead_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.stored_ms)
    }

    /// Whether less than half of it is left.
    pub(super) fn is_to_renew(&self, now_ms: i64) -> bool {
        self.claim.expires_ms.saturating_sub(now_ms) < self.lasts_ms / 2
    }
}

impl Lake {
    /// Takes the lease of maintenance, for `lasts` from `now_ms` on. *Returns* none while another instance holds it.
    /// *Errors:* `Unavailable`.
    pub async fn lease(&self, owner: &str, now_ms: i64, lasts: Duration) -> Result<Option<Lease>, LakeError> {
        let lasts_ms = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        let newest = self.newest_claim().await?;
        if newest.as_ref().is_some_and(|newest| newest.claim.expires_ms > now_ms) {
            return Ok(None);
        }
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let claim = Claim { owner: owner.to_owned(), nonce, expires_ms: now_ms.saturating_add(lasts_ms) };
        let number = newest.map_or(0, |newest| newest.number + 1);
        let stored_ms = self.claim(number, claim.clone()).await?;
        Ok(stored_ms.map(|stored_ms| Lease { number, claim, lasts_ms, stored_ms }))
    }

    /// Holds a lease for as long again, from `now_ms` on. *Returns* none when it has gone to another instance.
    /// *Errors:* `Unavailable`.
    pub async fn renew(&self, lease: &Lease, now_ms: i64) -> Result<Option<Lease>, LakeError> {
        self.replace(lease, now_ms.saturating_add(lease.lasts_ms)).await
    }

    /// Lets go, so that another instance need not wait. *Errors:* `Unavailable`.
    pub async fn release(&self, lease: &Lease) -> Result<(), LakeError> {
        self.replace(lease, i64::MIN).await.map(|_| ())
    }

    async fn replace(&self, lease: &Lease, expires_ms: i64) -> Result<Option<Lease>, LakeError> {
        let claim = Claim { expires_ms, nonce: uuid::Uuid::new_v4().simple().to_string(), ..lease.claim.clone() };
        let number = lease.number + 1;
        let stored_ms = self.claim(number, claim.clone()).await?;
        Ok(stored_ms.map(|stored_ms| Lease { number, claim, lasts_ms: lease.lasts_ms, stored_ms }))
    }

    fn lease_path(&self, name: &str) -> Result<Path, LakeError> {
        let url: Url = self
            .inner
            .url
            .join(&format!("{FOLDER}/{name}"))
            .map_err(|error| LakeError::unavailable(WHAT, "read", error))?;
        Path::from_url_path(url.path()).map_err(|error| LakeError::unavailable(WHAT, "read", error))
    }

    async fn lease_numbers(&self) -> Result<Vec<(u64, ObjectMeta)>, LakeError> {
        let folder = self.lease_path("")?;
        let listed = self.inner.root.list(Some(&folder)).try_collect::<Vec<_>>();
        let listed = self.in_time(listed).await?;
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        let mut numbers: Vec<_> =
            listed.into_iter().filter_map(|object| Some((number(&object.location)?, object))).collect();
        numbers.sort_unstable_by_key(|(number, _)| *number);
        Ok(numbers)
    }

    async fn newest_claim(&self) -> Result<Option<Newest>, LakeError> {
        let Some((number, object)) = self.lease_numbers().await?.pop() else { return Ok(None) };
        let bytes = self.in_time(async { self.inner.root.get(&object.location).await?.bytes().await }).await?;
        // What cannot be read binds nobody: the next number follows it.
        let free = || Claim { owner: String::new(), nonce: String::new(), expires_ms: i64::MIN };
        let claim = serde_json::from_slice(&bytes).unwrap_or_else(|_| free());
        Ok(Some(Newest { number, claim, stored_ms: object.last_modified.timestamp_millis() }))
    }

    /// *Returns* when the claim was stored, if its number is ours, and the newest.
    async fn claim(&self, number: u64, claim: Claim) -> Result<Option<i64>, LakeError> {
        let path = self.lease_path(&format!("{number:020}.json"))?;
        let bytes = serde_json::to_vec(&claim).map_err(|error| LakeError::unavailable(WHAT, "written", error))?;
        let written = self.in_time(self.inner.root.put_opts(&path, bytes.into(), PutMode::Create.into())).await;
        // Whatever came back: what is there decides. It also tells a number that was ours long ago, and deleted since, from the newest one.
        let newest = self.newest_claim().await?;
        let ours = newest.filter(|newest| newest.number == number && newest.claim.nonce == claim.nonce);
        let stored_ms = ours.map(|ours| ours.stored_ms);
        if let (None, Err(error)) = (stored_ms, written)
            && !error.to_string().contains("already exists")
        {
            return Err(error);
        }
        if stored_ms.is_some() {
            for (_, old) in self.lease_numbers().await?.into_iter().filter(|(old, _)| old + KEPT < number) {
                let _ = self.in_time(self.inner.root.delete(&old.location)).await;
            }
        }
        Ok(stored_ms)
    }

    async fn in_time<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, LakeError> {
        match tokio::time::timeout(self.inner.config.request_timeout, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(object_store::Error::AlreadyExists { .. })) => {
                Err(LakeError::unavailable(WHAT, "written", "it already exists"))
            }
            Ok(Err(error)) => Err(LakeError::store(WHAT, "reached", &error)),
            Err(_) => Err(LakeError::unavailable(WHAT, "reached", "no answer in time")),
        }
    }
}
