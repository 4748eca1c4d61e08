//! Members that go and come back, against a real Kafka.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use legwork_kafka::KafkaConfig;
use legwork_runtime::{LogSource, ReadOutcome, SourceEvent};
use legwork_types::MessageBatch;

use crate::support::{LIMIT, Member, Target, WITHIN, send_numbered};

const BOOTSTRAP: &str = "LEGWORK_TEST_MEMBER_BOOTSTRAP";
const GROUP: &str = "LEGWORK_TEST_MEMBER_GROUP";
const TOPIC: &str = "LEGWORK_TEST_MEMBER_TOPIC";

fn member_config(target: &Target, topic: &str, group: &str, instance_id: &str, session_ms: u32) -> KafkaConfig {
    let options = [("session.timeout.ms", session_ms), ("heartbeat.interval.ms", 300)];
    KafkaConfig {
        group: group.to_owned(),
        instance_id: Some(instance_id.to_owned()),
        options: options.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect(),
        ..target.config(&[topic])
    }
}

/// A static member that ends cleanly and comes back within the session time-out finds its partitions; the group notices nothing.
#[test]
fn a_static_member_that_comes_back_has_its_partitions_without_a_rebalance() {
    let Some(target) = Target::real() else { return };
    let topic = target.topic("static", 4, &[]);
    let group = crate::support::unique("group");
    let producer = target.producer();
    send_numbered(&producer, &topic, 0, 400);
    let mut first = Member::of(member_config(&target, &topic, &group, "first", 20_000));
    first.until_assigned(4);
    let mut second = Member::of(member_config(&target, &topic, &group, "second", 20_000));
    let deadline = Instant::now() + WITHIN;
    while first.readers.len() != 2 || second.readers.len() != 2 {
        assert!(Instant::now() < deadline, "{} and {}", first.readers.len(), second.readers.len());
        first.poll(Duration::from_millis(10));
        second.poll(Duration::from_millis(10));
    }
    for _ in 0..2 {
        let (held_by_first, held_by_second) = (first.held(), second.held());
        let n_revocations = second.n_revocations;
        first.close();
        // The other goes on reading, and is given nothing of what the first had.
        let away = Instant::now() + Duration::from_secs(3);
        while Instant::now() < away {
            second.read();
            second.poll(Duration::from_millis(10));
        }
        assert_eq!(second.held(), held_by_second);
        let came_back = Instant::now();
        first = Member::of(member_config(&target, &topic, &group, "first", 20_000));
        while first.readers.len() != 2 {
            assert!(came_back.elapsed() < WITHIN, "{:?}, {:?}", first.held(), first.troubles);
            first.poll(Duration::from_millis(5));
            second.read();
            second.poll(Duration::from_millis(5));
        }
        eprintln!("partitions were back after {:?}", came_back.elapsed());
        assert_eq!(first.held(), held_by_first);
        assert_eq!((second.held(), second.n_revocations), (held_by_second, n_revocations));
        first.until("its messages", |member| {
            member.readers.iter().all(|reader| {
                let id = (reader.topic().clone(), reader.partition());
                member.messages.get(&id).map_or(0, Vec::len) as i64 == reader.end_offset().unwrap()
            })
        });
    }
    first.close();
    second.close();
}

/// A process that stood still for longer than its session lets go of its partitions, says so, hands out nothing more of what it had
/// fetched, and joins again.
#[test]
fn a_process_that_stood_still_too_long_lets_go_and_joins_again() {
    let Some(target) = Target::real() else { return };
    let topic = target.topic("stopped", 4, &[]);
    let group = crate::support::unique("group");
    send_numbered(&target.producer(), &topic, 0, 20_000);
    let process = Process::start(&target.bootstrap, &group, &topic);
    process.until_assigned(4, || {});
    process.signal("STOP");
    // Its partitions go to another member.
    let mut other = Member::of(member_config(&target, &topic, &group, "other", 2_000));
    other.until("all are taken over", |member| member.readers.len() == 4);
    process.signal("CONT");
    process.until("lost 4");
    let lines = process.until_assigned(2, || {
        other.read();
        other.poll(Duration::from_millis(10));
    });
    let told = lines.iter().find(|line| line.starts_with("trouble group ")).unwrap();
    assert!(told.contains("stood still") && told.contains("session.timeout.ms"), "{told}");
    assert!(lines.iter().any(|line| line.starts_with("recovered group ")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("WRONG")), "{lines:?}");
    drop(process);
    other.close();
}

