//! Faults of the store in memory.

use std::sync::Arc;

use async_trait::async_trait;
use legwork_types::LaneId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{head, lane, numbered};
use crate::{Faults, MemoryStore, Operation, StateStore, StoreError};

/// What happens to the next operation of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Refuse,
    LoseAnswer,
    Wait,
}

#[derive(Debug, Default)]
struct Scripted {
    script: Mutex<Vec<(Operation, Fault)>>,
    /// Something waits.
    waits: Notify,
    /// It may go on.
    go_on: Notify,
}

impl Scripted {
    fn take(&self, operation: &Operation, at: &[Fault]) -> Option<Fault> {
        let mut script = self.script.lock();
        let found = script.iter().position(|(next, fault)| next == operation && at.contains(fault))?;
        Some(script.remove(found).1)
    }
}

#[async_trait]
impl Faults for Scripted {
    async fn before(&self, _lane: &LaneId, operation: &Operation) -> Result<(), StoreError> {
        match self.take(operation, &[Fault::Refuse, Fault::Wait]) {
            Some(Fault::Refuse) => Err(StoreError::Unavailable { detail: "refused".into() }),
            Some(Fault::Wait) => {
                self.waits.notify_one();
                self.go_on.notified().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, lane: &LaneId, operation: &Operation) -> Result<(), StoreError> {
        match self.take(operation, &[Fault::LoseAnswer]) {
            Some(_) => Err(StoreError::Unknown { lane: lane.clone(), detail: "lost".into() }),
            None => Ok(()),
        }
    }
}

/// One thread.
fn simulate<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn store(script: &[(Operation, Fault)]) -> (MemoryStore, Arc<Scripted>) {
    let faults = Arc::new(Scripted { script: Mutex::new(script.to_vec()), ..Scripted::default() });
    (MemoryStore::new().with_faults(faults.clone()), faults)
}

#[test]
fn refused_is_without_effect_and_a_lost_answer_is_not() {
    simulate(async {
        let (store, _) = store(&[
            (Operation::Commit { number: 2 }, Fault::Refuse),
            (Operation::Commit { number: 3 }, Fault::LoseAnswer),
            (Operation::Read, Fault::Refuse),
            (Operation::Claim, Fault::Refuse),
        ]);
        assert!(matches!(store.claim(&lane()).await, Err(StoreError::Unavailable { .. })));
        let owner = store.claim(&lane()).await.unwrap();
        owner.lane.commit(numbered(1)).await.unwrap();
        assert!(matches!(owner.lane.commit(numbered(2)).await, Err(StoreError::Unavailable { .. })));
        assert!(matches!(owner.lane.commit(numbered(2)).await, Err(StoreError::Unavailable { .. })), "dead");
        let owner = store.claim(&lane()).await.unwrap();
        assert_eq!(owner.head, Some(head(1)));
        owner.lane.commit(numbered(2)).await.unwrap();
        assert!(matches!(owner.lane.commit(numbered(3)).await, Err(StoreError::Unknown { .. })));
        let owner = store.claim(&lane()).await.unwrap();
        assert_eq!(owner.head, Some(head(3)));
        assert!(owner.lane.read(vec![b"cold".to_vec()]).await.is_err());
        assert!(owner.lane.commit(numbered(4)).await.is_err(), "dead after a read's error, too");
    });
}

/// A commit that is under way for long meets a newer claim: it is refused when it arrives.
#[test]
fn a_late_commit_is_fenced() {
    simulate(async {
        let (store, faults) = store(&[(Operation::Commit { number: 2 }, Fault::Wait)]);
        let old = store.claim(&lane()).await.unwrap();
        old.lane.commit(numbered(1)).await.unwrap();
        let late = Arc::clone(&old.lane);
        let late = tokio::spawn(async move { late.commit(numbered(2)).await });
        faults.waits.notified().await;
        let new = store.claim(&lane()).await.unwrap();
        assert_eq!(new.head, Some(head(1)));
        new.lane.commit(numbered(2)).await.unwrap();
        let before = store.values(&lane());
        faults.go_on.notify_one();
        assert!(matches!(late.await.unwrap(), Err(StoreError::Fenced { .. })));
        assert_eq!(store.values(&lane()), before);
    });
}
