//! What must hold on every broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use legwork_kafka::{Admin, DeadLetters, KafkaConfig, KafkaSource, Partitioner, Start};
use legwork_runtime::{BatchLimit, ClaimPartition, LogSource, ReadOutcome, StartAt};
use legwork_types::{MessageBatch, Reject, RejectReason};

use crate::support::{LIMIT, Member, Target, send_numbered, unique};

/// Every message once, in the order of its partition, in the partition of its key; offsets and ends right.
pub(crate) fn each_message_once_in_order(target: &Target) {
    const N: usize = 20_000;
    let topic = target.topic("pings", 4, &[]);
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, N);
    assert_eq!(producer.n_delivered(), N as u64);

    let mut member = Member::of(target.config(&[&topic]));
    member.until("all messages", |member| member.n_messages() >= N);
    assert_eq!(member.n_messages(), N);
    let mut values = BTreeSet::new();
    for ((_, partition), messages) in &member.messages {
        for (message_idx, message) in messages.iter().enumerate() {
            assert_eq!(message.offset, message_idx as i64);
            let key = message.key.as_deref().unwrap();
            assert_eq!(Partitioner::Murmur2.partition(key, 4), Some(*partition));
            values.insert(message.value.clone().unwrap());
        }
    }
    assert_eq!(values.len(), N);
    for reader in &member.readers {
        let n = member.messages[&(reader.topic().clone(), reader.partition())].len() as i64;
        assert_eq!(reader.end_offset(), Some(n));
        assert_eq!(reader.n_partitions(), 4);
    }

    // And what comes while it reads.
    send_numbered(&producer, &topic, N, 100);
    member.until("later messages", |member| member.n_messages() >= N + 100);
    let offsets: Vec<_> = member
        .messages
        .iter()
        .map(|((topic, partition), messages)| (topic.clone(), *partition, messages.len() as i64))
        .collect();
    member.source.commit(&offsets);
    member.poll(Duration::from_millis(200));
    member.close();
}

/// Batches stay within their limits, and a limit loses nothing.
pub(crate) fn batches_keep_their_limits(target: &Target) {
    let topic = target.topic("limits", 1, &[]);
    let producer = target.producer();
    for n_bytes in [10, 5_000, 10, 10, 10, 10, 10] {
        producer.send(&topic, Some(0), None, Some(&vec![b'x'; n_bytes]), &[], None).unwrap();
    }
    producer.send(&topic, Some(0), Some(b"tombstone"), None, &[], None).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(20)), 0);
    let mut member = Member::of(target.config(&[&topic]));
    member.until_assigned(1);
    let mut sizes = Vec::new();
    let mut n_tombstones = 0;
    let deadline = std::time::Instant::now() + crate::support::WITHIN;
    while sizes.iter().map(|(n, _)| n).sum::<usize>() < 8 {
        assert!(std::time::Instant::now() < deadline, "{sizes:?}");
        member.poll(Duration::from_millis(5));
        let reader = &mut member.readers[0];
        let mut batch = MessageBatch::new(reader.topic().clone(), 0);
        let limit = BatchLimit { n_messages_max: 3, n_bytes_max: 100 };
        if reader.read(&mut batch, limit) != ReadOutcome::Messages(0) {
            n_tombstones += batch.iter().filter(|message| message.value.is_none()).count();
            sizes.push((batch.len(), batch.n_bytes()));
        }
    }
    // The large message comes alone.
    assert!(sizes.contains(&(1, 5_000)), "{sizes:?}");
    assert!(sizes.iter().all(|(n, bytes)| *n <= 3 && (*bytes <= 100 || *n == 1)), "{sizes:?}");
    assert_eq!(n_tombstones, 1);
    member.close();
}

