use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt;
use legwork_types::RejectReason;

use super::*;

/// Takes letters of topics that do not begin with `bad`; acknowledges while it is told to.
#[derive(Clone, Default)]
struct Brokers {
    n_tries: Arc<AtomicUsize>,
    n_taken: Arc<AtomicUsize>,
    n_flushes: Arc<AtomicUsize>,
    is_silent: Arc<AtomicBool>,
}

impl Post for Brokers {
    fn send(&self, topic: &str, _: i32, rejects: &[Reject]) -> Result<(), DeadLetterError> {
        self.n_tries.fetch_add(1, Ordering::SeqCst);
        if topic.starts_with("bad") {
            return Err(DeadLetterError::Full { topic: topic.to_owned(), n_sent: 0, waiting: 1, cause: None });
        }
        self.n_taken.fetch_add(rejects.len(), Ordering::SeqCst);
        Ok(())
    }

    fn flush(&self, timeout: Duration) -> usize {
        self.n_flushes.fetch_add(1, Ordering::SeqCst);
        if self.is_silent.load(Ordering::SeqCst) {
            thread::sleep(timeout);
            return 1;
        }
        0
    }
}

const SHORT: Times = Times {
    room_max: Duration::from_millis(50),
    try_max: Duration::from_millis(200),
    try_paused: Duration::from_millis(1),
    again_after: Duration::from_millis(5),
    pause_min: Duration::from_secs(600),
    pause_max: Duration::from_secs(600),
};

fn reject() -> Reject {
    Reject {
        offset: 0,
        arrival_us: 0,
        reason: RejectReason::Malformed,
        detail: String::new(),
        key: None,
        payload: Vec::new(),
        schema_id: None,
    }
}

fn wait(flushed: BoxFuture<'static, ()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Ok(runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), flushed).await })?)
}

#[test]
fn a_topic_that_fails_is_given_up_once_and_others_are_not() -> Result<()> {
    let brokers = Brokers::default();
    let letters = Letters::over(brokers.clone(), SHORT)?;
    let sink = letters.sink();
    let started = Instant::now();
    for _ in 0..100 {
        sink.send("bad", 0, &[reject()]);
        sink.send("good", 0, &[reject()]);
    }
    wait(sink.flushed())?;
    assert_eq!(brokers.n_taken.load(Ordering::SeqCst), 100);
    let n_tries = brokers.n_tries.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        sink.send("bad", 0, &[reject()]);
    }
    wait(sink.flushed())?;
    assert_eq!(brokers.n_tries.load(Ordering::SeqCst), n_tries);
    // A hundred batches one after the other would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    letters.stop();
    Ok(())
}

#[test]
fn after_a_pause_one_batch_is_tried() -> Result<()> {
    let brokers = Brokers::default();
    let times = Times { pause_min: Duration::ZERO, pause_max: Duration::ZERO, ..SHORT };
    let letters = Letters::over(brokers.clone(), times)?;
    let sink = letters.sink();
    sink.send("bad", 0, &[reject()]);
    wait(sink.flushed())?;
    let n_tries = brokers.n_tries.load(Ordering::SeqCst);
    assert!(n_tries > 1);
    sink.send("bad", 0, &[reject()]);
    wait(sink.flushed())?;
    assert_eq!(brokers.n_tries.load(Ordering::SeqCst), n_tries + 1);
    letters.stop();
    Ok(())
}

#[test]
fn checkpoints_wait_for_silent_brokers_once_and_together() -> Result<()> {
    let brokers = Brokers::default();
    brokers.is_silent.store(true, Ordering::SeqCst);
    let letters = Letters::over(brokers.clone(), SHORT)?;
    let sink = letters.sink();
    let started = Instant::now();
    for _ in 0..20 {
        let lanes = (0..20).map(|_| sink.flushed());
        wait(futures::future::join_all(lanes).map(drop).boxed())?;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(brokers.n_flushes.load(Ordering::SeqCst) < 200);
    brokers.is_silent.store(false, Ordering::SeqCst);
    wait(sink.flushed())?;
    letters.stop();
    Ok(())
}

#[test]
fn pauses_grow_to_their_bound() {
    let second = Duration::from_secs(1);
    let pauses = Pauses::new(30 * second, 100 * second);
    assert!(!pauses.leaves_out("t", 1));
    assert_eq!([(); 4].map(|()| pauses.failed("t").as_secs()), [30, 60, 100, 100]);
    assert!(pauses.leaves_out("t", 3) && !pauses.leaves_out("u", 1));
    assert_eq!((pauses.succeeded("t"), pauses.succeeded("t")), (Some(3), None));
    assert_eq!(pauses.failed("t"), 30 * second);
}
