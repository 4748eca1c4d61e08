//! Who maintains the lake: one instance, for a while.
//!
//! A lease is an object with a number; whoever creates the next number holds it. Creating an object that must not exist yet is the one
//! condition that every store knows, a local folder included. How long it lasts is told by the store's own clock, so that no instance whose
//! clock is wrong holds it for ever, or takes it from another. Nothing is lost when two instances maintain at once, as each commit is
//! against the version that was read: the lease saves work, not data.

use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use url::Url;

use super::millis;
use crate::{Lake, LakeError};

const FOLDER: &str = "_legwork/maintenance";
/// Numbers below the newest that stay, so that whoever looks at the folder sees who was in charge before.
const KEPT: u64 = 4;
const WHAT: &str = "maintenance lease";
/// An object that is written to learn what time the store has.
const CLOCK: &str = "clock";
/// `expires_ms` of a claim that was given back.
const RELEASED: i64 = i64::MIN;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    owner: String,
    /// Tells two claims of one owner apart.
    nonce: String,
    /// By the clock of its owner.
    expires_ms: i64,
    /// From when it was stored on.
    #[serde(default = "an_hour")]
    lasts_ms: i64,
}

/// What a claim counts for that does not say how long it lasts, as those of older versions: they lasted half an hour, where nobody had set
/// another interval of maintenance.
fn an_hour() -> i64 {
    3_600_000
}

/// The newest claim that is there.
#[derive(Debug)]
struct Newest {
    number: u64,
    claim: Claim,
    stored_ms: i64,
}

impl Newest {
    /// Whether somebody holds it. `store_ms`: now, by the clock of the object store.
    fn is_held(&self, store_ms: i64) -> bool {
        self.claim.expires_ms != RELEASED && store_ms < self.stored_ms.saturating_add(self.claim.lasts_ms)
    }
}

/// The right to maintain the lake until it expires.
#[derive(Clone, Debug)]
pub struct Lease {
    number: u64,
    claim: Claim,
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
        self.claim.expires_ms.saturating_sub(now_ms) < self.claim.lasts_ms / 2
    }
}

impl Lake {
    /// Takes the lease of maintenance, for `lasts`. *Returns* none while another instance holds it.
    /// *Errors:* `Unavailable`; `Clock`: `now_ms` is too far ahead of the object store's clock, nothing was taken.
    pub async fn lease(&self, owner: &str, now_ms: i64, lasts: Duration) -> Result<Option<Lease>, LakeError> {
        let store_ms = self.store_clock().await?;
        self.refuse_clock(now_ms.saturating_sub(store_ms))?;
        let newest = self.newest_claim().await?;
        if newest.as_ref().is_some_and(|newest| newest.is_held(store_ms)) {
            return Ok(None);
        }
        let lasts_ms = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX);
        let number = newest.map_or(0, |newest| newest.number + 1);
        self.claim(number, owner, now_ms.saturating_add(lasts_ms), lasts_ms).await
    }

    /// Holds a lease for as long again. *Returns* none when it has gone to another instance.
    /// *Errors:* `Unavailable`.
    pub async fn renew(&self, lease: &Lease, now_ms: i64) -> Result<Option<Lease>, LakeError> {
        let Claim { owner, lasts_ms, .. } = &lease.claim;
        self.claim(lease.number + 1, owner, now_ms.saturating_add(*lasts_ms), *lasts_ms).await
    }

    /// Lets go, so that another instance need not wait. *Errors:* `Unavailable`.
    pub async fn release(&self, lease: &Lease) -> Result<(), LakeError> {
        self.claim(lease.number + 1, &lease.claim.owner, RELEASED, 0).await.map(|_| ())
    }

    /// *Errors:* `Clock`, for one that is so far ahead.
    pub(super) fn refuse_clock(&self, ahead_ms: i64) -> Result<(), LakeError> {
        match ahead_ms > millis(self.inner.config.clock_ahead_max) {
            true => Err(LakeError::Clock { ahead_s: ahead_ms / 1_000 }),
            false => Ok(()),
        }
    }

    /// What time the object store has, milliseconds since 1970.
    async fn store_clock(&self) -> Result<i64, LakeError> {
        let path = self.lease_path(CLOCK)?;
        self.in_time(self.inner.root.put(&path, Vec::new().into())).await?;
        let found = self.in_time(self.inner.root.head(&path)).await?;
        Ok(found.last_modified.timestamp_millis())
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
        let free = || Claim { owner: String::new(), nonce: String::new(), expires_ms: RELEASED, lasts_ms: 0 };
        let claim = serde_json::from_slice(&bytes).unwrap_or_else(|_| free());
        Ok(Some(Newest { number, claim, stored_ms: object.last_modified.timestamp_millis() }))
    }

    /// *Returns* the lease, if its number is ours, and the newest.
    async fn claim(
        &self,
        number: u64,
        owner: &str,
        expires_ms: i64,
        lasts_ms: i64,
    ) -> Result<Option<Lease>, LakeError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let claim = Claim { owner: owner.to_owned(), nonce, expires_ms, lasts_ms };
        let path = self.lease_path(&format!("{number:020}.json"))?;
        let bytes = serde_json::to_vec(&claim).map_err(|error| LakeError::unavailable(WHAT, "written", error))?;
        let written = self.in_time(self.inner.root.put_opts(&path, bytes.into(), PutMode::Create.into())).await;
        // Whatever came back: what is there decides. It also tells a number that was ours long ago, and deleted since, from the newest one.
        let newest = self.newest_claim().await?;
        let ours = newest.filter(|newest| newest.number == number && newest.claim.nonce == claim.nonce);
        let Some(Newest { stored_ms, .. }) = ours else {
            return match written {
                Err(error) if !error.to_string().contains("already exists") => Err(error),
                _ => Ok(None),
            };
        };
        for (_, old) in self.lease_numbers().await?.into_iter().filter(|(old, _)| old + KEPT < number) {
            let _ = self.in_time(self.inner.root.delete(&old.location)).await;
        }
        Ok(Some(Lease { number, claim, stored_ms }))
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
