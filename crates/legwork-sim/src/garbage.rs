//! Messages that must cost only themselves: ways to spoil a good Confluent-framed Avro message.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use legwork_types::time::DAY_US;
use legwork_types::{Kind, RejectReason};
use rand::Rng;

/// Bytes of a frame in front of the body: magic and schema id.
const FRAME_BYTES: usize = 5;

/// How a message is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GarbageKind {
    /// The body alone.
    NoFraming,
    /// Another first byte than 0.
    WrongMagic,
    /// A schema id that nobody registered.
    UnknownId,
    /// The end is missing.
    Truncated,
    /// Bytes follow the body.
    TrailingBytes,
    /// Noise.
    RandomBytes,
    /// A string that claims exabytes.
    HostileLength,
    /// The body of another record under this one's schema id.
    WrongType,
    /// No value at all: a tombstone.
    Null,
    /// A value of no bytes.
    Empty,
    /// JSON in an Avro topic.
    Json,
    /// Larger than a message may be.
    Oversized,
    /// A value outside its range.
    InvalidValue,
    /// Event time more than a year ahead.
    FromFuture,
}

impl GarbageKind {
    /// Every kind.
    pub const ALL: [GarbageKind; 14] = [
        GarbageKind::NoFraming,
        GarbageKind::WrongMagic,
        GarbageKind::UnknownId,
        GarbageKind::Truncated,
        GarbageKind::TrailingBytes,
        GarbageKind::RandomBytes,
        GarbageKind::HostileLength,
        GarbageKind::WrongType,
        GarbageKind::Null,
        GarbageKind::Empty,
        GarbageKind::Json,
        GarbageKind::Oversized,
        GarbageKind::InvalidValue,
        GarbageKind::FromFuture,
    ];

    /// Reasons for which such a message may be rejected. None for [`GarbageKind::Null`], which counts as a tombstone.
    pub const fn reasons(self) -> &'static [RejectReason] {
        use RejectReason as R;
        match self {
            GarbageKind::WrongMagic | GarbageKind::RandomBytes | GarbageKind::Empty | GarbageKind::Json => {
                &[R::BadFraming]
            }
            // The body may happen to begin with 0.
            GarbageKind::NoFraming => &[R::BadFraming, R::UnknownSchema],
            GarbageKind::UnknownId => &[R::UnknownSchema],
            GarbageKind::Truncated => &[R::Truncated],
            GarbageKind::TrailingBytes => &[R::TrailingBytes],
            GarbageKind::HostileLength | GarbageKind::WrongType => &[R::Truncated, R::Malformed, R::WrongType],
            GarbageKind::Null => &[],
            GarbageKind::Oversized => &[R::Oversized],
            GarbageKind::InvalidValue => &[R::InvalidValue],
            GarbageKind::FromFuture => &[R::FromFuture],
        }
    }
}

/// The writer's schema is no Avro record that begins with a string and has an `event_time` in microseconds.
#[derive(Debug, thiserror::Error)]
#[error("garbage for {kind} needs the schema of an Avro record that begins with a string: {detail}")]
pub struct GarbageError {
    kind: Kind,
    detail: String,
}

/// Spoils messages of one topic.
#[derive(Debug)]
pub struct Garbage {
    kind: Kind,
    schema: Schema,
    schema_id: u32,
    /// From how many bytes on a message is oversized; the configuration's `kafka.message_bytes_max`.
    message_bytes_max: usize,
}

impl Garbage {
    /// For messages of `kind` that were written with `schema` (Avro JSON), registered as `schema_id`. *Errors:* when the schema is no
    /// record whose first field is a string.
    pub fn new(kind: Kind, schema: &str, schema_id: u32, message_bytes_max: usize) -> Result<Garbage, GarbageError> {
        let error = |detail: String| GarbageError { kind, detail };
        let schema = Schema::parse_str(schema).map_err(|cause| error(cause.to_string()))?;
        match &schema {
            Schema::Record(record) if matches!(record.fields.first().map(|f| &f.schema), Some(Schema::String)) => {}
            _ => return Err(error("its first field is another type".to_owned())),
        }
        Ok(Garbage { kind, schema, schema_id, message_bytes_max })
    }

