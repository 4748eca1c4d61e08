//! Messages of one lane to canonical batches, the bad ones beside them.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{BinaryArray, RecordBatch};
use legwork_types::{EventBatch, Kind, Message, MessageBatch, Reject, RejectReason};

use crate::avro::{FRAMING_BYTES, WriterDecoder};
use crate::columns::{Columns, MessageFault};
use crate::json::JsonDecoder;
use crate::registry::{Lookup, RegistryClient};

/// Bytes of values that one call decodes at most: Arrow's offsets count to 2 GiB.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// How the messages of a topic are written.
#[derive(Clone, Debug)]
pub enum Format {
    /// Avro in Confluent framing: magic 0, schema id of 4 bytes, body.
    Avro(RegistryClient),
    /// One JSON object a message.
    Json,
}

/// Why decoding stopped before the end of the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The registry has been asked for the schema; it answers soon.
    Pending {
        /// Schema id that is waited for.
        schema_id: u32,
    },
    /// The registry does not answer, or not as it should; it is asked again, with back-off, whenever decoding is tried again.
    Unavailable {
        /// Schema id that is waited for.
        schema_id: u32,
        /// Which hop, what is wrong and what to do about it.
        detail: String,
    },
}

/// What became of messages.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Events of the good ones: canonical columns in the order of the messages.
    pub events: EventBatch,
    /// *Shape:* as the rows of `events`. Index of the message of each row, ascending.
    pub message_rows: Vec<u32>,
    /// The bad ones, in the order of the messages.
    pub rejects: Vec<Reject>,
    /// Indices of messages without a value.
    pub tombstones: Vec<u32>,
    /// Messages accounted for: rows + rejects + tombstones.
    pub n_consumed: usize,
    /// Why it stopped early.
    pub blocked: Option<Blocked>,
}

/// Decodes the messages of one lane. Keeps one decoder for each writer's schema that it meets.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    message_bytes_max: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Avro(AvroWriters),
    Json(Box<JsonDecoder>),
}

#[derive(Debug)]
struct AvroWriters {
    registry: RegistryClient,
    slots: Vec<Slot>,
    slot_by_id: HashMap<u32, usize>,
    /// Id and slot of the newest message: most messages have the schema of the one before.
    newest: Option<(u32, usize)>,
    /// One whose answer was under way when decoding was tried last.
    pending: Option<u32>,
}

/// Ids that are asked for at once.
const ASKED_AHEAD_MAX: usize = 256;

#[derive(Debug)]
enum Slot {
    Decoder(Box<WriterDecoder>),
    Refused(String),
}

impl Decoder {
    /// A decoder for one lane. Values larger than `message_bytes_max` are rejected.
    pub fn new(kind: Kind, format: Format, message_bytes_max: usize) -> Decoder {
        let body = match format {
            Format::Avro(registry) => Body::Avro(AvroWriters {
                registry,
                slots: Vec::new(),
                slot_by_id: HashMap::new(),
                newest: None,
                pending: None,
            }),
            Format::Json => Body::Json(Box::new(JsonDecoder::new(kind))),
        };
        Decoder { kind, message_bytes_max, body }
    }

