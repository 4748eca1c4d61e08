//! Messages of one partition as they came, in one arena: no allocation a message.

use std::ops::Range;
use std::sync::Arc;

/// One message, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Offset in its partition.
    pub offset: i64,
    /// Arrival time, microseconds since 1970-01-01 UTC.
    pub arrival_us: i64,
    /// Record key.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

#[derive(Clone, Debug)]
struct Entry {
    offset: i64,
    arrival_us: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
}

/// Messages of one partition in the order of their offsets. Reused from batch to batch, so that its arena is allocated once.
#[derive(Clone, Debug)]
pub struct MessageBatch {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

impl MessageBatch {
    /// An empty batch of a partition.
    pub fn new(topic: Arc<str>, partition: i32) -> MessageBatch {
        MessageBatch { topic, partition, arena: Vec::new(), entries: Vec::new() }
    }

    /// Appends a copy of a message. The arena of a batch stays below 4 GiB: readers stop at `BatchLimit` long before.
    #[inline]
    pub fn push(&mut self, message: Message<'_>) {
        let entry = Entry {
            offset: message.offset,
            arrival_us: message.arrival_us,
            key: message.key.map(|bytes| self.store(bytes)),
            value: message.value.map(|bytes| self.store(bytes)),
        };
        self.entries.push(entry);
    }

    #[inline]
    fn store(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = u32::try_from(self.arena.len()).expect("a batch holds less than 4 GiB");
        self.arena.extend_from_slice(bytes);
        start..u32::try_from(self.arena.len()).expect("a batch holds less than 4 GiB")
    }

    /// One message. Panics beyond [`MessageBatch::len`].
    #[inline]
    pub fn get(&self, message_idx: usize) -> Message<'_> {
        let entry = &self.entries[message_idx];
        let bytes = |range: &Range<u32>| &self.arena[range.start as usize..range.end as usize];
        Message {
            offset: entry.offset,
            arrival_us: entry.arrival_us,
            key: entry.key.as_ref().map(bytes),
            value: entry.value.as_ref().map(bytes),
        }
    }

    /// All messages.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'_>> {
        (0..self.len()).map(|message_idx| self.get(message_idx))
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    pub fn n_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Empties it; an arena that has grown beyond `keep_bytes` is given back.
    pub fn clear(&mut self, keep_bytes: usize) {
        self.entries.clear();
        self.arena.clear();
        self.arena.shrink_to(keep_bytes);
        self.entries.shrink_to(keep_bytes / size_of::<Entry>());
    }
}
