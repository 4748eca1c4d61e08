//! Over the S3 protocol: moto's server, with conditional puts.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::engines::python;
use crate::testing::{DAY_0, at, commit, config, contents, lane, stays};
use crate::{Lake, LaneOutcome, Upkeep};

struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn request(port: u16, line: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server with an empty bucket `lake`.
fn serve() -> Option<Server> {
    let python = python("moto.server, flask")?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(python)
        .args(["-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { process, port };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match request(port, "PUT /lake") {
            Ok(answer) if answer.contains(" 200 ") => return Some(server),
            other => assert!(Instant::now() < deadline, "no bucket: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn open(port: u16) -> Lake {
    let options = [
        ("aws_endpoint", format!("http://127.0.0.1:{port}")),
        ("aws_allow_http", "true".to_owned()),
        ("aws_access_key_id", "test".to_owned()),
        ("aws_secret_access_key", "test".to_owned()),
        ("aws_region", "us-east-1".to_owned()),
    ];
    let options: HashMap<String, String> = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Lake::open("s3://lake/some/where", &options, config()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_s3_write_each_row_once() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(server) = serve() else { return };
    let port = server.port;
    let writer = |own: i32| async move {
        let lake = open(port);
        let mut n_done = 0;
        for through in 1..=6_u32 {
            let shared = commit(0, through, &[("shared", at(DAY_0, 1), 1, through.into(), false)]);
            let own = commit(own, through, &[("own", at(DAY_0, 2), 1, through.into(), false)]);
            let done = lake.commit(&stays(), vec![shared, own]).await.unwrap();
            n_done += usize::from(done.lanes[0].1 == LaneOutcome::Done);
        }
        n_done
    };
    let (a, b) = tokio::join!(tokio::spawn(writer(1)), tokio::spawn(writer(2)));
    let lake = open(port);
    let found = contents(&lake, &stays()).await;
    let revisions = |device: &str| found.iter().filter(|row| row.1 == device).map(|row| row.3).collect::<Vec<_>>();
    let shared = revisions("shared");
    assert!(shared.windows(2).all(|pair| pair[0] < pair[1]) && shared.last() == Some(&6), "{shared:?}");
    assert_eq!((revisions("own").len(), a.unwrap() + b.unwrap()), (12, shared.len()));
    // Maintenance over the same protocol: the lease, the rewrite, the deletion.
    let upkeep = |hours: i64| Upkeep {
        now_ms: chrono::Utc::now().timestamp_millis() + (30 * 24 + hours) * 3_600_000,
        late_horizon: Duration::ZERO,
        retention: HashMap::new(),
    };
    let hour = Duration::from_secs(3_600);
    let taken = lake.lease("a", 0, hour).await.unwrap().unwrap();
    assert!(open(port).lease("b", 1, hour).await.unwrap().is_none());
    let resolved = lake.maintain(&[stays()], &upkeep(0), taken).await;
    assert_eq!(resolved.tables[0].1.as_ref().unwrap().n_days_resolved, 1);
    let vacuumed = lake.maintain(&[stays()], &upkeep(2), resolved.lease.unwrap()).await;
    assert!(vacuumed.tables[0].1.as_ref().unwrap().n_files_deleted > 6, "{vacuumed:?}");
    let transactions = lake.transactions(&stays()).await.unwrap().unwrap();
    assert_eq!([0, 1, 2].map(|partition| transactions[&lane(partition)]), [6, 6, 6]);
    let left: Vec<_> = contents(&lake, &stays()).await.into_iter().map(|row| (row.1, row.3)).collect();
    assert_eq!(left, [("shared".to_owned(), 6), ("own".to_owned(), 6), ("own".to_owned(), 6)].map(|row| row));
}
