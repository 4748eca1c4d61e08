//! Dead letters have a thread of their own: a broker that does not take them must not hold up a lane. Once a topic has failed for long, its
//! letters are left in `rejected_events` alone, which is the truth, and it is tried again now and then.

mod pause;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use legwork_kafka::{DeadLetterError, DeadLetters};
use legwork_runtime::DeadLetterSink;
use legwork_types::Reject;
use tokio::sync::oneshot;

use self::pause::Pauses;

/// Batches that wait for the thread.
const QUEUE_MAX: usize = 256;
/// How long the end waits for acknowledgements.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// What pauses when brokers acknowledge nothing, beside the topics.
const ACKNOWLEDGEMENTS: &str = "";

/// Bounds in time.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// How long a lane waits for room in the queue.
    room_max: Duration,
    /// How long a batch is tried, and acknowledgements are waited for.
    try_max: Duration,
    /// How long acknowledgements are waited for while they do not come.
    try_paused: Duration,
    /// Between two tries.
    again_after: Duration,
    /// How long a topic that failed is left alone; twice as long each time.
    pause_min: Duration,
    pause_max: Duration,
}

const TIMES: Times = Times {
    room_max: Duration::from_secs(2),
    try_max: Duration::from_secs(30),
    try_paused: Duration::from_millis(500),
    again_after: Duration::from_millis(500),
    pause_min: Duration::from_secs(30),
    pause_max: Duration::from_secs(300),
};

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

/// Where letters go.
trait Post: Send + 'static {
    fn send(&self, topic: &str, partition: i32, rejects: &[Reject]) -> Result<(), DeadLetterError>;
    fn flush(&self, timeout: Duration) -> usize;
}

impl Post for DeadLetters {
    fn send(&self, topic: &str, partition: i32, rejects: &[Reject]) -> Result<(), DeadLetterError> {
        DeadLetters::send(self, topic, partition, rejects)
    }

    fn flush(&self, timeout: Duration) -> usize {
        DeadLetters::flush(self, timeout)
    }
}

/// The thread that sends dead letters.
pub(crate) struct Letters {
    sink: Sink,
    thread: JoinHandle<()>,
}

#[derive(Clone)]
struct Sink {
    queue: SyncSender<Message>,
    pauses: Arc<Pauses>,
    times: Times,
}

impl Letters {
    pub(crate) fn start(letters: DeadLetters) -> Result<Letters> {
        Letters::over(letters, TIMES)
    }

    fn over(post: impl Post, times: Times) -> Result<Letters> {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let pauses = Arc::new(Pauses::new(times.pause_min, times.pause_max));
        let sender = Sender { post, pauses: pauses.clone(), times };
        let thread = thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || sender.run(&messages))
            .context("starting the thread of dead letters")?;
        Ok(Letters { sink: Sink { queue, pauses, times }, thread })
    }

    pub(crate) fn sink(&self) -> Arc<dyn DeadLetterSink> {
        Arc::new(self.sink.clone())
    }

    /// Sends what waits, within bounds. The lanes have ended.
    pub(crate) fn stop(self) {
        let deadline = Instant::now() + FLUSH_MAX + Duration::from_secs(1);
        let queue = &self.sink.queue;
        while matches!(queue.try_send(Message::Stop), Err(TrySendError::Full(_))) && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// What the thread owns.
struct Sender<P> {
    post: P,
    pauses: Arc<Pauses>,
    times: Times,
}

impl<P: Post> Sender<P> {
    fn run(&self, messages: &Receiver<Message>) {
        loop {
            match messages.recv() {
                Ok(Message::Batch { topic, partition, rejects }) => self.send(&topic, partition, &rejects),
                Ok(Message::Flush(done)) => {
                    if !self.flush(done, messages) {
                        break;
                    }
                }
                Ok(Message::Stop) | Err(_) => break,
            }
        }
        let n_left = self.post.flush(FLUSH_MAX);
        if n_left > 0 {
            tracing::warn!(n_left, "dead letters were not acknowledged; they are sent again after the next start");
        }
    }

    fn send(&self, topic: &str, partition: i32, rejects: &[Reject]) {
        if self.pauses.leaves_out(topic, rejects.len()) {
            return;
        }
        let deadline = Instant::now() + self.times.try_max;
        let mut left = rejects;
        while let Err(error) = self.post.send(topic, partition, left) {
            left = &left[error.n_sent()..];
            // A topic that has failed for long before is tried once.
            if self.pauses.was_failing(topic) || Instant::now() >= deadline {
                let pause = self.pauses.failed(topic);
                tracing::warn!(
                    topic,
                    partition,
                    n_left = left.len(),
                    "dead letters are in rejected_events only, these and those of the next {pause:?}: {error}"
                );
                return;
            }
            thread::sleep(self.times.again_after);
        }
        self.succeeded(topic);
    }

    /// Waits for acknowledgements, once for all who wait for them by now. *Returns* whether to go on.
    fn flush(&self, done: oneshot::Sender<()>, messages: &Receiver<Message>) -> bool {
        let (mut waiting, mut goes_on) = (vec![done], true);
        for _ in 0..QUEUE_MAX {
            match messages.try_recv() {
                Ok(Message::Batch { topic, partition, rejects }) => self.send(&topic, partition, &rejects),
                Ok(Message::Flush(done)) => waiting.push(done),
                Err(TryRecvError::Empty) => break,
                Ok(Message::Stop) | Err(TryRecvError::Disconnected) => {
                    goes_on = false;
                    break;
                }
            }
        }
        let is_paused = self.pauses.leaves_out(ACKNOWLEDGEMENTS, 0);
        let n_left = self.post.flush(if is_paused { self.times.try_paused } else { self.times.try_max });
        match n_left {
            0 => self.succeeded(ACKNOWLEDGEMENTS),
            _ if is_paused => {}
            n_left => {
                let pause = self.pauses.failed(ACKNOWLEDGEMENTS);
                tracing::warn!(
                    n_left,
                    "dead letters were not acknowledged, and checkpoints of the next {pause:?} hardly wait for them; they are in \
                     rejected_events"
                );
            }
        }
        for done in waiting {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
        goes_on
    }

    fn succeeded(&self, topic: &str) {
        if let Some(n_left_out) = self.pauses.succeeded(topic) {
            tracing::info!(topic, n_left_out, "dead letters are taken again; those left out are in rejected_events");
        }
    }
}

impl DeadLetterSink for Sink {
    fn send(&self, source_topic: &str, partition: i32, rejects: &[Reject]) {
        if self.pauses.leaves_out(source_topic, rejects.len()) {
            return;
        }
        let deadline = Instant::now() + self.times.room_max;
        let mut batch = Message::Batch { topic: source_topic.to_owned(), partition, rejects: rejects.to_vec() };
        loop {
            match self.queue.try_send(batch) {
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
        let queue = self.queue.clone();
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
