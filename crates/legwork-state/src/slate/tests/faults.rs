//! An object store that fails: what was acknowledged is there, what was not is there wholly or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use object_store_014::ObjectStore;
use object_store_014::local::LocalFileSystem;
use object_store_014::memory::InMemory;

use super::objects::{Fate, Watched, is_wal};
use super::{Objects, quick};
use crate::tests::{head, lane, numbered, roll};
use crate::{StateStore, StoreError};

#[tokio::test]
async fn a_checkpoint_is_one_put() {
    let objects = Arc::new(Watched::new(Arc::new(InMemory::new())));
    let store = Objects(objects.clone()).store();
    let owner = store.claim(&lane()).await.unwrap();
    let n_wal_puts = || objects.counts.n_wal_puts.load(Ordering::Relaxed);
    let n_gets = || objects.counts.n_gets.load(Ordering::Relaxed);
    let (at_first, gets_at_first) = (n_wal_puts(), n_gets());
    for number in 1..=40 {
        let mut checkpoint = numbered(number);
        checkpoint.rows.push(("device_movement".to_owned(), vec![0; number as usize * 10_000]));
        owner.lane.commit(checkpoint).await.unwrap();
        assert_eq!(n_wal_puts(), at_first + u64::from(number));
    }
    // What there is comes from the memtables that are flushed now and then.
    assert!(n_gets() - gets_at_first < 60, "{} gets", n_gets() - gets_at_first);
    owner.lane.release().await.unwrap();
    assert_eq!(n_wal_puts(), at_first + 40);
    assert_eq!(store.claim(&lane()).await.unwrap().head, Some(head(40)));
}

/// A bucket tells that the object is the one that was put, so a lost answer costs time only.
#[tokio::test]
async fn an_answer_that_is_lost_is_found_again_in_a_bucket() {
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = is_armed.clone();
    let lose =
        move |path: &_| if is_wal(path) && armed.swap(false, Ordering::Relaxed) { Fate::Lost } else { Fate::Answered };
    let store = Objects(Arc::new(Watched::new(Arc::new(InMemory::new())).with_fate_of_puts(lose))).store();
    let owner = store.claim(&lane()).await.unwrap();
    for number in 1..=3 {
        is_armed.store(true, Ordering::Relaxed);
        owner.lane.commit(numbered(number)).await.unwrap();
        assert!(!is_armed.load(Ordering::Relaxed));
    }
    assert_eq!(store.claim(&lane()).await.unwrap().head, Some(head(3)));
}

#[tokio::test]
async fn no_answer_is_unknown_after_the_timeout() {
    for fate in [Fate::Unanswered, Fate::Late] {
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = is_armed.clone();
        let hang = move |_: &_| if armed.load(Ordering::Relaxed) { fate } else { Fate::Answered };
        let objects = Arc::new(Watched::new(Arc::new(InMemory::new())).with_fate_of_puts(hang));
        let mut store = Objects(objects).store();
        store.config.commit_timeout = Duration::from_millis(100);
        let owner = store.claim(&lane()).await.unwrap();
        owner.lane.commit(numbered(1)).await.unwrap();
        is_armed.store(true, Ordering::Relaxed);
        let error = owner.lane.commit(numbered(2)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unknown { detail, .. } if detail.contains("no answer")), "{error:?}");
        assert!(matches!(owner.lane.commit(numbered(2)).await, Err(StoreError::Unknown { .. })));
        is_armed.store(false, Ordering::Relaxed);
        let owner = store.claim(&lane()).await.unwrap();
        assert_eq!(owner.head, Some(head(if fate == Fate::Late { 2 } else { 1 })));
    }
}

/// A store that is down from the start is an error in time, with the place named.
#[tokio::test]
async fn a_claim_of_a_store_that_is_down_ends_in_time() {
    let objects = Arc::new(Watched::new(Arc::new(InMemory::new())).with_fate_of_puts(|_| Fate::Refused));
    let mut store = Objects(objects).store();
    store.config.claim_timeout = Duration::from_millis(300);
    let error = store.claim(&lane()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { detail } if detail.contains("store.url")), "{error:?}");
}

/// One life of a lane over a store where one put in ten fails somehow; restarts whenever the claim dies, sometimes without reason.
async fn live(inner: Arc<dyn ObjectStore>, seed: u64, n_checkpoints: u32) -> [u64; 3] {
    let dice = AtomicU64::new(0);
    let n_faults = Arc::new(AtomicU64::new(0));
    let count = n_faults.clone();
    let fate = move |_: &_| {
        let fate = match roll(seed << 32 | dice.fetch_add(1, Ordering::Relaxed)) % 40 {
            0 => Fate::Refused,
            1 => Fate::Lost,
            2 => Fate::Unanswered,
            3 => Fate::Late,
            _ => return Fate::Answered,
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    };
    let objects = Arc::new(Watched::new(inner).with_fate_of_puts(fate));
    let (mut acknowledged, mut n_deaths, mut n_found) = (0u32, 0, 0);
    while acknowledged < n_checkpoints {
        let mut store = Objects(objects.clone()).store();
        store.tuning = quick();
        store.config.commit_timeout = Duration::from_millis(300);
        store.config.claim_timeout = Duration::from_millis(1_000);
        let Ok(owner) = store.claim(&lane()).await else { continue };
        let seen = owner.head.as_ref().map_or(0, |head| head.number);
        assert!(seen == acknowledged || seen == acknowledged + 1, "{seen} after {acknowledged}, seed {seed}");
        n_found += u64::from(seen != acknowledged);
        acknowledged = seen;
        let whole = owner.hot.iter().find(|(key, _)| key == b"hot").map(|(_, value)| value.clone());
        assert_eq!(whole, (seen > 0).then(|| seen.to_be_bytes().to_vec()));
        assert_eq!(owner.hot.len() as u32, if seen > 0 { seen + 1 } else { 0 });
        while acknowledged < n_checkpoints {
            match owner.lane.commit(numbered(acknowledged + 1)).await {
                Ok(()) => acknowledged += 1,
                Err(_) => break,
            }
        }
        n_deaths += 1;
    }
    [n_faults.load(Ordering::Relaxed), n_deaths, n_found]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_a_bucket_that_fails() {
    let [n_faults, n_deaths, n_found] = live(Arc::new(InMemory::new()), 1, 80).await;
    assert!(
        n_faults > 5 && n_deaths > 1,
        "{n_faults} faults, {n_deaths} claims, {n_found} found after an unknown outcome"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_a_folder_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
    let [n_faults, n_deaths, n_found] = live(Arc::new(files), 2, 60).await;
    assert!(
        n_faults > 5 && n_deaths > 1,
        "{n_faults} faults, {n_deaths} claims, {n_found} found after an unknown outcome"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; for the nightly run"]
async fn nothing_acknowledged_is_lost_with_many_seeds() {
    let n_seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut totals = [0; 3];
    for seed in 0..n_seeds {
        let counted = live(Arc::new(InMemory::new()), seed, 100).await;
        totals.iter_mut().zip(counted).for_each(|(total, counted)| *total += counted);
    }
    println!("{n_seeds} seeds: {totals:?} (faults, claims, found after an unknown outcome)");
}
