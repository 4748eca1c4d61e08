//! Dead letters have a thread of their own: a broker that does not take them must not hold up a lane.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use legwork_kafka::DeadLetters;
use legwork_runtime::DeadLetterSink;
use legwork_types::Reject;
use tokio::sync::oneshot;

/// Batches that wait for the thread.
const QUEUE_MAX: usize = 256;
/// How long a lane waits for room; after that the letters stay in `rejected_events` alone, which is the truth.
const ROOM_MAX: Duration = Duration::from_secs(2);
/// How long a batch is tried.
const TRY_MAX: Duration = Duration::from_secs(30);
/// How long the end waits for acknowledgements.
const FLUSH_MAX: Duration = Duration::from_secs(2);

enum Message {
    Batch {
        topic: String,
        partition: i32,
        rejects: Vec<Reject>,
    },
    /// Answered once all batches before it were acknowledged, or given up.
    Flush(oneshot::Sender<()>),
    Stop,
}

/// The thread that sends dead letters.
pub(crate) struct Letters {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
}

struct Sink(SyncSender<Message>);

impl Letters {
    pub(crate) fn start(letters: DeadLetters) -> Result<Letters> {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || run(&letters, &messages))
            .context("starting the thread of dead letters")?;
        Ok(Letters { queue, thread })
    }

    pub(crate) fn sink(&self) -> Arc<dyn DeadLetterSink> {
        Arc::new(Sink(self.queue.clone()))
    }

    /// Sends what waits, within bounds. The lanes have ended.
    pub(crate) fn stop(self) {
        let deadline = Instant::now() + FLUSH_MAX + Duration::from_secs(1);
        while matches!(self.queue.try_send(Message::Stop), Err(TrySendError::Full(_))) && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

fn run(letters: &DeadLetters, messages: &Receiver<Message>) {
    loop {
        match messages.recv() {
            Ok(Message::Batch { topic, partition, rejects }) => send(letters, &topic, partition, &rejects),
            Ok(Message::Flush(done)) => {
                let n_left = letters.flush(TRY_MAX);
                if n_left > 0 {
                    tracing::warn!(n_left, "dead letters were not acknowledged; they are in rejected_events");
                }
                // Whoever waited may have gone.
                let _ = done.send(());
            }
            Ok(Message::Stop) | Err(_) => break,
        }
    }
    let n_left = letters.flush(FLUSH_MAX);
    if n_left > 0 {
        tracing::warn!(n_left, "dead letters were not acknowledged; they are sent again after the next start");
    }
}

fn send(letters: &DeadLetters, topic: &str, partition: i32, rejects: &[Reject]) {
    let deadline = Instant::now() + TRY_MAX;
    let mut left = rejects;
    while let Err(error) = letters.send(topic, partition, left) {
        left = &left[error.n_sent()..];
        if Instant::now() >= deadline {
            tracing::warn!(topic, partition, n_left = left.len(), "dead letters are in rejected_events only: {error}");
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

impl DeadLetterSink for Sink {
    fn send(&self, source_topic: &str, partition: i32, rejects: &[Reject]) {
        let deadline = Instant::now() + ROOM_MAX;
        let mut batch = Message::Batch { topic: source_topic.to_owned(), partition, rejects: rejects.to_vec() };
        loop {
            match self.0.try_send(batch) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    batch = back;
                    thread::sleep(Duration::from_millis(5));
                }
                Err(_) => {
                    tracing::warn!(
                        topic = source_topic,
                        partition,
                        n = rejects.len(),
                        "the dead-letter queue is full: these are in rejected_events only"
                    );
                    return;
                }
            }
        }
    }

    fn flushed(&self) -> BoxFuture<'static, ()> {
        let queue = self.0.clone();
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            let mut message = Message::Flush(done);
            while let Err(TrySendError::Full(back)) = queue.try_send(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // A thread that has ended acknowledges nothing more.
            let _ = is_done.await;
        })
    }
}