    /// Decodes messages from index `from` on, and stops before the first whose schema cannot be known yet, or after a GiB.
    pub fn decode(&mut self, messages: &MessageBatch, from: usize) -> Decoded {
        let mut faults: Vec<MessageFault> = Vec::new();
        let mut tombstones = Vec::new();
        let mut blocked = None;
        let mut n_bytes = 0;
        let mut end = from;
        // While answers are under way nothing is decoded: a batch in one piece is cheaper for all that follows. When the registry is
        // in trouble, what is known goes on.
        let pending = self.body.ask_ahead(messages, from);
        let n_messages = if pending.is_some() { from } else { messages.len() };
        blocked = blocked.or(pending.map(|schema_id| Blocked::Pending { schema_id }));
        while end < n_messages && n_bytes < BATCH_BYTES_MAX {
            let message_idx = u32::try_from(end).expect("a batch holds less than 4 Gi messages");
            match messages.get(end).value {
                None => tombstones.push(message_idx),
                Some(value) if value.len() > self.message_bytes_max => {
                    let detail = format!(
                        "the value has {} bytes, more than message_bytes_max; {} of them are kept",
                        value.len(),
                        self.message_bytes_max
                    );
                    faults.push((message_idx, RejectReason::Oversized, detail));
                }
                Some(value) => match self.body.push(self.kind, message_idx, value) {
                    Pushed::Taken => n_bytes += value.len(),
                    Pushed::Rejected(reason, detail) => faults.push((message_idx, reason, detail)),
                    Pushed::Blocked(why) => {
                        blocked = Some(why);
                        break;
                    }
                },
            }
            end += 1;
        }
        let mut columns = self.body.finish(self.kind, messages);
        columns.faults.append(&mut faults);
        let (batch, message_rows, faults) = columns.into_batch();
        let rejects = self.rejects(messages, faults);
        let n_consumed = end - from;
        debug_assert_eq!(message_rows.len() + rejects.len() + tombstones.len(), n_consumed);
        Decoded {
            events: event_batch(self.kind, messages, batch, &message_rows),
            message_rows,
            rejects,
            tombstones,
            n_consumed,
            blocked,
        }
    }

    fn rejects(&self, messages: &MessageBatch, mut faults: Vec<MessageFault>) -> Vec<Reject> {
        faults.sort_unstable_by_key(|&(message_idx, ..)| message_idx);
        let is_avro = matches!(self.body, Body::Avro(_));
        let rejects = faults.into_iter().map(|(message_idx, reason, detail)| {
            let Message { offset, arrival_us, key, value } = messages.get(message_idx as usize);
            let value = value.unwrap_or_default();
            Reject {
                offset,
                arrival_us,
                reason,
                detail,
                schema_id: if is_avro { schema_id(value) } else { None },
                key: key.map(<[u8]>::to_vec),
                payload: value[..value.len().min(self.message_bytes_max)].to_vec(),
            }
        });
        rejects.collect()
    }
}

enum Pushed {
    Taken,
    Rejected(RejectReason, String),
    Blocked(Blocked),
}

impl Body {
    /// Asks for all schemas that the messages need and that are not known yet, together: a batch with many unknown ids would otherwise
    /// cost a round trip each, one after the other. *Returns* one whose answer is under way.
    fn ask_ahead(&mut self, messages: &MessageBatch, from: usize) -> Option<u32> {
        let Body::Avro(writers) = self else { return None };
        // Decoding is tried again with each answer: not worth looking through all messages while one is known to be missing.
        if let Some(id) = writers.pending.filter(|id| matches!(writers.registry.lookup(*id), Lookup::Pending)) {
            return Some(id);
        }
        let mut newest = writers.newest.map(|(id, _)| id);
        let mut unknown = BTreeSet::new();
        for message_idx in from..messages.len() {
            let id = messages.get(message_idx).value.and_then(schema_id);
            if id == newest || unknown.len() >= ASKED_AHEAD_MAX {
                continue;
            }
            match id {
                Some(id) if writers.slot_by_id.contains_key(&id) => newest = Some(id),
                Some(id) => {
                    unknown.insert(id);
                }
                None => {}
            }
        }
        // Each lookup asks the registry: all at once. The one that was asked for last is answered last.
        let asked: Vec<u32> =
            unknown.into_iter().filter(|id| matches!(writers.registry.lookup(*id), Lookup::Pending)).collect();
        writers.pending = asked.last().copied();
        writers.pending
    }