/// Not a test: what [`Process`] runs.
#[test]
fn member_process() {
    let (Ok(bootstrap), Ok(group), Ok(topic)) = (std::env::var(BOOTSTRAP), std::env::var(GROUP), std::env::var(TOPIC))
    else {
        return;
    };
    let target = Target { bootstrap, embedded: None };
    let mut member = Member::of(member_config(&target, &topic, &group, "process", 2_000));
    let mut out = std::io::stdout();
    let mut say = |line: String| {
        writeln!(out, "| {line}").unwrap();
        out.flush().unwrap();
    };
    let until = Instant::now() + WITHIN * 3;
    while Instant::now() < until {
        for event in member.source.poll(Duration::from_millis(10)) {
            match event {
                SourceEvent::Assigned(readers) => {
                    say(format!("assigned {}", readers.len()));
                    member.readers.extend(readers);
                }
                SourceEvent::Revoked { partitions, lost, done } => {
                    say(format!("{} {}", if lost { "lost" } else { "revoked" }, partitions.len()));
                    for reader in member.readers.iter_mut().filter(|_| lost) {
                        let mut batch = MessageBatch::new(reader.topic().clone(), reader.partition());
                        if reader.read(&mut batch, LIMIT) != ReadOutcome::Messages(0) {
                            say("WRONG: messages of a lost partition".to_owned());
                        }
                    }
                    member.readers.retain(|reader| !partitions.contains(&(reader.topic().clone(), reader.partition())));
                    done();
                }
                SourceEvent::Trouble { hop, message } => say(format!("trouble {hop}: {message}")),
                SourceEvent::Recovered { hop } => say(format!("recovered {hop}")),
                SourceEvent::Fatal { message } => say(format!("fatal {message}")),
            }
        }
    }
}

/// A member in a process of its own: this test binary again.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(bootstrap: &str, group: &str, topic: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "group::member_process", "--nocapture"])
            .envs([(BOOTSTRAP, bootstrap), (GROUP, group), (TOPIC, topic)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if let Some((_, said)) = text.split_once("| ") {
                    let _ = line.send(said.to_owned());
                }
            }
        });
        Process { child, lines }
    }

    /// Waits until it has been handed so many partitions, which may come one after the other, and does `meanwhile` again and again.
    /// *Returns* what it said.
    fn until_assigned(&self, n_wanted: usize, mut meanwhile: impl FnMut()) -> Vec<String> {
        let deadline = Instant::now() + WITHIN;
        let mut lines: Vec<String> = Vec::new();
        let n_assigned = |lines: &[String]| -> usize {
            lines.iter().filter_map(|line| line.strip_prefix("assigned ")?.parse::<usize>().ok()).sum()
        };
        while n_assigned(&lines) < n_wanted {
            assert!(Instant::now() < deadline, "{n_wanted} partitions were not assigned, but {lines:?}");
            lines.extend(self.lines.recv_timeout(Duration::from_millis(10)));
            meanwhile();
        }
        lines
    }

    fn until(&self, wanted: &str) {
        let deadline = Instant::now() + WITHIN;
        let mut lines = Vec::new();
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            lines.push(line.unwrap_or_else(|_| panic!("{wanted} was not said, but {lines:?}")));
            if lines.last().is_some_and(|line| line == wanted) {
                return;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
