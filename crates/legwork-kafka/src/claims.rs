//! Which partitions are being claimed. Knows no client and no threads.
//!
//! A claim may take seconds, and its partition may be taken away and come back meanwhile. Two claims of one partition must not run at the
//! same time, and what a claim brought must be let go where it is no longer wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::context::PartitionId;

#[derive(Debug)]
struct Claim {
    is_wanted: bool,
    /// Taken away and assigned again: to be claimed anew.
    again: bool,
    is_dropped: Arc<AtomicBool>,
}

/// What to do with a claim that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Start reading.
    Take,
    /// It is not wanted any more: let go.
    GiveBack,
    /// Let go, then claim anew.
    GiveBackAndClaim,
}

/// Claims under way.
#[derive(Debug, Default)]
pub(crate) struct Claims(HashMap<PartitionId, Claim>);

impl Claims {
    /// A partition was assigned. *Returns* what tells its claim that it is no longer wanted, where a claim is to begin now; none where an
    /// earlier one must end first.
    pub(crate) fn want(&mut self, id: &PartitionId) -> Option<Arc<AtomicBool>> {
        if let Some(claim) = self.0.get_mut(id) {
            claim.again = !claim.is_wanted;
            return None;
        }
        let is_dropped = Arc::new(AtomicBool::new(false));
        self.0.insert(id.clone(), Claim { is_wanted: true, again: false, is_dropped: is_dropped.clone() });
        Some(is_dropped)
    }

    /// A partition was taken away. *Returns* whether its claim is under way.
    pub(crate) fn unwant(&mut self, id: &PartitionId) -> bool {
        let Some(claim) = self.0.get_mut(id) else { return false };
        claim.is_wanted = false;
        claim.again = false;
        claim.is_dropped.store(true, Ordering::Release);
        true
    }

    /// A claim has ended.
    pub(crate) fn ended(&mut self, id: &PartitionId) -> Fate {
        match self.0.remove(id) {
            Some(Claim { is_wanted: true, .. }) => Fate::Take,
            Some(Claim { again: true, .. }) => Fate::GiveBackAndClaim,
            _ => Fate::GiveBack,
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &PartitionId> {
        self.0.keys()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_taken_unless_its_partition_went() {
        let (mut claims, id) = (Claims::default(), ("t".into(), 1));
        let is_dropped = claims.want(&id).unwrap();
        assert_eq!(claims.ended(&id), Fate::Take);
        assert!(!is_dropped.load(Ordering::Relaxed));
        assert!(!claims.unwant(&id));

        let is_dropped = claims.want(&id).unwrap();
        assert!(claims.unwant(&id));
        assert!(is_dropped.load(Ordering::Relaxed));
        assert_eq!(claims.ended(&id), Fate::GiveBack);
        assert!(claims.is_empty());
    }

    #[test]
    fn a_partition_that_went_and_came_is_claimed_after_its_first_claim_has_ended() {
        let (mut claims, id) = (Claims::default(), ("t".into(), 1));
        assert!(claims.want(&id).is_some());
        claims.unwant(&id);
        assert!(claims.want(&id).is_none());
        assert_eq!(claims.ended(&id), Fate::GiveBackAndClaim);
        assert!(claims.want(&id).is_some());
        // It went, came and went again.
        claims.unwant(&id);
        assert!(claims.want(&id).is_none());
        claims.unwant(&id);
        assert_eq!(claims.ended(&id), Fate::GiveBack);
    }
}
