//! kill -9 of a process that writes checkpoints into a local folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{folder_store, quick};
use crate::StateStore;
use crate::tests::backings::on_runtime;
use crate::tests::{lane, numbered};

const FOLDER: &str = "LEGWORK_STATE_KILLED_IN";

/// The process that is killed: it says which checkpoints are durable.
#[test]
#[ignore = "the process that other tests start and kill"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    on_runtime(async {
        let mut store = folder_store(&folder);
        store.tuning = quick();
        let owner = store.claim(&lane()).await.unwrap();
        let mut number = owner.head.as_ref().map_or(0, |head| head.number);
        loop {
            number += 1;
            let mut checkpoint = numbered(number);
            checkpoint.rows.push(("device_movement".to_owned(), vec![number as u8; 30_000]));
            owner.lane.commit(checkpoint).await.unwrap();
            println!("durable {number}");
        }
    });
}

/// Starts the child, kills it some time after its first checkpoint. *Returns* the last one that it called durable.
fn start_and_kill(folder: &Path, lives: Duration) -> u32 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "slate::tests::kill::child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut durable = None;
    let mut killer = None;
    // A line that was cut off has no end.
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some(number) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("durable ")) {
            durable = Some(number.parse().unwrap());
            killer.get_or_insert_with(|| {
                let id = child.id().to_string();
                std::thread::spawn(move || {
                    std::thread::sleep(lives);
                    Command::new("kill").args(["-9", &id]).status().unwrap()
                })
            });
        }
        line.clear();
    }
    assert!(killer.expect("the child reached a checkpoint").join().unwrap().success());
    child.wait().unwrap();
    durable.unwrap()
}

fn kill_often(n_kills: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut n_found = 0;
    for kill in 0..n_kills {
        let durable = start_and_kill(folder.path(), Duration::from_micros(kill * 7_919 % 97_000));
        on_runtime(async {
            let claimed = folder_store(folder.path()).claim(&lane()).await.unwrap();
            let number = claimed.head.as_ref().unwrap().number;
            assert!(number == durable || number == durable + 1, "{number} after {durable}");
            n_found += number - durable;
            let hot = claimed.hot.iter().find(|(key, _)| key == b"hot").unwrap();
            assert_eq!(hot.1, number.to_be_bytes(), "wholly or not at all");
            assert_eq!(claimed.hot.len() as u32, number + 1);
            let newest: Vec<_> = claimed.pending.iter().filter(|rows| rows.number == number).collect();
            assert_eq!(newest.len(), 2);
            assert_eq!(newest[1].rows, vec![number as u8; 30_000]);
            let cold = claimed.lane.read(vec![b"cold".to_vec()]).await.unwrap();
            assert_eq!(cold, [Some(number.to_be_bytes().to_vec())]);
        });
    }
    println!("{n_kills} kills, {n_found} whole checkpoints found that nobody had been told of");
}

#[test]
fn kill_9_loses_nothing() {
    kill_often(4);
}

#[test]
#[ignore = "takes minutes; for the nightly run"]
fn kill_9_loses_nothing_over_and_over() {
    kill_often(std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100));
}
