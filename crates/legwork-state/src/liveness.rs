//! The end of a claim: after the first error it answers with that error for ever.

use legwork_types::LaneId;
use parking_lot::Mutex;

use crate::StoreError;

/// Whether a claim is alive, and if not, why.
#[derive(Debug)]
pub(crate) struct Liveness {
    lane: LaneId,
    ended: Mutex<Option<StoreError>>,
}

impl Liveness {
    pub(crate) fn new(lane: LaneId) -> Liveness {
        Liveness { lane, ended: Mutex::new(None) }
    }

    /// *Errors:* why the claim has ended.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.ended.lock().clone().map_or(Ok(()), Err)
    }

    /// Ends the claim, if `result` is an error, and hands it on. The first error stays.
    pub(crate) fn judge<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.end(error.clone());
        }
        result
    }

    /// Ends the claim.
    pub(crate) fn end(&self, error: StoreError) {
        self.ended.lock().get_or_insert(error);
    }

    /// Ends the claim in good order.
    pub(crate) fn release(&self) {
        self.end(StoreError::Unavailable { detail: format!("lane {} was released: claim it again", self.lane) });
    }

    /// For the time of a write: should the caller give up waiting, nobody knows what became of it, and the claim ends.
    pub(crate) fn write(&self) -> Result<Writing<'_>, StoreError> {
        self.check()?;
        Ok(Writing { liveness: self, is_decided: false })
    }
}

/// A write under way.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    liveness: &'a Liveness,
    is_decided: bool,
}

impl Writing<'_> {
    /// The write has ended.
    pub(crate) fn decide<T>(mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.is_decided = true;
        self.liveness.judge(result)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            let lane = self.liveness.lane.clone();
            self.liveness.end(StoreError::Unknown { lane, detail: "a checkpoint was given up half-way".to_owned() });
        }
    }
}