/// `wake` is called when messages come into an empty queue; a paused partition hands out nothing.
pub(crate) fn readers_wake_and_pause(target: &Target) {
    let topic = target.topic("wake", 1, &[]);
    let producer = target.producer();
    let mut member = Member::of(target.config(&[&topic]));
    member.until_assigned(1);
    let n_wakes = Arc::new(AtomicUsize::new(0));
    let counted = n_wakes.clone();
    member.readers[0].on_ready(Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    // It is called once to begin with, and then a lane reads until nothing is left.
    assert!(n_wakes.load(Ordering::SeqCst) >= 1);
    while member.read() > 0 {}
    let at_once = n_wakes.load(Ordering::SeqCst);
    send_numbered(&producer, &topic, 0, 1);
    let deadline = std::time::Instant::now() + crate::support::WITHIN;
    while n_wakes.load(Ordering::SeqCst) == at_once {
        assert!(std::time::Instant::now() < deadline, "nobody was woken");
        member.poll(Duration::from_millis(10));
    }
    member.until("the first message", |member| member.n_messages() == 1);

    member.readers[0].set_paused(true);
    send_numbered(&producer, &topic, 1, 10);
    for _ in 0..30 {
        member.poll(Duration::from_millis(20));
        member.read();
    }
    assert_eq!(member.n_messages(), 1);
    member.readers[0].set_paused(false);
    member.until("messages after the pause", |member| member.n_messages() == 11);
    let offsets: Vec<i64> = member.messages.values().flatten().map(|message| message.offset).collect();
    assert_eq!(offsets, (0..11).collect::<Vec<_>>());
    member.close();
}

/// Dead letters arrive with their bytes, key and headers.
pub(crate) fn dead_letters_have_headers(target: &Target) {
    let topic = target.topic("rejecting", 1, &[]);
    let letters = DeadLetters::new(&target.config(&[]), "{topic}.dlq").unwrap();
    let reject = |offset: i64, schema_id| Reject {
        offset,
        arrival_us: 1_700_000_000_000_000,
        reason: RejectReason::Truncated,
        detail: "body ended at byte 3".to_owned(),
        schema_id,
        key: Some(b"device-1".to_vec()),
        payload: vec![0, 0, 0, 0, 7, 9],
    };
    letters.send(&topic, 3, &[reject(41, Some(7)), reject(42, None)]).unwrap();
    assert_eq!(letters.flush(Duration::from_secs(30)), 0, "{:?}", letters.last_error());
    assert_eq!(letters.n_unacknowledged(), 0);
    assert_eq!(letters.n_delivered(), 2);

    let name = letters.topic_of(&topic);
    assert_eq!(name, format!("{topic}.dlq"));
    let mut received = crate::support::with_headers(&target.bootstrap, &name, 2);
    received.sort_by_key(|(headers, ..)| headers["legwork.offset"].clone());
    let (headers, key, value) = &received[0];
    assert_eq!(key.as_deref(), Some(&b"device-1"[..]));
    assert_eq!(value.as_deref(), Some(&[0, 0, 0, 0, 7, 9][..]));
    let expected = [
        ("legwork.reason", "truncated"),
        ("legwork.detail", "body ended at byte 3"),
        ("legwork.topic", &topic),
        ("legwork.partition", "3"),
        ("legwork.offset", "41"),
        ("legwork.schema_id", "7"),
    ];
    assert_eq!(headers.len(), expected.len());
    for (header, value) in expected {
        assert_eq!(headers[header], value, "{header}");
    }
    assert!(!received[1].0.contains_key("legwork.schema_id"));
}

/// Two members of a group share its partitions; what goes from one to the other waits for the first to let go; none is lost.
pub(crate) fn two_members_share(target: &Target, options: &[(&str, &str)]) {
    let topic = target.topic("shared", 4, &[]);
    let mut config = target.config(&[&topic]);
    config.options.extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 400);
    let mut first = Member::of(config.clone());
    first.until("the first member has all", |member| member.readers.len() == 4 && member.n_messages() == 400);

    let mut second = Member::of(config);
    let deadline = std::time::Instant::now() + crate::support::WITHIN;
    while first.readers.len() != 2 || second.readers.len() != 2 {
        assert!(std::time::Instant::now() < deadline, "{} and {}", first.readers.len(), second.readers.len());
        first.poll(Duration::from_millis(10));
        first.read();
        second.poll(Duration::from_millis(10));
        second.read();
    }
    assert!(first.n_revocations >= 1);
    let of = |member: &Member| member.readers.iter().map(|reader| reader.partition()).collect::<BTreeSet<_>>();
    assert!(of(&first).is_disjoint(&of(&second)));

    // The second starts its partitions anew, since nothing is checkpointed; the first goes on where it was.
    send_numbered(&producer, &topic, 400, 400);
    let kept: Vec<(Arc<str>, i32)> =
        first.readers.iter().map(|reader| (reader.topic().clone(), reader.partition())).collect();
    let moved: Vec<(Arc<str>, i32)> =
        second.readers.iter().map(|reader| (reader.topic().clone(), reader.partition())).collect();
    let held = |member: &Member, of: &[(Arc<str>, i32)]| {
        of.iter().map(|id| member.messages.get(id).map_or(0, Vec::len)).sum::<usize>()
    };
    first.until("the first goes on", |_| true);
    let deadline = std::time::Instant::now() + crate::support::WITHIN;
    while held(&first, &kept) + held(&second, &moved) < 800 {
        assert!(std::time::Instant::now() < deadline, "{} and {}", held(&first, &kept), held(&second, &moved));
        for member in [&mut first, &mut second] {
            member.read();
            member.poll(Duration::from_millis(5));
        }
    }
    for (member, ids) in [(&first, &kept), (&second, &moved)] {
        for id in ids {
            let offsets: Vec<i64> = member.messages[id].iter().map(|message| message.offset).collect();
            assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
        }
    }
    // A member that leaves hands its partitions to the other.
    second.close();
    first.until("the first has all again", |member| member.readers.len() == 4);
    first.close();
}

