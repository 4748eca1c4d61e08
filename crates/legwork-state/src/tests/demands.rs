//! Fencing, atomicity, sizes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use legwork_types::LaneId;

use super::backings::on_each;
use super::{delete, head, heads, lane, numbered, put};
use crate::{Checkpoint, StoreError};

#[test]
fn a_newer_claim_ends_the_older_one() {
    on_each(async |backing| {
        let (first, second) = (backing.open(), backing.open());
        let old = first.claim(&lane()).await.unwrap();
        assert_eq!(old.head, None);
        old.lane.commit(numbered(1)).await.unwrap();
        let new = second.claim(&lane()).await.unwrap();
        assert_eq!(new.head, Some(head(1)));
        let error = old.lane.commit(numbered(2)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Fenced { lane: fenced } if *fenced == lane()), "{error:?}");
        // It stays so, whatever is asked.
        assert!(matches!(old.lane.commit(numbered(2)).await, Err(StoreError::Fenced { .. })));
        assert!(matches!(old.lane.read(vec![b"cold".to_vec()]).await, Err(StoreError::Fenced { .. })));
        assert!(matches!(old.lane.release().await, Err(StoreError::Fenced { .. })));
        drop(old);
        new.lane.commit(numbered(2)).await.unwrap();
        let third = first.claim(&lane()).await.unwrap();
        assert_eq!(third.head, Some(head(2)));
    });
}

#[test]
fn a_removed_lane_is_lost_to_its_owner_and_starts_anew() {
    on_each(async |backing| {
        let store = backing.open();
        store.remove(&lane()).await.unwrap();
        assert_eq!(heads(&*store).await, []);
        let old = store.claim(&lane()).await.unwrap();
        assert_eq!(heads(&*store).await, [], "claimed, but without a checkpoint");
        old.lane.commit(numbered(1)).await.unwrap();
        assert_eq!(heads(&*store).await, [(lane(), head(1))]);
        backing.open().remove(&lane()).await.unwrap();
        assert_eq!(heads(&*store).await, []);
        assert!(matches!(old.lane.commit(numbered(2)).await, Err(StoreError::Fenced { .. })));
        let new = store.claim(&lane()).await.unwrap();
        assert!(new.head.is_none() && new.hot.is_empty() && new.pending.is_empty());
        assert_eq!(new.lane.read(vec![b"cold".to_vec()]).await.unwrap(), [None]);
        // A lane that starts over goes on from the lake's number.
        new.lane.commit(numbered(700)).await.unwrap();
        new.lane.commit(numbered(701)).await.unwrap();
    });
}

/// A commit races with a claim: what was acknowledged is seen by the new owner, what was refused is not.
#[test]
fn claims_race_with_commits() {
    on_each(async |backing| {
        let mut owner = backing.open().claim(&lane()).await.unwrap();
        let (mut n_acknowledged, mut n_refused) = (0, 0);
        for round in 0..40u64 {
            let number = owner.head.as_ref().map_or(0, |head| head.number) + 1;
            let old = Arc::clone(&owner.lane);
            let commit = tokio::spawn(async move { old.commit(numbered(number)).await });
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_micros(round * 50)).await;
            }
            let new = backing.open().claim(&lane()).await.unwrap();
            let seen = new.head.as_ref().map_or(0, |head| head.number);
            match commit.await.unwrap() {
                Ok(()) => {
                    n_acknowledged += 1;
                    assert_eq!(seen, number);
                }
                Err(StoreError::Fenced { .. }) => {
                    n_refused += 1;
                    assert_eq!(seen, number - 1);
                }
                Err(error) => panic!("{error}"),
            }
            let hot = new.hot.iter().find(|(key, _)| key == b"hot").map(|(_, value)| value.clone());
            assert_eq!(hot, (seen > 0).then(|| seen.to_be_bytes().to_vec()), "whole or not at all");
            assert_eq!(new.pending.len() as u32, seen.min(5));
            owner = new;
        }
        assert_eq!(n_acknowledged + n_refused, 40);
    });
}

#[test]
fn numbers_grow() {
    on_each(async |backing| {
        for wrong in [0, 1, 2, 4] {
            let owner = backing.open().claim(&lane()).await.unwrap();
            let next = owner.head.as_ref().map_or(1, |head| head.number + 1);
            owner.lane.commit(numbered(next)).await.unwrap();
            let error = owner.lane.commit(numbered(wrong.min(next))).await.unwrap_err();
            assert!(error.to_string().contains("does not follow"), "{error}");
            assert!(owner.lane.commit(numbered(next + 1)).await.is_err(), "after an error the claim is dead");
        }
        let owner = backing.open().claim(&lane()).await.unwrap();
        assert_eq!(owner.head, Some(head(4)));
        owner.lane.commit(numbered(10)).await.unwrap();
        assert_eq!(backing.open().claim(&lane()).await.unwrap().head, Some(head(10)));
    });
}

