//! A lane that is claimed again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store_014::memory::InMemory;
use object_store_014::{ObjectMeta, ObjectStore};

use super::objects::Watched;
use super::{Objects, quick};
use crate::StateStore;
use crate::slate::settings::Tuning;
use crate::tests::{lane, numbered};

/// Objects of the lane in a folder, without empty ones.
async fn n_objects(objects: &dyn ObjectStore, folder: &str) -> usize {
    let objects: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let is_in = |object: &ObjectMeta| object.size > 0 && object.location.as_ref().contains(&format!("/{folder}/"));
    objects.into_iter().filter(is_in).count()
}

/// Owners that live shortly, with few checkpoints or none: neither what a claim reads nor what stays behind grows with their number. Fences
/// stay for ever; they are empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_costs_no_more_after_hundreds_of_others() {
    for n_checkpoints in [0, 1, 3] {
        let objects = Arc::new(Watched::new(Arc::new(InMemory::new())));
        let n_gets = || objects.counts.n_gets.load(Ordering::Relaxed);
        let (mut number, mut gets_max) = (0, 0);
        for _ in 0..300 {
            let store = Objects(objects.clone()).store();
            let before = n_gets();
            let owner = store.claim(&lane()).await.unwrap();
            gets_max = gets_max.max(n_gets() - before);
            assert_eq!(owner.head.map_or(0, |head| head.number), number);
            for _ in 0..n_checkpoints {
                number += 1;
                owner.lane.commit(numbered(number)).await.unwrap();
            }
        }
        assert!(gets_max < 300, "{gets_max} reads in a claim, with {n_checkpoints} checkpoints in each");
        let mut store = Objects(objects.clone()).store();
        store.tuning = Tuning { gc_min_age: Duration::ZERO, ..quick() };
        let _owner = store.claim(&lane()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // A compaction keeps what it began with for some minutes.
        for folder in ["manifest", "compactions", "wal"] {
            while n_objects(objects.as_ref(), folder).await > 200 {
                assert!(Instant::now() < deadline, "{} objects in {folder}", n_objects(objects.as_ref(), folder).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