    /// Spoils `good`, a framed message of this topic, in some way; the value is none for a tombstone.
    pub fn any(&self, rng: &mut impl Rng, good: &[u8]) -> (GarbageKind, Option<Vec<u8>>) {
        loop {
            let kind = GarbageKind::ALL[(rng.next_u32() as usize) % GarbageKind::ALL.len()];
            // Most kinds always work, so this ends.
            if let Some(value) = self.make(kind, rng, good) {
                return (kind, value);
            }
        }
    }

    /// Spoils `good` in this way. None where that cannot be done: [`GarbageKind::InvalidValue`] needs a field with a range, and the
    /// fields can only be reached in a message that decodes.
    #[allow(clippy::option_option, reason = "a tombstone has no value, and some garbage cannot be made")]
    pub fn make(&self, kind: GarbageKind, rng: &mut impl Rng, good: &[u8]) -> Option<Option<Vec<u8>>> {
        let frame = [&[0], self.schema_id.to_be_bytes().as_slice()].concat();
        let body = good.get(FRAME_BYTES..)?;
        let value = match kind {
            GarbageKind::NoFraming => body.to_vec(),
            GarbageKind::WrongMagic => [&[1 + (rng.next_u32() % 255) as u8], &good[1..]].concat(),
            GarbageKind::UnknownId => {
                let id = 0x7fff_0000 | (rng.next_u32() & 0xffff);
                [&[0], id.to_be_bytes().as_slice(), body].concat()
            }
            GarbageKind::Truncated if body.is_empty() => return None,
            GarbageKind::Truncated => good[..FRAME_BYTES + rng.next_u32() as usize % body.len()].to_vec(),
            GarbageKind::TrailingBytes => [good, &noise(rng, 16)].concat(),
            GarbageKind::RandomBytes => {
                let mut bytes = noise(rng, 200);
                bytes[0] |= 1;
                bytes
            }
            GarbageKind::HostileLength => [frame.as_slice(), &[0xfe; 8], &[0x7f, b'x']].concat(),
            GarbageKind::WrongType => self.other_record(rng, frame),
            GarbageKind::Null => return Some(None),
            GarbageKind::Empty => Vec::new(),
            GarbageKind::Json => format!("{{\"{}\": \"x\", \"event_time\": 1}}", self.kind.key()).into_bytes(),
            GarbageKind::Oversized => [good, &vec![0; self.message_bytes_max]].concat(),
            GarbageKind::InvalidValue => self.edited(frame, body, |fields| self.spoil_value(fields))?,
            GarbageKind::FromFuture => self.edited(frame, body, move_ahead)?,
        };
        Some(Some(value))
    }

    /// A record of a time, two doubles and a flag: the time reads as the length of the first string.
    fn other_record(&self, rng: &mut impl Rng, frame: Vec<u8>) -> Vec<u8> {
        let mut value = frame;
        let mut time = (1_767_600_000_000_000 + u64::from(rng.next_u32())) << 1;
        while time >= 0x80 {
            value.push(time as u8 | 0x80);
            time >>= 7;
        }
        value.push(time as u8);
        value.extend_from_slice(&52.5f64.to_le_bytes());
        value.extend_from_slice(&13.4f64.to_le_bytes());
        value.push(1);
        value
    }

    fn edited(
        &self,
        frame: Vec<u8>,
        mut body: &[u8],
        edit: impl FnOnce(&mut Vec<(String, Value)>) -> bool,
    ) -> Option<Vec<u8>> {
        let reader = GenericDatumReader::builder(&self.schema).build().ok()?;
        let writer = GenericDatumWriter::builder(&self.schema).build().ok()?;
        let Value::Record(mut fields) = reader.read_value(&mut body).ok()? else { return None };
        if !edit(&mut fields) {
            return None;
        }
        Some([frame, writer.write_value_to_vec(Value::Record(fields)).ok()?].concat())
    }

    /// A latitude beyond the pole, or a word that is none of those allowed.
    fn spoil_value(&self, fields: &mut [(String, Value)]) -> bool {
        let schema = self.kind.schema();
        for (name, value) in fields {
            let value = match value {
                Value::Union(_, inner) => inner.as_mut(),
                other => other,
            };
            let has_words = schema.field_with_name(name).is_ok_and(|field| field.metadata().contains_key("values"));
            match value {
                Value::Double(lat) if name == "lat" => *lat = 91.5,
                Value::String(word) if has_words => *word = "nonsense".to_owned(),
                _ => continue,
            }
            return true;
        }
        false
    }
}

