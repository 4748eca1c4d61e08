//! Chance, shared by everything in a simulated world, so that a seed tells one story.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use legwork_state::{Faults, Operation, StoreError};
use legwork_types::LaneId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Decides what fails and what waits.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    rng: Arc<Mutex<StdRng>>,
    is_calm: Arc<AtomicBool>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice { rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), is_calm: Arc::default() }
    }

    /// From now on nothing fails.
    pub(super) fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn below(&self, n: usize) -> usize {
        self.rng.lock().random_range(0..n)
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        self.rng.lock().random_bool(probability)
    }

    pub(super) fn between(&self, from: i64, to: i64) -> i64 {
        self.rng.lock().random_range(from..to)
    }

    pub(super) fn fails(&self) -> bool {
        !self.is_calm.load(Ordering::Relaxed) && self.chance(0.06)
    }

    /// Gives others a turn or more: whoever waits may never come back.
    pub(super) async fn wait(&self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Faults for Dice {
    async fn before(&self, _lane: &LaneId, operation: &Operation) -> Result<(), StoreError> {
        // Reads happen between two batches, where nobody else can have a turn.
        if *operation != Operation::Read {
            self.wait().await;
        }
        match self.fails() {
            true => Err(StoreError::Unavailable { detail: "the store does not answer".to_owned() }),
            false => Ok(()),
        }
    }

    async fn after(&self, lane: &LaneId, operation: &Operation) -> Result<(), StoreError> {
        if *operation != Operation::Read {
            self.wait().await;
        }
        match self.fails() {
            true => Err(StoreError::Unknown { lane: lane.clone(), detail: "the answer was lost".to_owned() }),
            false => Ok(()),
        }
    }
}
