//! Asking for topics' ids, which the `rdkafka` crate does not offer (DescribeTopics, KIP-516).

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut};
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

/// The brokers' ids of these topics. A topic that is not there, or whose broker has no ids, is left out. *Errors*: what librdkafka says
/// when the broker does not answer in time, or does not know the request. `topics` holds no name twice. The broker is named, since the
/// request would go to the controller, which an embedded broker has none of and a real one may be electing.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    broker_id: i32,
    topics: &[&str],
    within: Duration,
) -> Result<HashMap<String, String>, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let within_ms = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    let event = describe(client, broker_id, &names, within_ms).ok_or(RDKafkaErrorCode::OperationTimedOut)?;
    // SAFETY: the event is alive.
    let code = unsafe { c::rd_kafka_event_error(event.0.as_ptr()) };
    if code != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(code.into());
    }
    // SAFETY: the event is alive; librdkafka gives null where it is another event's.
    let result = unsafe { c::rd_kafka_event_DescribeTopics_result(event.0.as_ptr()) };
    if result.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    let mut n_described = 0;
    // SAFETY: `result` belongs to the event; the count is written. The array holds so many pointers and lives as long as the event.
    let described = unsafe { c::rd_kafka_DescribeTopics_result_topics(result, &mut n_described) };
    let mut ids = HashMap::with_capacity(n_described);
    for topic_idx in 0..if described.is_null() { 0 } else { n_described } {
        // SAFETY: within the array, as above; the event outlives the loop.
        if let Some((name, id)) = unsafe { name_and_id(*described.add(topic_idx)) } {
            ids.insert(name, id);
        }
    }
    Ok(ids)
}

/// An event of librdkafka, given back when dropped.
struct Event(NonNull<c::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was handed to us, and is given back once.
        unsafe { c::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// Asks and waits; none when no answer came.
fn describe<C: ClientContext>(client: &Client<C>, broker_id: i32, names: &[CString], within_ms: i32) -> Option<Event> {
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let native = client.native_ptr();
    // SAFETY: the client outlives this function; `names` outlive the collection, which copies them; every handle made here is destroyed
    // here, once, after its last use. librdkafka holds a reference of its own to the queue while the request is under way.
    unsafe {
        let queue = c::rd_kafka_queue_new(native);
        let options = c::rd_kafka_AdminOptions_new(native, c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        c::rd_kafka_AdminOptions_set_request_timeout(options, within_ms, null_mut(), 0);
        c::rd_kafka_AdminOptions_set_broker(options, broker_id, null_mut(), 0);
        let topics = c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        c::rd_kafka_DescribeTopics(native, topics, options, queue);
        let event = c::rd_kafka_queue_poll(queue, within_ms);
        c::rd_kafka_TopicCollection_destroy(topics);
        c::rd_kafka_AdminOptions_destroy(options);
        c::rd_kafka_queue_destroy(queue);
        NonNull::new(event).map(Event)
    }
}

/// # Safety
/// `described` is null, or a description that is alive.
unsafe fn name_and_id(described: *const c::rd_kafka_TopicDescription_t) -> Option<(String, String)> {
    if described.is_null() {
        return None;
    }
    // SAFETY: alive, as the caller promises; name and id live as long as it does, the id's text as long as the id.
    unsafe {
        let error = c::rd_kafka_TopicDescription_error(described);
        if !error.is_null() && c::rd_kafka_error_code(error) != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let id = c::rd_kafka_TopicDescription_topic_id(described);
        let is_zero = id.is_null()
            || (c::rd_kafka_Uuid_most_significant_bits(id) == 0 && c::rd_kafka_Uuid_least_significant_bits(id) == 0);
        if is_zero {
            return None;
        }
        let text = |text: *const c_char| (!text.is_null()).then(|| CStr::from_ptr(text).to_str().ok()).flatten();
        let name = text(c::rd_kafka_TopicDescription_name(described))?.to_owned();
        // As Kafka's own tools write it: base64 for URLs.
        Some((name, text(c::rd_kafka_Uuid_base64str(id))?.replace('+', "-").replace('/', "_")))
    }
}