/// A missing topic is named; the others are read; once it is there it is read too.
pub(crate) fn missing_topic_is_named(target: &Target) {
    let there = target.topic("there", 1, &[]);
    let missing = unique("missing");
    let producer = target.producer();
    send_numbered(&producer, &there, 0, 10);
    let mut member = Member::of(target.config(&[&there, &missing]));
    let hop = format!("topic {missing}");
    member.until("the trouble and the messages", |member| {
        member.n_messages() == 10 && member.troubles.iter().any(|(of, _)| *of == hop)
    });
    let (_, message) = member.troubles.iter().find(|(of, _)| *of == hop).unwrap();
    assert!(message.contains("does not exist: create it or change topics"), "{message}");
    target.create(&missing, 2);
    send_numbered(&producer, &missing, 0, 10);
    member.until("the new topic", |member| member.n_messages() == 20 && member.recovered.contains(&hop));
    member.close();
}

/// An offset that is not there halts that partition, with a way out.
pub(crate) fn lost_offset_is_gone(target: &Target) {
    let topic = target.topic("lost", 2, &[]);
    send_numbered(&target.producer(), &topic, 0, 50);
    let claim: ClaimPartition = Arc::new(|facts| StartAt::Offset(if facts.partition == 0 { 1_000_000 } else { 3 }));
    let source = KafkaSource::with_claims(target.config(&[&topic]), Some(claim)).unwrap();
    let mut member = Member::new(source);
    member.until_assigned(2);
    let deadline = std::time::Instant::now() + crate::support::WITHIN;
    loop {
        assert!(std::time::Instant::now() < deadline, "the partition is not gone");
        member.poll(Duration::from_millis(10));
        let reader = member.readers.iter_mut().find(|reader| reader.partition() == 0).unwrap();
        let mut batch = MessageBatch::new(reader.topic().clone(), 0);
        if reader.read(&mut batch, LIMIT) == ReadOutcome::Gone {
            let because = reader.gone_because().unwrap();
            assert!(because.contains("offset 1000000") && because.contains("kafka.start"), "{because}");
            assert!(because.contains(&format!("legwork lanes accept {topic}/0")), "{because}");
            reader.seek(0);
            assert_eq!(reader.read(&mut batch, LIMIT), ReadOutcome::Gone);
            break;
        }
    }
    // The other goes on, from the offset it was given.
    member.until("the other partition", |member| {
        member.messages.iter().any(|((_, partition), messages)| *partition == 1 && !messages.is_empty())
    });
    let first = member.messages.iter().find(|((_, partition), _)| *partition == 1).unwrap().1[0].offset;
    assert_eq!(first, 3);
    member.close();
}

