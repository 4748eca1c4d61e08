//! How fast messages come out of a broker: by a bare librdkafka loop that only counts, and through `KafkaSource` into message batches.
//!
//! `consume_bare BOOTSTRAP [--messages 5000000] [--partitions 4] [--bytes 67] [--topic NAME]`: without a topic it fills one first.
//! Prints one JSON line a run: events a second, CPU seconds a million.
#![allow(unsafe_code, reason = "the bare loop calls librdkafka as C programs do, and getrusage")]
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program that prints figures")]

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use legwork_kafka::{Admin, KafkaConfig, KafkaSource, Producer, ProducerConfig, SendError, TopicSpec};
use legwork_runtime::{BatchLimit, LogSource, PartitionReader, ReadOutcome, SourceEvent};
use legwork_types::MessageBatch;
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Job {
    bootstrap: String,
    topic: String,
    n_messages: u64,
    n_partitions: i32,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let bootstrap =
        args.next().expect("usage: consume_bare BOOTSTRAP [--messages N] [--partitions N] [--bytes N] [--topic NAME]");
    let (mut n_messages, mut n_partitions, mut n_bytes, mut topic) = (5_000_000_u64, 4, 67_usize, None);
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        match name.as_str() {
            "--messages" => n_messages = value.parse().unwrap(),
            "--partitions" => n_partitions = value.parse().unwrap(),
            "--bytes" => n_bytes = value.parse().unwrap(),
            "--topic" => topic = Some(value),
            other => panic!("unknown argument {other}"),
        }
    }
    let is_filled = topic.is_some();
    let topic = topic.unwrap_or_else(|| format!("bare-{}", std::process::id()));
    let job = Job { bootstrap, topic, n_messages, n_partitions };
    if !is_filled {
        measure("fill", job.n_messages, || fill(&job, n_bytes));
    }
    if is_filled && n_messages == 0 {
        return hold(&job);
    }
    for _ in 0..3 {
        measure("bare", job.n_messages, || bare(&job));
        measure("source", job.n_messages, || source(&job));
    }
    hold(&job);
}

fn measure(name: &str, n_messages: u64, run: impl FnOnce()) {
    let (cpu, started) = (cpu_s(), Instant::now());
    run();
    let (cpu, elapsed) = (cpu_s() - cpu, started.elapsed().as_secs_f64());
    let (rate, cost) = (n_messages as f64 / elapsed, cpu / (n_messages as f64 / 1e6));
    println!(
        "{{\"run\": \"{name}\", \"events_per_s\": {rate:.0}, \"cpu_s_per_million\": {cost:.3}, \"seconds\": {elapsed:.3}}}"
    );
}

/// CPU seconds of this process, user and system.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, in ticks of 10 ms (USER_HZ is 100 on Linux).
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn fill(job: &Job, n_bytes: usize) {
    let admin = Admin::new(&job.bootstrap, &[]).unwrap();
    admin.create_topics(&[TopicSpec::new(&job.topic, job.n_partitions)]).unwrap();
    let config = ProducerConfig { linger: Duration::from_millis(100), ..ProducerConfig::new(&job.bootstrap) };
    let config = ProducerConfig { options: vec![("batch.num.messages".into(), "100000".into())], ..config };
    let producer = Producer::new(&config).unwrap();
    let mut value = vec![0_u8; n_bytes];
    let mut random = 88_172_645_463_325_252_u64;
    for number in 0..job.n_messages {
        // Half of each message is noise, so that it compresses about as pings do.
        for chunk in value[..n_bytes / 2].chunks_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            chunk.copy_from_slice(&random.to_le_bytes()[..chunk.len()]);
        }
        let key = format!("d{:05}", number % 10_000);
        let partition = Some((number % job.n_partitions as u64) as i32);
        while let Err(error) = producer.send(&job.topic, partition, Some(key.as_bytes()), Some(&value), &[], None) {
            assert_eq!(error, SendError::QueueFull);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(producer.flush(Duration::from_secs(120)), 0, "{:?}", producer.last_error());
}

/// A consumer that only counts: partition queues read in batches on one thread each, as fast as librdkafka goes.
fn bare(job: &Job) {
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &job.bootstrap)
        .set("group.id", format!("bare-{}", std::process::id()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "32768")
        .set("max.partition.fetch.bytes", "2097152")
        .create()
        .unwrap();
    let topic = CString::new(job.topic.as_str()).unwrap();
    let client = consumer.client().native_ptr();
    let mut list = rdkafka::TopicPartitionList::new();
    let queues: Vec<usize> = (0..job.n_partitions)
        .map(|partition| {
            list.add_partition_offset(&job.topic, partition, rdkafka::Offset::Beginning).unwrap();
            // SAFETY: the client is alive and `topic` a C string; the queue is destroyed below, before the consumer is dropped.
            unsafe {
                let queue = c::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
                c::rd_kafka_queue_forward(queue, std::ptr::null_mut());
                queue as usize
            }
        })
        .collect();
    consumer.assign(&list).unwrap();
    let n_read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for queue in &queues {
            scope.spawn(|| count(*queue as *mut c::rd_kafka_queue_t, &n_read, job.n_messages));
        }
        while n_read.load(Ordering::Relaxed) < job.n_messages {
            drop(consumer.poll(Duration::from_millis(20)));
        }
    });
    for queue in queues {
        // SAFETY: taken above, used by no thread any more.
        unsafe { c::rd_kafka_queue_destroy(queue as *mut c::rd_kafka_queue_t) };
    }
}

