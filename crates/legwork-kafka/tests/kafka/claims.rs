//! How partitions are claimed and let go, on every broker.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use legwork_kafka::KafkaSource;
use legwork_runtime::{ClaimPartition, LogSource, PartitionFacts, ReadOutcome, SourceEvent, StartAt};
use legwork_types::MessageBatch;

use crate::cases::member_end;
use crate::support::{LIMIT, Member, Target, send_numbered};

/// Claims run at the same time, each with what is known of its partition; one that is slow holds up no other, one that halts shows.
pub(crate) fn claims_are_concurrent_and_may_halt(target: &Target) {
    let topic = target.topic("claims", 8, &[]);
    send_numbered(&target.producer(), &topic, 0, 800);
    let seen: Arc<Mutex<Vec<PartitionFacts>>> = Arc::default();
    let (n_running, n_running_max) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let slow = Arc::new(AtomicBool::new(true));
    let claim: ClaimPartition = {
        let (seen, n_running, n_running_max) = (seen.clone(), n_running.clone(), n_running_max.clone());
        let slow = slow.clone();
        Arc::new(move |facts| {
            n_running_max.fetch_max(n_running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let since = Instant::now();
            // All are inside before the first leaves.
            while n_running_max.load(Ordering::SeqCst) < 8 && since.elapsed() < crate::support::WITHIN {
                std::thread::sleep(Duration::from_millis(1));
            }
            while facts.partition == 3 && slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            n_running.fetch_sub(1, Ordering::SeqCst);
            seen.lock().unwrap().push(facts.clone());
            match facts.partition {
                5 => StartAt::Halt("lane is ahead of the lake: run legwork check".to_owned()),
                6 => StartAt::Offset(facts.end_offset - 1),
                7 => panic!("a defect"),
                _ => StartAt::Default,
            }
        })
    };
    let mut member = Member::new(KafkaSource::with_claims(target.config(&[&topic]), Some(claim)).unwrap());
    let of = |partition: i32| (Arc::<str>::from(topic.as_str()), partition);
    let held = |member: &Member, partition| member.messages.get(&of(partition)).map_or(0, Vec::len) as i64;
    member.until("all but the slow one", |member| {
        member.readers.len() == 7 && [0, 1, 2, 4].iter().all(|p| held(member, *p) == member_end(member, *p))
    });
    assert_eq!(n_running_max.load(Ordering::SeqCst), 8);
    slow.store(false, Ordering::SeqCst);
    member.until("the slow one", |member| {
        member.readers.len() == 8 && held(member, 3) == member_end(member, 3) && held(member, 6) == 1
    });
    for (partition, text) in [(5, "ahead of the lake: run legwork check"), (7, "panic")] {
        let reader = member.readers.iter_mut().find(|reader| reader.partition() == partition).unwrap();
        let mut batch = MessageBatch::new(topic.as_str().into(), partition);
        assert_eq!(reader.read(&mut batch, LIMIT), ReadOutcome::Gone);
        assert!(reader.gone_because().unwrap().contains(text));
        assert_eq!(held(&member, partition), 0);
    }
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_by_key(|facts| facts.partition);
    for facts in &seen {
        let reader = member.readers.iter().find(|reader| reader.partition() == facts.partition).unwrap();
        assert_eq!((&*facts.topic, facts.begin_offset, facts.n_partitions), (topic.as_str(), 0, 8));
        assert_eq!(Some(facts.end_offset), reader.end_offset());
        assert_eq!(reader.begin_offset(), Some(0));
        assert_eq!(reader.topic_id(), facts.topic_id);
        assert!(facts.topic_id.as_ref().is_some_and(|id| id.len() == 22), "{facts:?}");
    }
    assert_eq!(seen.iter().map(|facts| facts.end_offset).sum::<i64>(), 800);
    member.close();
}

/// A partition that is taken away while it is being claimed is told as taken away once its claim has ended, and its next claim begins only
/// then; the other member gets it.
pub(crate) fn a_claim_that_is_overtaken_is_let_go(target: &Target) {
    let topic = target.topic("overtaken", 2, &[]);
    let config = target.config(&[&topic]);
    send_numbered(&target.producer(), &topic, 0, 100);
    let n_begun = Arc::new(AtomicUsize::new(0));
    let (may_end, n_ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let claim: ClaimPartition = {
        let (may_end, n_ended, n_begun) = (may_end.clone(), n_ended.clone(), n_begun.clone());
        Arc::new(move |_| {
            n_begun.fetch_add(1, Ordering::SeqCst);
            while !may_end.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            n_ended.fetch_add(1, Ordering::SeqCst);
            StartAt::Default
        })
    };
    let mut first = KafkaSource::with_claims(config.clone(), Some(claim)).unwrap();
    let mut second = Member::of(config);
    let (mut n_assigned, mut revoked) = (0, Vec::new());
    let deadline = Instant::now() + crate::support::WITHIN;
    let mut started = None;
    while second.n_messages() == 0 || n_assigned + revoked.len() < 2 {
        assert!(Instant::now() < deadline, "{n_assigned} assigned, {revoked:?} revoked, {:?}", second.troubles);
        let polled = Instant::now();
        for event in first.poll(Duration::from_millis(20)) {
            match event {
                SourceEvent::Assigned(readers) => n_assigned += readers.len(),
                SourceEvent::Revoked { partitions, done, .. } => {
                    assert!(n_ended.load(Ordering::SeqCst) >= partitions.len(), "before its claim has ended");
                    revoked.extend(partitions);
                    done();
                }
                _ => {}
            }
        }
        assert!(polled.elapsed() < Duration::from_secs(2), "the poll waited: {:?}", polled.elapsed());
        // The second joins while the first claims both, and is given one of them.
        if n_begun.load(Ordering::SeqCst) >= 2 {
            let started = started.get_or_insert_with(Instant::now);
            second.read();
            second.poll(Duration::from_millis(10));
            if started.elapsed() > Duration::from_secs(10) {
                may_end.store(true, Ordering::SeqCst);
            }
        }
    }
    assert_eq!((n_assigned, revoked.len()), (1, 1));
    first.close();
    second.close();
}

/// A reader that outlives its partition gives nothing, and takes nothing from the reader that comes after it.
pub(crate) fn a_reader_that_is_kept_too_long_gives_nothing(target: &Target) {
    let topic = target.topic("kept", 2, &[]);
    let config = target.config(&[&topic]);
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 20_000);
    let mut first = Member::of(config.clone());
    // Fetched, and hardly read.
    first.until_assigned(2);
    first.until("some", |member| member.n_messages() > 0);
    let mut second = Member::of(config);
    let mut stale = Vec::new();
    let deadline = Instant::now() + crate::support::WITHIN;
    while second.readers.is_empty() {
        assert!(Instant::now() < deadline, "the partition was not let go");
        for event in first.source.poll(Duration::from_millis(10)) {
            if let SourceEvent::Revoked { partitions, done, lost } = event {
                assert!(!lost);
                let (gone, kept) = std::mem::take(&mut first.readers)
                    .into_iter()
                    .partition(|reader| partitions.contains(&(reader.topic().clone(), reader.partition())));
                first.readers = kept;
                stale = gone;
                done();
            }
        }
        second.poll(Duration::from_millis(10));
    }
    assert_eq!(stale.len(), 1);
    let id = (stale[0].topic().clone(), stale[0].partition());
    second.close();
    // It comes back, and the old reader tries to read first, and to move it.
    first.messages.clear();
    while first.readers.len() < 2 {
        assert!(Instant::now() < deadline, "the partition did not come back");
        first.poll(Duration::from_millis(10));
        stale[0].seek(5);
        let mut batch = MessageBatch::new(id.0.clone(), id.1);
        assert_eq!(stale[0].read(&mut batch, LIMIT), ReadOutcome::Messages(0));
    }
    let end = member_end(&first, id.1);
    let n_wakes = Arc::new(AtomicUsize::new(0));
    let counted = n_wakes.clone();
    let back = first.readers.iter_mut().find(|reader| reader.partition() == id.1).unwrap();
    back.on_ready(Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let mut batch = MessageBatch::new(id.0.clone(), id.1);
    assert_eq!(stale[0].read(&mut batch, LIMIT), ReadOutcome::Messages(0));
    // Dropping it takes no callback from the other.
    drop(stale);
    first.until("all of it again", |member| member.messages.get(&id).map_or(0, Vec::len) as i64 >= end);
    let offsets: Vec<i64> = first.messages[&id].iter().map(|message| message.offset).collect();
    assert_eq!(offsets, (0..end).collect::<Vec<_>>());
    let n_before = n_wakes.load(Ordering::SeqCst);
    while n_wakes.load(Ordering::SeqCst) == n_before {
        assert!(Instant::now() < deadline, "nobody was woken");
        producer.send(&topic, Some(id.1), None, Some(b"v"), &[], None).unwrap();
        producer.flush(Duration::from_secs(5));
        first.poll(Duration::from_millis(50));
        first.read();
    }
    first.close();
}