fn move_ahead(fields: &mut Vec<(String, Value)>) -> bool {
    for (name, value) in fields {
        if let ("event_time", Value::TimestampMicros(time_us)) = (name.as_str(), value) {
            *time_us += 400 * DAY_US;
            return true;
        }
    }
    false
}

/// One to `n_max` random bytes.
fn noise(rng: &mut impl Rng, n_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1 + rng.next_u32() as usize % n_max];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::w1::{W1, W1_SCHEMA, W1Config};

    fn good_messages() -> Vec<Vec<u8>> {
        let config = W1Config { n_reps: 5, pings_per_rep: 20, ..W1Config::default() };
        let mut messages = Vec::new();
        W1::new(config).framed(7, &mut |_, value, _| messages.push(value.to_vec()));
        messages
    }

    /// What a strict reader says about a message.
    fn verdict(schema: &Schema, value: Option<&[u8]>) -> Option<RejectReason> {
        let value = value?;
        if value.len() > 1 << 20 {
            return Some(RejectReason::Oversized);
        }
        if value.len() < FRAME_BYTES || value[0] != 0 {
            return Some(RejectReason::BadFraming);
        }
        if value[1..FRAME_BYTES] != 7u32.to_be_bytes() {
            return Some(RejectReason::UnknownSchema);
        }
        let mut body = &value[FRAME_BYTES..];
        let reader = GenericDatumReader::builder(schema).build().unwrap();
        let Ok(Value::Record(fields)) = reader.read_value(&mut body) else { return Some(RejectReason::Truncated) };
        // apache-avro takes a branch that is missing at the very end for null; written again, the body is longer.
        let consumed = &value[FRAME_BYTES..value.len() - body.len()];
        let writer = GenericDatumWriter::builder(schema).build().unwrap();
        if writer.write_value_to_vec(Value::Record(fields.clone())).unwrap() != consumed {
            return Some(RejectReason::Truncated);
        }
        let field = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
        match (field("lat"), field("event_time")) {
            _ if !body.is_empty() => Some(RejectReason::TrailingBytes),
            (Value::Double(lat), _) if lat.abs() > 90.0 => Some(RejectReason::InvalidValue),
            (_, Value::TimestampMicros(time_us)) if *time_us > 1_790_000_000_000_000 => Some(RejectReason::FromFuture),
            _ => None,
        }
    }

    #[test]
    fn every_kind_of_garbage_is_rejected_for_one_of_its_reasons_and_good_messages_are_not() {
        let schema = Schema::parse_str(W1_SCHEMA).unwrap();
        let garbage = Garbage::new(Kind::Gps, W1_SCHEMA, 7, 1 << 20).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for good in good_messages() {
            assert_eq!(verdict(&schema, Some(&good)), None);
            for kind in GarbageKind::ALL {
                let bad = garbage.make(kind, &mut rng, &good).unwrap();
                match verdict(&schema, bad.as_deref()) {
                    Some(reason) => assert!(kind.reasons().contains(&reason), "{kind:?}: {reason}"),
                    None => assert_eq!((kind, bad), (GarbageKind::Null, None)),
                }
            }
        }
    }

    #[test]
    fn equal_seeds_spoil_alike_and_every_kind_turns_up() {
        let garbage = Garbage::new(Kind::Gps, W1_SCHEMA, 7, 1 << 10).unwrap();
        let good = good_messages().remove(0);
        let run = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..300).map(|_| garbage.any(&mut rng, &good)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_eq!(run(1).into_iter().map(|(kind, _)| kind).collect::<BTreeSet<_>>().len(), GarbageKind::ALL.len());
    }

    #[test]
    fn every_event_with_words_can_be_spoilt_and_other_schemas_are_refused() {
        for kind in Kind::events() {
            assert!(Garbage::new(kind, kind.avro(), 1, 1 << 20).is_ok(), "{kind}");
        }
        assert!(
            Garbage::new(Kind::Gps, r#"{"type":"record","name":"A","fields":[{"name":"a","type":"long"}]}"#, 1, 9)
                .is_err()
        );
        assert!(Garbage::new(Kind::Gps, r#""string""#, 1, 9).is_err());
    }
}