fn count(queue: *mut c::rd_kafka_queue_t, n_read: &AtomicU64, n_messages: u64) {
    let mut messages = vec![std::ptr::null_mut(); 2_048];
    while n_read.load(Ordering::Relaxed) < n_messages {
        // SAFETY: the queue is alive, the array has room for what is asked; each message is destroyed once.
        let n = unsafe {
            let n = c::rd_kafka_consume_batch_queue(queue, 20, messages.as_mut_ptr(), messages.len());
            for message in &messages[..n as usize] {
                c::rd_kafka_message_destroy(*message);
            }
            n
        };
        n_read.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// How much memory full queues take that nobody reads: prints bytes held and resident.
fn hold(job: &Job) {
    let before = resident_bytes();
    let mut source = KafkaSource::new(config(job)).unwrap();
    let queued = source.queued_bytes_total();
    let mut readers = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) {
        for event in source.poll(Duration::from_millis(100)) {
            match event {
                SourceEvent::Assigned(assigned) => readers.extend(assigned),
                SourceEvent::Revoked { done, .. } => done(),
                other => println!("{{\"event\": \"{other:?}\"}}"),
            }
        }
    }
    let (queued, resident) = (queued.load(Ordering::Relaxed), resident_bytes());
    println!(
        "{{\"run\": \"hold\", \"queued_bytes\": {queued}, \"resident_before\": {before}, \"resident\": {resident}}}"
    );
    drop(readers);
    source.close();
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn config(job: &Job) -> KafkaConfig {
    static N_GROUPS: AtomicU64 = AtomicU64::new(0);
    let group = format!("source-{}-{}", std::process::id(), N_GROUPS.fetch_add(1, Ordering::Relaxed));
    let bootstrap = job.bootstrap.clone();
    KafkaConfig { bootstrap, group, topics: vec![job.topic.clone()], ..KafkaConfig::default() }
}

/// Through `KafkaSource`: a thread a partition reads batches and keeps nothing.
fn source(job: &Job) {
    let mut source = KafkaSource::new(config(job)).unwrap();
    let n_read = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    while n_read.load(Ordering::Relaxed) < job.n_messages {
        for event in source.poll(Duration::from_millis(20)) {
            match event {
                SourceEvent::Assigned(readers) => {
                    for reader in readers {
                        let (n_read, n_messages) = (n_read.clone(), job.n_messages);
                        threads.push(std::thread::spawn(move || read(reader, &n_read, n_messages)));
                    }
                }
                SourceEvent::Revoked { done, .. } => done(),
                other => println!("{{\"event\": \"{other:?}\"}}"),
            }
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    source.close();
}

fn read(mut reader: Box<dyn PartitionReader>, n_read: &AtomicU64, n_messages: u64) {
    let this = std::thread::current();
    reader.on_ready(Arc::new(move || this.unpark()));
    let limit = BatchLimit { n_messages_max: 8_192, n_bytes_max: 1 << 20 };
    let mut batch = MessageBatch::new(reader.topic().clone(), reader.partition());
    while n_read.load(Ordering::Relaxed) < n_messages {
        batch.clear(limit.n_bytes_max);
        match reader.read(&mut batch, limit) {
            ReadOutcome::Messages(0) => std::thread::park_timeout(Duration::from_millis(20)),
            ReadOutcome::Messages(n) => {
                n_read.fetch_add(n as u64, Ordering::Relaxed);
            }
            ReadOutcome::Gone => panic!("{:?}", reader.gone_because()),
        }
    }
}
