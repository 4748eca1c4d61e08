//! What happens to topics while they are read, against a real Kafka: exactly their lanes end, with what to do; others go on.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use legwork_kafka::{Admin, KafkaSource};
use legwork_runtime::{ClaimPartition, StartAt};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::{Member, Target, WITHIN, send_numbered};

fn admin(target: &Target) -> AdminClient<DefaultClientContext> {
    rdkafka::ClientConfig::new().set("bootstrap.servers", &target.bootstrap).create().unwrap()
}

/// Deletes the messages of partition 0 before an offset.
fn delete_before(target: &Target, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    let deleted = block_on(admin(target).delete_records(&list, &AdminOptions::new())).unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
}

/// The other topic of a test is still read.
fn goes_on(target: &Target, member: &mut Member, topic: &str) {
    let n_before =
        member.messages.iter().filter(|((of, _), _)| **of == *topic).map(|(_, all)| all.len()).sum::<usize>();
    send_numbered(&target.producer(), topic, 0, 50);
    member.until("the other topic", |member| {
        let of_topic = member.messages.iter().filter(|((of, _), _)| **of == *topic);
        of_topic.map(|(_, all)| all.len()).sum::<usize>() >= n_before + 50
    });
    assert!(member.gone(topic).is_empty(), "{:?}", member.gone(topic));
}

#[test]
fn records_deleted_before_they_were_read_end_their_lane() {
    let Some(target) = Target::real() else { return };
    let (topic, other) = (target.topic("retention", 2, &[]), target.topic("kept", 1, &[]));
    send_numbered(&target.producer(), &topic, 0, 200);
    delete_before(&target, &topic, 20);
    let claim: ClaimPartition = std::sync::Arc::new(|facts| {
        // What a lane knows before its first message.
        let is_cut = facts.n_partitions == 2 && facts.partition == 0;
        assert_eq!(facts.begin_offset, if is_cut { 20 } else { 0 });
        StartAt::Offset(if facts.n_partitions == 2 { 5 } else { 0 })
    });
    let mut member = Member::new(KafkaSource::with_claims(target.config(&[&topic, &other]), Some(claim)).unwrap());
    member.until("the end of one", |member| member.gone(&topic).len() == 1);
    let because = member.gone(&topic)[&0].clone();
    assert!(because.contains("begins with 20 now: retention has deleted 15 offsets"), "{because}");
    assert!(because.contains(&format!("legwork lanes accept {topic}/0")), "{because}");
    let id = (topic.as_str().into(), 1);
    member.until("the other partition", |member| member.messages.get(&id).is_some_and(|all| !all.is_empty()));
    assert_eq!(member.messages[&id][0].offset, 5);
    goes_on(&target, &mut member, &other);
    member.close();
}

#[test]
fn records_deleted_in_front_of_a_lane_that_reads_end_it() {
    let Some(target) = Target::real() else { return };
    let (topic, other) = (target.topic("overtaken", 1, &[]), target.topic("kept", 1, &[]));
    send_numbered(&target.producer(), &topic, 0, 100);
    let mut member = Member::of(target.config(&[&topic, &other]));
    member.until("all", |member| member.n_messages() == 100 && member.readers.len() == 2);
    let at = member.readers.iter().position(|reader| **reader.topic() == *topic).unwrap();
    member.readers[at].set_paused(true);
    send_numbered(&target.producer(), &topic, 100, 100);
    delete_before(&target, &topic, 180);
    member.readers[at].set_paused(false);
    member.until("its end", |member| member.gone(&topic).len() == 1);
    let because = member.gone(&topic)[&0].clone();
    assert!(because.contains("offset 100 ") && because.contains("has deleted 80 offsets"), "{because}");
    assert_eq!(member.n_messages(), 100);
    goes_on(&target, &mut member, &other);
    member.close();
}

#[test]
fn a_topic_that_is_deleted_ends_its_lanes() {
    let Some(target) = Target::real() else { return };
    let (topic, other) = (target.topic("deleted", 2, &[]), target.topic("kept", 1, &[]));
    send_numbered(&target.producer(), &topic, 0, 100);
    let mut member = Member::of(target.config(&[&topic, &other]));
    member.until("all", |member| member.n_messages() == 100 && member.readers.len() == 3);
    Admin::new(&target.bootstrap, &[]).unwrap().delete_topics(&[&topic]).unwrap();
    member.until("the end of both", |member| member.gone(&topic).len() == 2);
    for (partition, because) in member.gone(&topic) {
        assert!(because.contains("was deleted: create it and fill it again"), "{because}");
        assert!(because.contains(&format!("legwork lanes accept {topic}/{partition}")), "{because}");
    }
    goes_on(&target, &mut member, &other);
    member.close();
}

