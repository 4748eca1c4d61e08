//! What is known of a topic while it is read, and what that means for the lanes that read it. Knows no client.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// What the brokers last said about a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Partitions; 0 until it was seen.
    pub(crate) n_partitions: i32,
    /// Partitions when it was first seen under this id.
    n_partitions_at_first: i32,
    /// The broker's id; none where it has none, or has not told yet.
    pub(crate) id: Option<String>,
    /// It was there, and the brokers say more than once that it no longer is.
    is_deleted: bool,
}

/// A topic, shared by the thread that asks about it and by the readers of its partitions.
#[derive(Debug, Default)]
pub(crate) struct Topic {
    seen: Mutex<Seen>,
    /// When the question was sent that brought the id as it is.
    confirmed_at: Mutex<Option<Instant>>,
    /// Raised with each change, so that a reader sees with one load that there was none.
    version: AtomicU32,
}

impl Topic {
    /// What was last seen, under which version.
    pub(crate) fn seen(&self) -> (Seen, u32) {
        // The version first: a change in between is then looked at once more.
        let version = self.version();
        (self.seen.lock().clone(), version)
    }

    pub(crate) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// It is there, as the answer to a question sent at `asked_at` says. Without an `id` the one known before stays: not every answer
    /// brings it.
    pub(crate) fn is_there(&self, n_partitions: i32, id: Option<&str>, asked_at: Instant) {
        self.change(|seen| {
            let is_new = seen.is_deleted || id.is_some_and(|id| seen.id.as_deref().is_some_and(|known| known != id));
            if is_new || seen.n_partitions_at_first == 0 {
                seen.n_partitions_at_first = n_partitions;
            }
            if let Some(id) = id {
                seen.id = Some(id.to_owned());
            }
            seen.n_partitions = n_partitions;
            seen.is_deleted = false;
        });
        if id.is_some() {
            *self.confirmed_at.lock() = Some(asked_at);
        }
    }

    /// Whether it had this id at some moment after `since`.
    pub(crate) fn is_confirmed(&self, id: &str, since: Instant) -> bool {
        // Confirmed first, then the id: one that changes in between is no confirmation.
        let is_confirmed = self.confirmed_at.lock().is_some_and(|at| at >= since);
        let seen = self.seen.lock();
        is_confirmed && !seen.is_deleted && seen.id.as_deref() == Some(id)
    }

    /// It was there and is no more.
    pub(crate) fn is_deleted(&self) {
        self.change(|seen| seen.is_deleted = true);
    }

    /// Why a lane without a past may not start on it now: keys have moved among its partitions since this process first saw it.
    pub(crate) fn why_not_start(&self, topic: &str, partition: i32) -> Option<String> {
        let seen = self.seen.lock();
        (seen.n_partitions > seen.n_partitions_at_first)
            .then(|| grown(topic, partition, seen.n_partitions_at_first, seen.n_partitions))
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock();
        let before = seen.clone();
        change(&mut seen);
        if *seen != before {
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

impl Seen {
    /// Why a lane that began on the topic with this id and so many partitions can read it no further.
    pub(crate) fn why_gone(&self, topic: &str, partition: i32, id: Option<&str>, n_partitions: i32) -> Option<String> {
        if self.is_deleted {
            return Some(format!(
                "topic {topic} was deleted: create it and fill it again, start again, then `legwork lanes accept {topic}/{partition}` keeps what \
                 was read and reads the new one from its start; or take the topic out of topics.*.names"
            ));
        }
        if let (Some(id), Some(now)) = (id, self.id.as_deref())
            && id != now
        {
            return Some(format!(
                "topic {topic} was deleted and made anew (its id was {id} and is {now}): its offsets mean other messages now; start again, \
                 then `legwork lanes accept {topic}/{partition}` keeps what was read and reads the new one from its start"
            ));
        }
        (n_partitions > 0 && self.n_partitions > n_partitions)
            .then(|| grown(topic, partition, n_partitions, self.n_partitions))
    }
}

fn grown(topic: &str, partition: i32, before: i32, now: i32) -> String {
    format!(
        "topic {topic} has {now} partitions and had {before}: its keys have moved among them; `legwork lanes accept {topic}/{partition}`, \
         for each lane of the topic, goes on; a key that has moved begins anew in its new lane, so nothing is counted between its last event in \
         the old one and its first in the new one"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_topic_that_stays_as_it_is_changes_nothing() {
        let (topic, now) = (Topic::default(), Instant::now());
        topic.is_there(3, None, now);
        let (_, version) = topic.seen();
        topic.is_there(3, None, now);
        assert_eq!(topic.version(), version);
        topic.is_there(3, Some("a"), now);
        let (seen, version) = topic.seen();
        assert_eq!(seen.why_gone("t", 0, Some("a"), 3), None);
        // An answer without an id forgets nothing.
        topic.is_there(3, None, now);
        assert_eq!(topic.version(), version);
        assert_eq!(topic.why_not_start("t", 0), None);
    }

    #[test]
    fn an_id_is_confirmed_by_a_later_question_alone() {
        let (topic, asked) = (Topic::default(), Instant::now());
        let (before, after) = (asked - Duration::from_secs(1), asked + Duration::from_secs(1));
        topic.is_there(3, None, asked);
        assert!(!topic.is_confirmed("a", before));
        topic.is_there(3, Some("a"), asked);
        assert!(topic.is_confirmed("a", before) && topic.is_confirmed("a", asked));
        assert!(!topic.is_confirmed("a", after) && !topic.is_confirmed("b", before));
        topic.is_there(3, Some("b"), after);
        assert!(!topic.is_confirmed("a", before));
        topic.is_deleted();
        assert!(!topic.is_confirmed("b", before));
    }

    #[test]
    fn each_cause_has_its_way_out() {
        let (topic, now) = (Topic::default(), Instant::now());
        topic.is_there(3, Some("a"), now);
        topic.is_deleted();
        let because = topic.seen().0.why_gone("t", 1, Some("a"), 3).unwrap();
        assert!(because.contains("was deleted: ") && because.contains("legwork lanes accept t/1"), "{because}");

        topic.is_there(5, Some("b"), now);
        let because = topic.seen().0.why_gone("t", 1, Some("a"), 3).unwrap();
        assert!(because.contains("made anew") && because.contains("legwork lanes accept t/1"), "{because}");
        // A lane that began on the new one is well, and so is one that begins now.
        assert_eq!(topic.seen().0.why_gone("t", 1, Some("b"), 5), None);
        assert_eq!(topic.why_not_start("t", 4), None);

        topic.is_there(6, Some("b"), now);
        let because = topic.seen().0.why_gone("t", 1, Some("b"), 5).unwrap();
        assert!(because.contains("has 6 partitions and had 5") && because.contains("begins anew"), "{because}");
        assert!(topic.why_not_start("t", 5).unwrap().contains("has 6 partitions and had 5"));
    }
}
