//! Against a real Kafka, where there is one.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use legwork_kafka::{Admin, KafkaConfig, Start, TimestampType};

use crate::support::{Member, Target, send_numbered, unique};
use crate::{cases, claims};

#[test]
fn each_message_once_in_order() {
    let Some(target) = Target::real() else { return };
    cases::each_message_once_in_order(&target);
}

#[test]
fn batches_keep_their_limits() {
    let Some(target) = Target::real() else { return };
    cases::batches_keep_their_limits(&target);
}

#[test]
fn readers_wake_and_pause() {
    let Some(target) = Target::real() else { return };
    cases::readers_wake_and_pause(&target);
}

#[test]
fn dead_letters_have_headers() {
    let Some(target) = Target::real() else { return };
    cases::dead_letters_have_headers(&target);
}

#[test]
fn two_members_share() {
    let Some(target) = Target::real() else { return };
    cases::two_members_share(&target, &[]);
}

#[test]
fn two_members_share_by_the_newer_protocol() {
    let Some(target) = Target::real() else { return };
    cases::two_members_share(&target, &[("group.protocol", "consumer")]);
}

#[test]
fn two_members_share_by_the_eager_protocol() {
    let Some(target) = Target::real() else { return };
    cases::two_members_share(&target, &[("partition.assignment.strategy", "range")]);
}

#[test]
fn missing_topic_is_named() {
    let Some(target) = Target::real() else { return };
    cases::missing_topic_is_named(&target);
}

#[test]
fn lost_offset_is_gone() {
    let Some(target) = Target::real() else { return };
    cases::lost_offset_is_gone(&target);
}

#[test]
fn misrouted_keys_are_found() {
    let Some(target) = Target::real() else { return };
    cases::misrouted_keys_are_found(&target);
}

#[test]
fn seek_goes_on_exactly_there() {
    let Some(target) = Target::real() else { return };
    cases::seek_goes_on_exactly_there(&target);
}

#[test]
fn claims_are_concurrent_and_may_halt() {
    let Some(target) = Target::real() else { return };
    claims::claims_are_concurrent_and_may_halt(&target);
}

#[test]
fn a_claim_that_is_overtaken_is_let_go() {
    let Some(target) = Target::real() else { return };
    claims::a_claim_that_is_overtaken_is_let_go(&target);
}

#[test]
fn a_reader_that_is_kept_too_long_gives_nothing() {
    let Some(target) = Target::real() else { return };
    claims::a_reader_that_is_kept_too_long_gives_nothing(&target);
}

#[test]
fn latest_begins_with_what_comes() {
    let Some(target) = Target::real() else { return };
    cases::latest_begins_with_what_comes(&target);
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64
}

