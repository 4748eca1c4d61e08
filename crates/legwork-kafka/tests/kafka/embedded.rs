//! Against the embedded broker.

use std::time::{Duration, Instant};

use legwork_kafka::KafkaConfig;
use legwork_runtime::LogSource;

use crate::support::{Member, Target, send_numbered};
use crate::{cases, claims};

#[test]
fn each_message_once_in_order() {
    cases::each_message_once_in_order(&Target::embedded());
}

#[test]
fn batches_keep_their_limits() {
    cases::batches_keep_their_limits(&Target::embedded());
}

#[test]
fn readers_wake_and_pause() {
    cases::readers_wake_and_pause(&Target::embedded());
}

#[test]
fn dead_letters_have_headers() {
    cases::dead_letters_have_headers(&Target::embedded());
}

#[test]
fn two_members_share() {
    cases::two_members_share(&Target::embedded(), &[]);
}

#[test]
fn missing_topic_is_named() {
    cases::missing_topic_is_named(&Target::embedded());
}

#[test]
fn lost_offset_is_gone() {
    cases::lost_offset_is_gone(&Target::embedded());
}

#[test]
fn latest_begins_with_what_comes() {
    cases::latest_begins_with_what_comes(&Target::embedded());
}

#[test]
fn misrouted_keys_are_found() {
    cases::misrouted_keys_are_found(&Target::embedded());
}

#[test]
fn seek_goes_on_exactly_there() {
    cases::seek_goes_on_exactly_there(&Target::embedded());
}

#[test]
fn claims_are_concurrent_and_may_halt() {
    claims::claims_are_concurrent_and_may_halt(&Target::embedded());
}

#[test]
fn a_claim_that_is_overtaken_is_let_go() {
    claims::a_claim_that_is_overtaken_is_let_go(&Target::embedded());
}

#[test]
fn a_reader_that_is_kept_too_long_gives_nothing() {
    claims::a_reader_that_is_kept_too_long_gives_nothing(&Target::embedded());
}

#[test]
fn a_broker_that_is_lost_is_named_and_reading_goes_on_when_it_is_back() {
    let target = Target::embedded();
    let topic = target.topic("outage", 2, &[]);
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 100);
    let mut member = Member::of(target.config(&[&topic]));
    member.until("before the outage", |member| member.n_messages() == 100);
    assert!(member.troubles.is_empty(), "{:?}", member.troubles);

    let broker = target.embedded.as_ref().unwrap();
    broker.down().unwrap();
    let hop = format!("broker {}", target.bootstrap);
    member.until("the trouble", |member| member.troubles.iter().any(|(of, _)| *of == hop));
    let message = &member.troubles[0].1;
    assert!(message.starts_with(&format!("{hop} does not answer: ")), "{message}");
    broker.up().unwrap();
    member.until("the recovery", |member| member.recovered.contains(&hop));
    send_numbered(&producer, &topic, 100, 100);
    member.until("after the outage", |member| member.n_messages() == 200);
    member.close();
}

#[test]
fn a_broker_that_is_down_at_the_start_is_named_and_closing_is_quick() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bootstrap = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = KafkaConfig { bootstrap: bootstrap.clone(), topics: vec!["any".to_owned()], ..KafkaConfig::default() };
    let mut member = Member::of(config);
    member.until("the trouble", |member| !member.troubles.is_empty());
    let (hop, message) = &member.troubles[0];
    assert_eq!(*hop, format!("broker {bootstrap}"));
    assert!(message.contains("does not answer") && message.contains("Connection refused"), "{message}");
    let started = Instant::now();
    member.close();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

#[test]
fn closing_while_the_broker_is_lost_is_quick() {
    let target = Target::embedded();
    let topic = target.topic("closing", 2, &[]);
    let mut member = Member::of(target.config(&[&topic]));
    member.until_assigned(2);
    target.embedded.as_ref().unwrap().down().unwrap();
    member.until("the trouble", |member| !member.troubles.is_empty());
    let started = Instant::now();
    member.close();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn an_unanswered_revocation_is_let_go_when_its_done_is_dropped() {
    let target = Target::embedded();
    let topic = target.topic("dropped", 2, &[]);
    let config = target.config(&[&topic]);
    let mut first = Member::of(config.clone());
    first.until_assigned(2);
    let mut second = Member::of(config);
    let deadline = Instant::now() + crate::support::WITHIN;
    while second.readers.is_empty() {
        assert!(Instant::now() < deadline, "the partition was not let go");
        // Events are dropped with their `done`, readers stay.
        drop(first.source.poll(Duration::from_millis(10)));
        second.poll(Duration::from_millis(10));
    }
    second.close();
    first.close();
}

#[test]
fn wrong_options_show_at_once_and_secrets_do_not_show() {
    let options = vec![("fetch.wait.max.millis".to_owned(), "5".to_owned())];
    let config = KafkaConfig { options, ..KafkaConfig::default() };
    let error = legwork_kafka::KafkaSource::new(config).unwrap_err().to_string();
    assert!(error.contains("fetch.wait.max.millis"), "{error}");
}