    #[inline]
    fn push(&mut self, kind: Kind, message_idx: u32, value: &[u8]) -> Pushed {
        let pushed = match self {
            Body::Json(decoder) => decoder.push(message_idx, value),
            Body::Avro(writers) => {
                let Some(schema_id) = schema_id(value) else {
                    return Pushed::Rejected(RejectReason::BadFraming, bad_framing(value));
                };
                let slot_idx = match writers.newest {
                    Some((newest, slot_idx)) if newest == schema_id => slot_idx,
                    _ => match writers.slot(kind, schema_id) {
                        Ok(slot_idx) => slot_idx,
                        Err(pushed) => return pushed,
                    },
                };
                match &mut writers.slots[slot_idx] {
                    Slot::Decoder(decoder) => decoder.push(message_idx, value),
                    Slot::Refused(why) => Err((RejectReason::IncompatibleSchema, why.clone())),
                }
            }
        };
        match pushed {
            Ok(()) => Pushed::Taken,
            Err((reason, detail)) => Pushed::Rejected(reason, detail),
        }
    }

    fn finish(&mut self, kind: Kind, messages: &MessageBatch) -> Columns {
        match self {
            Body::Json(decoder) => decoder.finish(),
            Body::Avro(writers) => {
                let framed = |message_idx: u32| messages.get(message_idx as usize).value.unwrap_or_default();
                let filled = writers.slots.iter_mut().filter_map(|slot| match slot {
                    Slot::Decoder(decoder) if decoder.n_rows() > 0 => Some(decoder.finish(framed)),
                    _ => None,
                });
                Columns::merge(kind, filled.collect())
            }
        }
    }
}

impl AvroWriters {
    fn slot(&mut self, kind: Kind, schema_id: u32) -> Result<usize, Pushed> {
        let slot_idx = match self.slot_by_id.get(&schema_id) {
            Some(&slot_idx) => slot_idx,
            None => {
                let slot = match self.registry.lookup(schema_id) {
                    Lookup::Ready(writer) => match WriterDecoder::new(kind, &writer) {
                        Ok(decoder) => Slot::Decoder(Box::new(decoder)),
                        Err(why) => Slot::Refused(why),
                    },
                    // Not kept here: the client knows which refusals are final.
                    Lookup::Refused(why) => {
                        return Err(Pushed::Rejected(RejectReason::IncompatibleSchema, why.to_string()));
                    }
                    Lookup::Missing(detail) => return Err(Pushed::Rejected(RejectReason::UnknownSchema, detail)),
                    Lookup::Pending => return Err(Pushed::Blocked(Blocked::Pending { schema_id })),
                    Lookup::Unavailable(detail) => {
                        return Err(Pushed::Blocked(Blocked::Unavailable { schema_id, detail }));
                    }
                };
                self.slots.push(slot);
                self.slot_by_id.insert(schema_id, self.slots.len() - 1);
                self.slots.len() - 1
            }
        };
        self.newest = Some((schema_id, slot_idx));
        Ok(slot_idx)
    }
}

#[inline]
fn schema_id(value: &[u8]) -> Option<u32> {
    match value {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn bad_framing(value: &[u8]) -> String {
    match value {
        [] => "the value is empty".to_owned(),
        [0, ..] => format!("the value has {} bytes, fewer than the {FRAMING_BYTES} of its framing", value.len()),
        _ => "the value does not begin with the magic byte 0 of Confluent's framing".to_owned(),
    }
}

fn event_batch(kind: Kind, messages: &MessageBatch, columns: RecordBatch, message_rows: &[u32]) -> EventBatch {
    let of_rows = || message_rows.iter().map(|&message_idx| messages.get(message_idx as usize));
    EventBatch {
        kind,
        topic: messages.topic.clone(),
        partition: messages.partition,
        columns,
        offsets: of_rows().map(|message| message.offset).collect(),
        arrival_us: of_rows().map(|message| message.arrival_us).collect(),
        keys: kind.is_reference().then(|| BinaryArray::from_iter(of_rows().map(|message| message.key))),
    }
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