#[test]
fn arrival_is_the_brokers_time_or_the_earlier_of_two() {
    let Some(target) = Target::real() else { return };
    let by_broker = target.topic("append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let by_producer = target.topic("create-time", 1, &[("cleanup.policy", "compact")]);
    let admin = Admin::new(&target.bootstrap, &[]).unwrap();
    assert_eq!(admin.describe(&by_broker).unwrap().timestamp_type, Some(TimestampType::LogAppendTime));
    let described = admin.describe(&by_producer).unwrap();
    assert_eq!(described.timestamp_type, Some(TimestampType::CreateTime));
    assert_eq!(described.cleanup_policy.as_deref(), Some("compact"));

    let producer = target.producer();
    let before_us = now_us();
    let (past_ms, future_ms) = (before_us / 1_000 - 3_600_000, before_us / 1_000 + 1_800_000);
    for topic in [&by_broker, &by_producer] {
        for timestamp_ms in [past_ms, future_ms] {
            producer.send(topic, Some(0), Some(b"k"), Some(b"v"), &[], Some(timestamp_ms)).unwrap();
        }
    }
    assert_eq!(producer.flush(Duration::from_secs(20)), 0, "{:?}", producer.last_error());
    assert_eq!(producer.n_failed(), 0, "{:?}", producer.last_error());
    let mut member = Member::of(target.config(&[&by_broker, &by_producer]));
    member.until("all", |member| member.n_messages() == 4);
    let arrivals = |topic: &String| -> Vec<i64> {
        member.messages[&(topic.as_str().into(), 0)].iter().map(|message| message.arrival_us).collect()
    };
    let fresh = (before_us - 1_000)..=now_us();
    assert!(arrivals(&by_broker).iter().all(|arrival_us| fresh.contains(arrival_us)), "{:?}", arrivals(&by_broker));
    let by_producer = arrivals(&by_producer);
    assert_eq!(by_producer[0], past_ms * 1_000);
    assert!(fresh.contains(&by_producer[1]), "{by_producer:?}");
    member.close();
}

#[test]
fn a_start_by_time_begins_with_the_first_message_at_or_after_it() {
    let Some(target) = Target::real() else { return };
    let topic = target.topic("by-time", 2, &[]);
    let producer = target.producer();
    let first_ms = now_us() / 1_000 - 100_000;
    for second in 0..10 {
        producer.send(&topic, Some(0), None, Some(b"v"), &[], Some(first_ms + second * 1_000)).unwrap();
    }
    assert_eq!(producer.flush(Duration::from_secs(20)), 0);
    let start = Start::Time((first_ms + 6_500) * 1_000);
    let mut member = Member::of(KafkaConfig { start, ..target.config(&[&topic]) });
    member.until("the later ones", |member| member.n_messages() >= 3);
    let offsets: Vec<i64> = member.messages.values().flatten().map(|message| message.offset).collect();
    assert_eq!(offsets, [7, 8, 9]);
    member.close();
}

#[test]
fn topics_are_made_listed_and_deleted() {
    let Some(target) = Target::real() else { return };
    let topic = target.topic("admin", 3, &[("retention.ms", "3600000")]);
    let admin = Admin::new(&target.bootstrap, &[]).unwrap();
    assert!(admin.list().unwrap().contains(&(topic.clone(), 3)));
    // Making it again changes nothing.
    admin.create_topics(&[legwork_kafka::TopicSpec::new(&topic, 5)]).unwrap();
    let producer = target.producer();
    producer.send(&topic, Some(2), None, Some(b"v"), &[], None).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(20)), 0);
    let offsets = admin.offsets(&topic).unwrap();
    assert_eq!(offsets.iter().map(|offsets| offsets.high).collect::<Vec<_>>(), [0, 0, 1]);
    admin.delete_topics(&[&topic]).unwrap();
    assert!(matches!(admin.offsets("no-such-topic"), Err(legwork_kafka::KafkaError::NoTopic { .. })));
}

/// A broker of this test's own, gone with it.
struct OwnBroker(PathBuf);

impl OwnBroker {
    fn run(&self, arguments: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/kafka");
        let output = Command::new(script).args(arguments).arg("--dir").arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.run(&["down", "--wipe"]);
    }
}

#[test]
fn a_broker_that_is_killed_is_named_and_nothing_is_lost_or_read_twice_when_it_is_back() {
    if Target::real().is_none() {
        return;
    }
    let broker = OwnBroker(std::env::temp_dir().join(unique("legwork-kafka")));
    let target = Target { bootstrap: broker.run(&["up"]), embedded: None };
    let topic = target.topic("killed", 2, &[]);
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 1_000);
    let mut member = Member::of(target.config(&[&topic]));
    member.until("before the kill", |member| member.n_messages() == 1_000);
    broker.run(&["kill"]);
    let hop = format!("broker {}", target.bootstrap);
    member.until("the trouble", |member| member.troubles.iter().any(|(of, _)| *of == hop));
    // Sent into the outage, delivered after it.
    for number in 1_000..1_100 {
        producer.send(&topic, None, Some(b"k"), Some(format!("{number}").as_bytes()), &[], None).unwrap();
    }
    broker.run(&["up"]);
    member.until("the recovery", |member| member.recovered.contains(&hop));
    assert_eq!(producer.flush(Duration::from_secs(30)), 0, "{:?}", producer.last_error());
    member.until("after the kill", |member| member.n_messages() >= 1_100);
    for messages in member.messages.values() {
        let offsets: Vec<i64> = messages.iter().map(|message| message.offset).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
    }
    member.close();
}