/// Also where the new one is longer than what was read of the old: not one of its messages is
/// confirmed as the old one's.
#[test]
fn a_topic_that_is_made_anew_ends_its_lanes() {
    made_anew(false);
}

#[test]
fn a_topic_that_is_made_anew_while_nothing_is_fetched_ends_its_lanes_too() {
    made_anew(true);
}

fn made_anew(is_paused: bool) {
    let Some(target) = Target::real() else { return };
    let (topic, other) = (target.topic("anew", 1, &[]), target.topic("kept", 1, &[]));
    send_numbered(&target.producer(), &topic, 0, 100);
    let mut member = Member::of(target.config(&[&topic, &other]));
    member.until("all", |member| member.n_messages() == 100 && member.readers.len() == 2);
    let old_id = member.readers.iter().find(|reader| **reader.topic() == *topic).unwrap().topic_id().unwrap();
    let read_at = Instant::now();
    while !member.readers.iter().all(|reader| reader.confirm_topic(read_at)) {
        assert!(read_at.elapsed() < Duration::from_secs(2), "nobody confirms the topics");
        member.poll(Duration::from_millis(5));
    }
    if is_paused {
        member.readers.iter_mut().for_each(|reader| reader.set_paused(true));
    }
    let admin = Admin::new(&target.bootstrap, &[]).unwrap();
    admin.delete_topics(&[&topic]).unwrap();
    target.create(&topic, 1);
    let producer = target.producer();
    for number in 0..300 {
        let value = format!("new-{number}");
        producer.send(&topic, None, Some(b"k"), Some(value.as_bytes()), &[], None).unwrap();
    }
    assert_eq!(producer.flush(WITHIN), 0);
    if is_paused {
        member.readers.iter_mut().for_each(|reader| reader.set_paused(false));
    }
    let deadline = Instant::now() + WITHIN;
    let (mut gone, mut n_mixed) = (None, 0);
    let new_id = loop {
        assert!(Instant::now() < deadline, "{:?}, {:?}", member.held(), member.gone(&topic));
        let Some(at) = member.readers.iter().position(|reader| **reader.topic() == *topic) else {
            member.poll(Duration::from_millis(10));
            continue;
        };
        let id = member.readers[at].topic_id().unwrap();
        if id != old_id {
            break id;
        }
        member.read();
        let all = &member.messages[&(topic.as_str().into(), 0)];
        let is_mixed = all.iter().any(|message| message.value.as_ref().unwrap().starts_with(b"new-"));
        // What is fetched before the new id is seen may be the new one's; it is never confirmed as the old one's.
        n_mixed += usize::from(is_mixed);
        assert!(!is_mixed || !member.readers[at].confirm_topic(Instant::now()), "confirmed as the old one's");
        gone = gone.or(member.readers[at].gone_because());
        if gone.is_some() {
            break String::new();
        }
        member.poll(Duration::from_millis(10));
    };
    eprintln!("the old lane ended {gone:?}, the new one has {new_id:?}; {n_mixed} times in doubt");
    if let Some(because) = &gone {
        let is_told = ["made anew", "was deleted"].iter().any(|cause| because.contains(cause));
        assert!(is_told && because.contains(&format!("legwork lanes accept {topic}/0")), "{because}");
    }
    // Which of the two comes first is the group's choice: the end of the old lane, or a new one, which sees another id.
    assert!(gone.is_some() || (!new_id.is_empty() && new_id != old_id));
    goes_on(&target, &mut member, &other);
    member.close();
}

#[test]
fn a_topic_that_grows_ends_its_lanes_and_starts_no_others() {
    let Some(target) = Target::real() else { return };
    let (topic, other) = (target.topic("grown", 2, &[]), target.topic("kept", 1, &[]));
    send_numbered(&target.producer(), &topic, 0, 100);
    let mut member = Member::of(target.config(&[&topic, &other]));
    member.until("all", |member| member.n_messages() == 100 && member.readers.len() == 3);
    block_on(admin(&target).create_partitions(&[NewPartitions::new(&topic, 4)], &AdminOptions::new())).unwrap();
    member.until("the end of all four", |member| member.gone(&topic).len() == 4);
    for (partition, because) in member.gone(&topic) {
        assert!(
            because.contains("has 4 partitions and had 2") && because.contains("begins anew in its new lane"),
            "{because}"
        );
        assert!(because.contains(&format!("legwork lanes accept {topic}/{partition}")), "{because}");
    }
    assert_eq!(member.n_messages(), 100);
    goes_on(&target, &mut member, &other);
    member.close();
}
