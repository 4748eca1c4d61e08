//! Lanes are looked at beside their owners.

use legwork_types::LaneId;

use super::Objects;
use crate::tests::{head, put};
use crate::{Checkpoint, Peeked, StateStore};

fn checkpoint(number: u32, drop_rows_through: Option<u32>) -> Checkpoint {
    let rows = vec![("calls".to_owned(), vec![number as u8; 8])];
    Checkpoint {
        head: head(number),
        hot: vec![put(b"k", &[number as u8])],
        rows,
        drop_rows_through,
        ..Checkpoint::default()
    }
}

fn numbers(peeked: &Peeked) -> Vec<u32> {
    peeked.pending.iter().map(|rows| rows.number).collect()
}

#[tokio::test]
async fn looking_shows_the_newest_checkpoint_and_disturbs_nobody() {
    let objects = Objects::default();
    let (owner, other) = (objects.store(), objects.store());
    let lane = LaneId::new("calls", 3);
    assert_eq!(other.peek(&lane).await.unwrap(), None);
    let claim = owner.claim(&lane).await.unwrap().lane;
    assert_eq!(other.peek(&lane).await.unwrap(), None, "claimed, and without a checkpoint");
    for number in 1..=3 {
        claim.commit(checkpoint(number, None)).await.unwrap();
        let peeked = other.peek(&lane).await.unwrap().unwrap();
        assert_eq!((peeked.head.number, numbers(&peeked)), (number, (1..=number).collect()));
    }
    claim.commit(checkpoint(4, Some(2))).await.unwrap();
    let peeked = other.peek(&lane).await.unwrap().unwrap();
    assert_eq!((peeked.head, numbers(&other.peek(&lane).await.unwrap().unwrap())), (head(4), vec![3, 4]));
    claim.commit(checkpoint(5, None)).await.unwrap();
    claim.release().await.unwrap();
    let again = owner.claim(&lane).await.unwrap();
    let peeked = other.peek(&lane).await.unwrap().unwrap();
    assert_eq!((Some(peeked.head), peeked.pending), (again.head, again.pending));
}
