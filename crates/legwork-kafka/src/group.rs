//! What the members of a consumer group hold, as its coordinator tells. Knows no client.
//!
//! A static member that comes back is given what it had, without a new round. Partitions that were added meanwhile, and topics that were
//! made, are then nobody's until something else makes the group share out anew.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::context::PartitionId;

/// Partitions that no member holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphans {
    pub(crate) partitions: BTreeSet<PartitionId>,
    /// The first of all partitions that somebody holds: one member is to act, the one that holds it.
    pub(crate) first_held: Option<PartitionId>,
}

/// Looks at the group now and then.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    orphans: BTreeSet<PartitionId>,
}

impl Looks {
    /// Of `topics` with so many partitions, those that were nobody's the last time, too; none if there are none.
    pub(crate) fn look(
        &mut self,
        topics: impl IntoIterator<Item = (Arc<str>, i32)>,
        held: &HashSet<PartitionId>,
    ) -> Option<Orphans> {
        let all = topics.into_iter().flat_map(|(topic, n)| (0..n).map(move |partition| (topic.clone(), partition)));
        let orphans: BTreeSet<PartitionId> = all.filter(|id| !held.contains(id)).collect();
        let before = std::mem::replace(&mut self.orphans, orphans);
        let partitions: BTreeSet<PartitionId> = self.orphans.intersection(&before).cloned().collect();
        (!partitions.is_empty()).then(|| Orphans { partitions, first_held: held.iter().min().cloned() })
    }

    /// The group is not at rest: what was seen before says nothing.
    pub(crate) fn forget(&mut self) {
        self.orphans.clear();
    }
}

/// Whether a process other than the one with `client_id` is a static member with this instance id. `members`: (member id, client id).
///
/// A coordinator that was stopped may find, when it goes on, a request to join that its sender had given up and repeated. It then takes
/// the two for two processes, and fences the one that is there in favour of the one that nobody is.
pub(crate) fn is_another(instance_id: &str, client_id: &str, members: &[(&str, &str)]) -> bool {
    // Member ids of static members are the instance id and a UUID.
    let is_it = |member: &str| {
        member.strip_prefix(instance_id).and_then(|rest| rest.strip_prefix('-')).is_some_and(|uuid| uuid.len() == 36)
    };
    members.iter().any(|(member, client)| is_it(member) && *client != client_id)
}

/// The partitions of a member's assignment in the classic consumer protocol: version, topics with their partitions, user data. None where
/// the bytes are something else.
pub(crate) fn assignment(bytes: &[u8]) -> Option<Vec<PartitionId>> {
    // A member that has nothing yet.
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut rest = bytes;
    let _version = i16::from_be_bytes(take(&mut rest)?);
    let mut found = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let topic: Arc<str> = std::str::from_utf8(name).ok()?.into();
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            found.push((topic.clone(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const BYTES: &[u8] =
        b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x05\0\x02bc\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";

    fn id(topic: &str, partition: i32) -> PartitionId {
        (topic.into(), partition)
    }

    #[test]
    fn assignments_are_read_and_cut_ones_refused() {
        assert_eq!(assignment(BYTES).unwrap(), [id("a", 0), id("a", 5), id("bc", 1)]);
        assert_eq!(assignment(b"").unwrap(), []);
        // User data is not looked at.
        for length in 1..BYTES.len() - 4 {
            assert_eq!(assignment(&BYTES[..length]), None, "{length}");
        }
        let huge = [&BYTES[..2], &i32::MAX.to_be_bytes()].concat();
        assert_eq!(assignment(&huge), None);
    }

    #[test]
    fn another_process_is_told_from_a_ghost() {
        let uuid = "9f3c1a52-3a77-4d0e-9d55-0b8f6c1e2d34";
        let member = |instance: &str| format!("{instance}-{uuid}");
        let (ours, longer) = (member("pod-1"), member("pod-1-1"));
        let is_another = |members: &[(&str, &str)]| is_another("pod-1", "legwork-pod-1-5f", members);
        assert!(!is_another(&[]));
        assert!(!is_another(&[(&ours, "legwork-pod-1-5f"), (&longer, "legwork-pod-1-1-60")]));
        assert!(is_another(&[(&ours, "legwork-pod-1-60")]));
    }

    #[test]
    fn partitions_are_orphans_when_they_are_nobodys_twice() {
        let (mut looks, held) = (Looks::default(), HashSet::from([id("b", 0), id("a", 1)]));
        let mut look = |n_a: i32, held: &HashSet<_>| looks.look([("a".into(), n_a), ("b".into(), 1)], held);
        assert_eq!(look(2, &held), None);
        let orphans = Orphans { partitions: BTreeSet::from([id("a", 0)]), first_held: Some(id("a", 1)) };
        assert_eq!(look(3, &held), Some(orphans.clone()), "a/2 was seen once only");
        let all = HashSet::from([id("a", 0), id("a", 1), id("a", 2), id("b", 0)]);
        assert_eq!(look(3, &all), None);
        assert_eq!(look(3, &held), None);
        looks.forget();
        assert_eq!(looks.look([("a".into(), 2)], &held), None);
        assert_eq!(looks.look([("a".into(), 2)], &held), Some(orphans));
    }
}
