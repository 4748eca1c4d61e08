//! The calls to librdkafka that the `rdkafka` crate does not offer: reading a partition's queue in batches, waking when it fills,
//! cached watermarks, topics' ids, and the embedded broker's group delay. The only module with `unsafe`.
//!
//! What holds for all of it: a [`PartitionQueue`] keeps its consumer alive, and gives its own handle back first; messages are taken
//! from librdkafka, copied and destroyed on one thread; librdkafka's handles may be used from any thread (its INTRODUCTION.md).
#![allow(unsafe_code, reason = "the one audited module that calls C")]

mod topic_ids;

use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafka;

use crate::context::Context;

pub(crate) use topic_ids::topic_ids;

/// A message that librdkafka still owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched<'a> {
    pub(crate) offset: i64,
    /// Milliseconds; none where the message has no timestamp.
    pub(crate) timestamp_ms: Option<i64>,
    /// The timestamp is the broker's (LogAppendTime).
    pub(crate) is_append_time: bool,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

/// What a place in the queue holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    Message(Fetched<'a>),
    /// An error that librdkafka tells in place of a message.
    Error {
        code: RDKafkaErrorCode,
        offset: i64,
        text: &'a str,
    },
}

/// Whether to go on with the next item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This item is done with: the next one.
    Take,
    /// Leave this item for the next read.
    Leave,
}

type Wake = Arc<dyn Fn() + Send + Sync>;