/// `latest` begins with what comes after.
pub(crate) fn latest_begins_with_what_comes(target: &Target) {
    let topic = target.topic("latest", 1, &[]);
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 10);
    let mut member = Member::of(KafkaConfig { start: Start::Latest, ..target.config(&[&topic]) });
    member.until_assigned(1);
    send_numbered(&producer, &topic, 10, 5);
    member.until("the new ones", |member| member.n_messages() >= 5);
    let offsets: Vec<i64> = member.messages.values().flatten().map(|message| message.offset).collect();
    assert_eq!(offsets, [10, 11, 12, 13, 14]);
    member.close();
}

pub(crate) fn member_end(member: &Member, partition: i32) -> i64 {
    member.readers.iter().find(|reader| reader.partition() == partition).unwrap().end_offset().unwrap()
}

/// After a seek the next message is the first at or after that offset, whatever was fetched before.
pub(crate) fn seek_goes_on_exactly_there(target: &Target) {
    const N: usize = 30_000;
    let topic = target.topic("seek", 1, &[]);
    send_numbered(&target.producer(), &topic, 0, N);
    let mut member = Member::of(target.config(&[&topic]));
    member.until("some", |member| member.n_messages() >= 3_000);
    let id = (Arc::from(topic.as_str()), 0);
    // Back, on, to the same place, to the end, and back again: each with messages fetched and not read, each several times.
    for (round, from) in [0, 20_000, 20_000, 7, N as i64 - 1, 12_345, 1].into_iter().enumerate() {
        // Leaves some in librdkafka's queue and some taken out of it.
        let mut batch = MessageBatch::new(topic.as_str().into(), 0);
        let limit = BatchLimit { n_messages_max: 1_000, n_bytes_max: 1_000 };
        member.readers[0].read(&mut batch, limit);
        member.readers[0].seek(from);
        member.messages.remove(&id);
        let n_wanted = 100.min(N - from as usize);
        member.until("after a seek", |member| member.n_messages() >= n_wanted);
        let messages = &member.messages[&id];
        for (message_idx, message) in messages.iter().enumerate() {
            assert_eq!(message.offset, from + message_idx as i64, "round {round}");
            assert_eq!(message.value.as_deref().unwrap(), format!("value-{}", message.offset).as_bytes());
        }
    }
    // And to the end of it all.
    member.until("the rest", |member| member.messages[&id].last().unwrap().offset == N as i64 - 1);
    let offsets: Vec<i64> = member.messages[&id].iter().map(|message| message.offset).collect();
    assert_eq!(offsets, (1..N as i64).collect::<Vec<_>>());
    member.close();
}

/// A sample of a topic's messages tells which keys lie where they do not belong.
pub(crate) fn misrouted_keys_are_found(target: &Target) {
    let topic = target.topic("routing", 4, &[]);
    let admin = Admin::new(&target.bootstrap, &[]).unwrap();
    assert_eq!(admin.routing(&topic, Partitioner::Murmur2).unwrap().n_sampled, 0);
    let producer = target.producer();
    // More than is looked at: the newest count.
    send_numbered(&producer, &topic, 0, 8_000);
    let well = admin.routing(&topic, Partitioner::Murmur2).unwrap();
    assert!((2_000..=4_000).contains(&well.n_sampled) && well.n_misrouted == 0 && well.n_without_key == 0, "{well:?}");
    let belongs = Partitioner::Murmur2.partition(b"stray", 4).unwrap();
    let lies = (belongs + 1) % 4;
    producer.send(&topic, Some(lies), Some(b"stray"), Some(b"v"), &[], None).unwrap();
    producer.send(&topic, Some(lies), None, Some(b"v"), &[], None).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(20)), 0);
    let found = admin.routing(&topic, Partitioner::Murmur2).unwrap();
    assert_eq!((found.n_misrouted, found.n_without_key, found.example), (1, 1, Some((lies, belongs))));
    assert!(admin.routing(&topic, Partitioner::Crc32).unwrap().n_misrouted > 100);
}