#[test]
fn released_lanes_are_claimed_again() {
    on_each(async |backing| {
        let store = backing.open();
        let owner = store.claim(&lane()).await.unwrap();
        owner.lane.commit(numbered(1)).await.unwrap();
        owner.lane.release().await.unwrap();
        let error = owner.lane.commit(numbered(2)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable { detail } if detail.contains("released")), "{error:?}");
        drop(owner);
        let owner = backing.open().claim(&lane()).await.unwrap();
        assert_eq!(owner.head, Some(head(1)));
        owner.lane.commit(numbered(2)).await.unwrap();
    });
}

/// A commit that nobody waits for any more has an unknown outcome.
#[test]
fn a_commit_that_is_given_up_ends_the_claim() {
    on_each(async |backing| {
        let owner = backing.open().claim(&lane()).await.unwrap();
        owner.lane.commit(numbered(1)).await.unwrap();
        let mut commit = Box::pin(owner.lane.commit(numbered(2)));
        let polled = futures::poll!(&mut commit);
        drop(commit);
        let after = owner.lane.commit(numbered(3)).await;
        if polled.is_pending() {
            assert!(matches!(after, Err(StoreError::Unknown { .. })), "{after:?}");
        } else {
            after.unwrap();
        }
        let seen = backing.open().claim(&lane()).await.unwrap().head.unwrap().number;
        assert!(if polled.is_pending() { seen == 1 || seen == 2 } else { seen == 3 });
    });
}

#[test]
fn large_checkpoints_are_atomic_too() {
    on_each(async |backing| {
        let owner = backing.open().claim(&lane()).await.unwrap();
        let value = |number: u32, i: u32| -> Vec<u8> {
            (0..64 * 1024u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (number + i) as u8).collect()
        };
        for number in 1..=3 {
            let entries = |n| (0..n).map(|i: u32| put(&i.to_be_bytes(), &value(number, i))).collect::<Vec<_>>();
            let mut checkpoint = Checkpoint { head: head(number), hot: entries(256), ..Checkpoint::default() };
            checkpoint.cold = entries(128);
            checkpoint.rows = vec![("device_movement".to_owned(), vec![number as u8; 8 << 20])];
            checkpoint.drop_rows_through = Some(number - 1);
            owner.lane.commit(checkpoint).await.unwrap();
        }
        drop(owner);
        let owner = backing.open().claim(&lane()).await.unwrap();
        assert_eq!((owner.hot.len(), owner.pending.len()), (256, 1));
        assert_eq!(owner.pending[0].rows, vec![3; 8 << 20]);
        assert!(owner.hot.iter().zip(0..).all(|((_, found), i)| *found == value(3, i)));
        let cold = owner.lane.read(vec![127u32.to_be_bytes().to_vec(), b"none".to_vec(), vec![0; 4]]).await.unwrap();
        assert_eq!(cold, [Some(value(3, 127)), None, Some(value(3, 0))]);
    });
}

#[test]
fn two_hundred_lanes_stand_side_by_side() {
    on_each(async |backing| {
        let id = |i: i32| LaneId::new(if i % 2 == 0 { "field.calls.v1" } else { "field.calls.v1-x" }, i);
        let store = backing.open();
        let owners = join_all((0..200).map(|i| {
            let store = &store;
            async move {
                let owner = store.claim(&id(i)).await.unwrap();
                owner.lane.commit(numbered(1)).await.unwrap();
                owner
            }
        }));
        let owners = owners.await;
        join_all((0..200).zip(&owners).filter(|(i, _)| i % 3 == 0).map(|(_, owner)| owner.lane.commit(numbered(2))))
            .await;
        drop(owners);
        let store = backing.open();
        let mut expected: Vec<_> = (0..200).map(|i| (id(i), head(if i % 3 == 0 { 2 } else { 1 }))).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(heads(&*store).await, expected);
        let claims = join_all((0..200).map(|i| {
            let store = &store;
            async move { store.claim(&id(i)).await.unwrap() }
        }));
        for (i, claimed) in (0..200).zip(claims.await) {
            assert_eq!(claimed.head.unwrap().number, if i % 3 == 0 { 2 } else { 1 });
        }
    });
}

#[test]
fn deletions_last() {
    on_each(async |backing| {
        let owner = backing.open().claim(&lane()).await.unwrap();
        owner.lane.commit(numbered(1)).await.unwrap();
        let checkpoint = Checkpoint {
            head: head(2),
            hot: vec![delete(b"hot"), delete(b"never there")],
            cold: vec![delete(b"cold")],
            drop_rows_through: Some(1),
            ..Checkpoint::default()
        };
        owner.lane.commit(checkpoint).await.unwrap();
        let owner = backing.open().claim(&lane()).await.unwrap();
        assert_eq!(owner.hot, [(1u32.to_be_bytes().to_vec(), b"once".to_vec())]);
        assert_eq!(owner.pending, []);
        assert_eq!(owner.lane.read(vec![b"cold".to_vec()]).await.unwrap(), [None]);
    });
}