/// A partition's own queue, split off the consumer's.
pub(crate) struct PartitionQueue {
    queue: NonNull<c::rd_kafka_queue_t>,
    /// Taken from the queue and not yet handed over; the first `n_done` of them are destroyed.
    taken: Vec<*mut c::rd_kafka_message_t>,
    n_done: usize,
    // From `Box::into_raw`; read by librdkafka's threads while the callback is set.
    wake: Option<NonNull<Wake>>,
    topic: CString,
    partition: i32,
    consumer: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queue and message handles belong to no thread; `taken` is reached through `&mut self` only.
unsafe impl Send for PartitionQueue {}

/// Messages that are taken from librdkafka at once: enough to spread the call's cost, few enough for the caches.
const N_TAKEN_MAX: usize = 2_048;

impl PartitionQueue {
    /// Splits off the queue of a partition: from now on its messages come from here only. To be called before the partition is
    /// assigned, so that none goes to the consumer's own queue. None where librdkafka knows no such partition.
    pub(crate) fn split(consumer: &Arc<BaseConsumer<Context>>, topic: &str, partition: i32) -> Option<PartitionQueue> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client lives as long as `consumer`; `topic` is a C string that outlives the call. The queue returned is a
        // reference of our own, given back in `drop`.
        let queue = unsafe { c::rd_kafka_queue_get_partition(native(consumer), topic.as_ptr(), partition) };
        let queue = NonNull::new(queue)?;
        // SAFETY: `queue` is valid; a null destination means that it is not forwarded to the consumer's queue.
        unsafe { c::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut()) };
        let taken = Vec::with_capacity(N_TAKEN_MAX);
        let consumer = consumer.clone();
        Some(PartitionQueue { queue, taken, n_done: 0, wake: None, topic, partition, consumer })
    }

    /// Hands what is there to `take`, without waiting, at most `n_max` items, until it says [`Next::Leave`]. *Returns* how many were
    /// taken.
    pub(crate) fn read(&mut self, n_max: usize, mut take: impl FnMut(Item<'_>) -> Next) -> usize {
        let mut n_read = 0;
        while n_read < n_max {
            if self.n_done == self.taken.len() && !self.refill(n_max - n_read) {
                break;
            }
            while n_read < n_max && self.n_done < self.taken.len() {
                let message = self.taken[self.n_done];
                // SAFETY: a message not counted in `n_done` is alive, and nobody else reads or frees it; the borrow ends before it is
                // destroyed below.
                if take(unsafe { item(message) }) == Next::Leave {
                    return n_read;
                }
                self.n_done += 1;
                n_read += 1;
                // SAFETY: `message` came from librdkafka, was not destroyed, and is behind `n_done` now, so never will be again.
                unsafe { c::rd_kafka_message_destroy(message) };
            }
        }
        n_read
    }

    /// Drops what was taken from librdkafka and not handed over.
    pub(crate) fn discard_taken(&mut self) {
        for message in self.taken.drain(..).skip(std::mem::take(&mut self.n_done)) {
            // SAFETY: messages from `n_done` on are alive, and no longer in `taken`, so never destroyed again.
            unsafe { c::rd_kafka_message_destroy(message) };
        }
    }

    /// Takes the next messages from librdkafka; false when there are none.
    fn refill(&mut self, n_wanted: usize) -> bool {
        self.taken.clear();
        self.n_done = 0;
        let n_max = n_wanted.min(N_TAKEN_MAX);
        // SAFETY: `taken` has room for `N_TAKEN_MAX` pointers, librdkafka writes at most `n_max` of them and says how many. With a
        // time-out of zero the call does not wait.
        let n_taken =
            unsafe { c::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.taken.as_mut_ptr(), n_max) };
        let n_taken = usize::try_from(n_taken).unwrap_or(0).min(n_max);
        // SAFETY: the first `n_taken` pointers were written just now.
        unsafe { self.taken.set_len(n_taken) };
        n_taken > 0
    }

    /// Calls `wake` from a thread of librdkafka whenever something comes into the empty queue. It must not touch this queue.
    pub(crate) fn on_nonempty(&mut self, wake: Wake) {
        unsafe extern "C" fn call(_client: *mut RDKafka, wake: *mut c_void) {
            // SAFETY: `wake` is the box below, alive while the callback is set: librdkafka calls it with the queue's lock held, and
            // takes the same lock to unset it.
            let wake = unsafe { &*wake.cast::<Wake>() };
            wake();
        }
        let wake = NonNull::from(Box::leak(Box::new(wake)));
        // SAFETY: the queue is valid; `wake` lives until `forget_wake`, which runs only once this callback is replaced or unset.
        unsafe { c::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), Some(call), wake.as_ptr().cast()) };
        self.forget_wake();
        self.wake = Some(wake);
    }

    /// Frees what the callback pointed to, after librdkafka has been told of another or of none.
    fn forget_wake(&mut self) {
        if let Some(wake) = self.wake.take() {
            // SAFETY: it came from a leaked box, is freed once, and librdkafka no longer has the pointer.
            drop(unsafe { Box::from_raw(wake.as_ptr()) });
        }
    }

    /// Oldest offset and end of the partition as librdkafka last heard; none for what it has not heard.
    pub(crate) fn watermarks(&self) -> (Option<i64>, Option<i64>) {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and topic name are valid for the call, which writes two integers and asks no broker.
        unsafe {
            c::rd_kafka_get_watermark_offsets(
                native(&self.consumer),
                self.topic.as_ptr(),
                self.partition,
                &mut low,
                &mut high,
            )
        };
        (Some(low).filter(|low| *low >= 0), Some(high).filter(|high| *high >= 0))
    }

    /// The consumer.
    pub(crate) fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        &self.consumer
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is valid until `rd_kafka_queue_destroy`; unsetting the callback waits for one that runs. Messages before
        // `n_done` are destroyed already, the others are alive. The consumer's reference is dropped after this function, so the
        // queue goes first.
        unsafe { c::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut()) };
        self.forget_wake();
        self.discard_taken();
        // SAFETY: as above.
        unsafe { c::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

fn native(consumer: &BaseConsumer<Context>) -> *mut RDKafka {
    consumer.client().native_ptr()
}

/// Views a message.
///
/// # Safety
/// `message` is alive, and stays so for `'a`.
#[inline]
unsafe fn item<'a>(message: *mut c::rd_kafka_message_t) -> Item<'a> {
    // SAFETY: alive, as the caller promises; librdkafka does not write to it any more.
    let fields = unsafe { &*message };
    // SAFETY: librdkafka's pointers and lengths belong together, and live as long as the message.
    let (key, value) = unsafe { (bytes(fields.key, fields.key_len), bytes(fields.payload, fields.len)) };
    if fields.err != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        let text = value.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
        return Item::Error { code: fields.err.into(), offset: fields.offset, text };
    }
    let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive; `kind` is written.
    let timestamp_ms = unsafe { c::rd_kafka_message_timestamp(message, &mut kind) };
    let is_known = kind != c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp_ms >= 0;
    Item::Message(Fetched {
        offset: fields.offset,
        timestamp_ms: is_known.then_some(timestamp_ms),
        is_append_time: kind == c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME,
        key,
        value,
    })
}

/// # Safety
/// `start` is null, or `len` bytes can be read from it for `'a`.
#[inline]
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// Lets groups of an embedded broker form at once, instead of waiting three seconds for more members.
pub(crate) fn no_group_delay<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the client is alive; a client without an embedded broker gives null.
    let cluster = unsafe { c::rd_kafka_handle_mock_cluster(client.native_ptr()) };
    if !cluster.is_null() {
        // SAFETY: the cluster belongs to the client and lives as long.
        unsafe { c::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 100) };
    }
}
