//! The server as clients meet it: psql, raw bytes, the Python drivers where their environment is given.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use pgwire::messages::startup::SecretKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::testing::FakeEngine;

const WAIT: Duration = Duration::from_secs(60);

/// On a thread of its own: the server answers on this one.
async fn output_of(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output());
    tokio::time::timeout(WAIT, output).await.unwrap().unwrap().unwrap()
}

struct Server {
    address: SocketAddr,
    down: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start(engine: FakeEngine, limits: PostgresLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (down, shutdown) = watch::channel(false);
        let served = tokio::spawn(serve(listener, Arc::new(engine), shutdown, limits));
        Server { address, down, served }
    }

    async fn default() -> Server {
        Server::start(FakeEngine::default(), PostgresLimits::default()).await
    }

    fn psql(&self) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-h", "127.0.0.1", "-U", "me", "-d", "legwork", "-v", "VERBOSITY=verbose", "-p"])
            .arg(self.address.port().to_string());
        command.env("PGCONNECT_TIMEOUT", "20");
        command
    }

    /// What psql prints for these commands, and whether it was content.
    async fn run(&self, arguments: &[&str]) -> (String, String, bool) {
        let mut command = self.psql();
        command.args(arguments).stdin(Stdio::null());
        let output = output_of(command).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.success())
    }

    /// Rows without decoration. The commands must succeed.
    async fn rows(&self, sql: &str) -> String {
        let (out, err, is_ok) = self.run(&["-v", "ON_ERROR_STOP=1", "-At", "-c", sql]).await;
        assert!(is_ok && err.is_empty(), "{sql}: {err}");
        out
    }

    /// SQLSTATE of the error that the command ends with.
    async fn sqlstate(&self, sql: &str) -> String {
        let (_, err, is_ok) = self.run(&["-At", "-c", sql]).await;
        assert!(!is_ok, "{sql}");
        err.split("ERROR:  ").nth(1).unwrap_or_else(|| panic!("{sql}: {err}")).split(':').next().unwrap().to_owned()
    }

    async fn stop(self) {
        self.down.send(true).unwrap();
        tokio::time::timeout(WAIT, self.served).await.unwrap().unwrap().unwrap();
    }
}

/// Whether psql is there. Elsewhere than in CI its absence is said and skips the test.
fn has_psql() -> bool {
    match Command::new("psql").arg("--version").stdout(Stdio::null()).status() {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "psql is needed in CI: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: psql is not installed");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_lacks_comes_as_a_warning() {
    if !has_psql() {
        return;
    }
    let notices = vec!["lane t/0 has halted".to_owned(), "lane t/1 is away".to_owned()];
    let server = Server::start(FakeEngine { notices, ..FakeEngine::default() }, PostgresLimits::default()).await;
    for sql in ["SELECT id FROM samples WHERE id = 1", "COPY (SELECT 1) TO STDOUT"] {
        let (out, err, is_content) = server.run(&["-A", "-t", "-c", sql]).await;
        assert!(is_content && out == "1\n", "{sql}: {out} {err}");
        assert!(
            err.contains("WARNING:  01000: lane t/0 has halted\nWARNING:  01000: lane t/1 is away"),
            "{sql}: {err}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infinities_and_long_decimals_are_written_as_postgres_does() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    let float = "SELECT 'Infinity'::float8, '-Infinity'::float8, 'NaN'::float8, ARRAY['Infinity'::float8, 1.5], 'Infinity'::real AS r";
    assert_eq!(server.rows(float).await, "Infinity|-Infinity|NaN|{Infinity,1.5}|Infinity\n");
    let long = "arrow_cast('12345678901234567890123456789012345.678', 'Decimal128(38, 3)')";
    let rows = server.rows(&format!("SELECT {long}, ARRAY[{long}, NULL], ARRAY[1.50::decimal(4, 2)]")).await;
    let digits = "12345678901234567890123456789012345.678";
    assert_eq!(rows, format!("{digits}|{{{digits},NULL}}|{{1.50}}\n"));
    for setting in ["DateStyle = 'German'", "IntervalStyle = 'iso_8601'"] {
        assert_eq!(server.sqlstate(&format!("SET {setting}")).await, "22023");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_reads_values_of_every_type() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    let rows = server.rows("SELECT * FROM samples ORDER BY id").await;
    let expected = "1|Ada|0.1|1234.5678|2026-05-28 20:26:40.123456+00|2024-10-04|t|\\x00ff27|{a,NULL,\"it's \\\"b\\\"\"}\n\
                    2||||||||\n\
                    3|it's; \\ \"x\"|-1.5e300|-0.0001|1969-12-31 23:59:59.999999+00|1969-12-31|f|\\x|{}\n";
    assert_eq!(rows, expected);
    assert_eq!(
        server.rows("SELECT 1; SELECT 'it''s' AS a, ''''''; SET application_name = 'x'; SHOW application_name;").await,
        "1\nit's|''\nSET\nx\n"
    );
    assert_eq!(server.rows("").await, "");
    assert_eq!(server.rows("SELECT count(*) FROM generate_series(1, 200000)").await, "200000\n");
    assert_eq!(server.rows("SELECT value FROM generate_series(1, 100000) ORDER BY 1").await.lines().count(), 100_000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_describes_tables() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    let tables = server.rows("\\dt").await;
    assert!(tables.contains("public|samples|table|"), "{tables}");
    let views = server.rows("\\dv").await;
    assert!(views.contains("public|sample_names|view|") && !views.contains("|samples|"), "{views}");
    let columns = server.rows("\\d samples").await;
    for column in [
        "id|bigint",
        "name|text",
        "share|double precision",
        "at|timestamp with time zone",
        "day|date",
        "good|boolean",
        "raw|bytea",
    ] {
        assert!(columns.contains(column), "{column} is not in {columns}");
    }
    let quiet = [
        "\\d",
        "\\d+",
        "\\d sample_names",
        "\\d+ samples",
        "\\d+ sample_names",
        "\\dt+",
        "\\dv+",
        "\\dn",
        "\\dn+",
        "\\l",
        "\\l+",
        "\\df",
        "\\df+",
        "\\du",
        "\\dT",
        "\\dp",
        "\\db",
        "\\do",
    ];
    for quiet in quiet {
        server.rows(quiet).await;
    }
    assert!(server.rows("\\l").await.starts_with("legwork|"));
    assert!(server.rows("\\du").await.starts_with("legwork|"));
    for (sql, answer) in [
        ("SELECT current_schema()", "public\n"),
        ("SELECT current_database()", "legwork\n"),
        ("SHOW server_version_num", "160006\n"),
        ("SHOW transaction_isolation", "read committed\n"),
        ("SELECT '\\xff'::bytea, CAST('a\\\\b\\001' AS bytea)", "\\xff|\\x615c6201\n"),
        ("SELECT ARRAY(SELECT id FROM samples ORDER BY 1)", "{1,2,3}\n"),
        ("SELECT pg_backend_pid() > 0", "t\n"),
        ("SELECT pg_catalog.current_setting('server_encoding')", "UTF8\n"),
    ] {
        assert_eq!(server.rows(sql).await, answer, "{sql}");
    }
    let settings = server.rows("SET application_name = 'x'; SHOW ALL").await;
    assert!(
        settings.contains("\napplication_name|x|\n") && settings.contains("\nserver_encoding|UTF8|\n"),
        "{settings}"
    );
    assert_eq!(server.sqlstate("SELECT '\\xf'::bytea").await, "22P02");
    // As pgjdbc and ADBC ask about types.
    let type_of = "SELECT typinput='pg_catalog.array_in'::regproc, typtype, typname FROM pg_catalog.pg_type WHERE pg_type.oid = 1184";
    assert_eq!(server.rows(type_of).await, "f|b|timestamptz\n");
    let receivable = "SELECT typname FROM pg_catalog.pg_type WHERE (typreceive != 0 OR typsend != 0) AND oid = 20";
    assert_eq!(server.rows(receivable).await, "int8\n");
    assert!(server.rows("SELECT version()").await.starts_with("PostgreSQL 16"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_mean_what_they_say() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    for (sql, answer) in [
        (
            "SELECT s.id, (SELECT count(*) FROM samples t WHERE t.good = s.good) FROM samples s ORDER BY 1",
            "1|1\n2|0\n3|1\n",
        ),
        ("SELECT (SELECT max(samples.id) FROM samples), (SELECT 7)", "3|7\n"),
        (
            "SELECT table_name, (SELECT count(*) FROM information_schema.columns c WHERE c.table_name = t.table_name) \
             FROM information_schema.tables t WHERE table_name = 'sample_names'",
            "sample_names|2\n",
        ),
        (
            "SELECT s.* FROM sample_names s JOIN samples t ON s.id = t.id WHERE day > '2000-01-01' ORDER BY day",
            "1|Ada\n",
        ),
        (r#"SELECT id FROM samples WHERE name = ANY('{"Ada","it''s; \\ \"x\""}') ORDER BY id"#, "1\n3\n"),
        ("SELECT id FROM samples WHERE id = ANY('{1, 3, NULL}') ORDER BY id", "1\n3\n"),
        ("SELECT id FROM samples WHERE id <> ALL('{1, 3}')", "2\n"),
        ("SELECT count(*) FROM samples WHERE id <> ALL('{1, NULL}')", "0\n"),
        ("SELECT count(*) FROM samples WHERE id = ANY('{}')", "0\n"),
        ("SELECT count(*) FROM samples WHERE name <> ALL('{}')", "3\n"),
        ("SELECT id FROM samples WHERE at = ANY('{2026-05-28 20:26:40.123456+00}')", "1\n"),
        ("SELECT id FROM samples WHERE day = ANY('{2024-10-04,1969-12-31}'::date[]) ORDER BY id", "1\n3\n"),
        ("SELECT id FROM samples WHERE amount = ANY('{1234.5678}')", "1\n"),
        ("SELECT id FROM samples WHERE good = ANY('{f}'::bool[])", "3\n"),
        (r#"SELECT id FROM samples WHERE raw = ANY('{"\\x00ff27"}'::bytea[])"#, "1\n"),
        ("SELECT id FROM samples WHERE id < ANY('{1,2,10}'::int[]) AND id > ALL('{1,2}'::int[])", "3\n"),
        ("SELECT id FROM samples WHERE 'a' = ANY(tags)", "1\n"),
        ("SELECT id FROM samples WHERE id = ANY(SELECT id FROM samples WHERE good)", "1\n"),
        ("SELECT id FROM samples WHERE id = ANY(ARRAY(SELECT id FROM samples WHERE good))", "1\n"),
        (
            r#"SELECT '{2026-01-01}'::date[], '{"a,b", c d }'::text[], '{}'::int[], CAST('{1,NULL}' AS bigint[])"#,
            "{2026-01-01}|{\"a,b\",\"c d\"}|{}|{1,NULL}\n",
        ),
        ("SELECT - -id, 5 - -id, - (-id) + 1 FROM samples WHERE id = 2", "2|7|3\n"),
        (r"SELECT N'it''s', U&'\0061''b', $$'$$", "it's|a'b|'\n"),
        (
            "SELECT at AT TIME ZONE 'Asia/Kolkata', at AT TIME ZONE 'UTC' FROM samples WHERE id = 1",
            "2026-05-29 01:56:40.123456|2026-05-28 20:26:40.123456+00\n",
        ),
        ("SELECT row_number() OVER (ORDER BY id) + 1 FROM samples ORDER BY 1 LIMIT 1", "2\n"),
        ("BEGIN; ABORT", "BEGIN\nROLLBACK\n"),
        (r#"SELECT relname FROM pg_class WHERE relname = ANY('{"samples","a,b"}')"#, "samples\n"),
    ] {
        assert_eq!(server.rows(sql).await, answer, "{sql}");
    }
    for (sql, sqlstate) in [
        // 42000 is the fake engine's own code for all that it cannot do.
        ("SELECT (SELECT id FROM samples)", "42000"),
        ("SELECT s.id, (SELECT t.name FROM samples t WHERE t.id >= s.id) FROM samples s", "42000"),
        ("SELECT '{(SELECT count(*) FROM samples)}'::int[]", "42000"),
        ("SELECT relname FROM pg_class WHERE oid = ANY('{(SELECT 1)}'::int[])", "42000"),
        ("SELECT id = ANY('1,2') FROM samples", "22P02"),
        ("SELECT id < ANY('{1,2}') FROM samples", "0A000"),
    ] {
        assert_eq!(server.sqlstate(sql).await, sqlstate, "{sql}");
    }
    for again in [" XOR 1", " IN (1)", " NOTNULL", "::int", " SIMILAR TO 'a'"] {
        let chain = format!("SELECT (1{}) = ANY(ARRAY[1])", again.repeat(5_000));
        assert_eq!(server.sqlstate(&chain).await, "54001", "{again}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_may_be_alike() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    for (sql, answer) in [
        ("SELECT id, s.name, * FROM sample_names s WHERE id = 1", "1|Ada|1|Ada\n"),
        ("SELECT id, ID, * FROM sample_names WHERE id = 1", "1|1|1|Ada\n"),
        ("SELECT 1, 1, 'a', 'A', 'a'", "1|1|a|A|a\n"),
        ("SELECT (SELECT min(id) FROM samples), (SELECT max(id) FROM samples)", "1|3\n"),
        ("SELECT id::text, id, (id)::float8::text FROM samples WHERE id = 1", "1|1|1.0\n"),
        ("SELECT id, ID, count(*), COUNT(*) FROM samples WHERE id < 2 GROUP BY id ORDER BY id", "1|1|1|1\n"),
        ("SELECT id AS x, name AS x, n.id, n.name AS id FROM sample_names n WHERE id = 1", "1|Ada|1|Ada\n"),
        ("SELECT s.id, n.id FROM samples s JOIN sample_names n ON s.id = n.id AND s.id = 1", "1|1\n"),
        ("(SELECT 1, 1) UNION ALL SELECT 2, 2 ORDER BY 1", "1|1\n2|2\n"),
    ] {
        assert_eq!(server.rows(sql).await, answer, "{sql}");
    }
    let (shown, _, _) = server.run(&["-A", "-c", "SELECT \"day\", ID, s.* FROM samples s LIMIT 0"]).await;
    assert!(shown.starts_with("day|id|id|name|"), "{shown}");
    let again = "SELECT id AS x, name AS x, n.ID, n.id, lower(name), Lower(name) FROM sample_names n LIMIT 0";
    let (shown, _, _) = server.run(&["-A", "-c", again]).await;
    assert!(shown.starts_with("x|x|id|id|lower("), "{shown}");
    assert_eq!(shown.lines().next().unwrap().split('|').next_back(), Some("lower"), "{shown}");
    server.stop().await;
}

/// One statement in the extended protocol, as drivers send it: its rows as psql prints them, without nulls.
async fn extended(server: &Server, sql: &str, values: &[&str]) -> String {
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], length.as_slice(), body].concat()
    }
    let n_values = u16::try_from(values.len()).unwrap().to_be_bytes();
    let values: Vec<u8> = values
        .iter()
        .flat_map(|value| [&u32::try_from(value.len()).unwrap().to_be_bytes(), value.as_bytes()].concat())
        .collect();
    let messages = [
        message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat()),
        message(b'B', &[b"\0\0\0\0".as_slice(), &n_values, &values, b"\0\0"].concat()),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
        message(b'X', b""),
    ];
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[startup(), messages.concat()].concat()).await.unwrap();
    let answer = read_all(&mut stream).await;
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let (mut rows, mut rest) = (String::new(), answer.as_slice());
    while let [kind, a, b, c, d, after @ ..] = rest {
        let (body, next) = after.split_at(number(&[*a, *b, *c, *d]) - 4);
        rest = next;
        assert!(*kind != b'E', "{sql}: {}", String::from_utf8_lossy(body));
        if *kind == b'D' {
            let mut values = &body[2..];
            let row = (0..number(&body[..2])).map(|_| {
                let (value, after) = values[4..].split_at(number(&values[..4]));
                values = after;
                String::from_utf8(value.to_vec()).unwrap()
            });
            rows += &(row.collect::<Vec<_>>().join("|") + "\n");
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_may_stand_anywhere() {
    let server = Server::default().await;
    let table: [(&str, &[&str], &str); 12] = [
        (
            "SELECT (SELECT count(*) FROM samples t WHERE t.id = s.id AND t.id < $1) FROM samples s ORDER BY id",
            &["3"],
            "1\n1\n0\n",
        ),
        ("SELECT (SELECT name FROM samples WHERE id = $1)", &["1"], "Ada\n"),
        ("SELECT id FROM samples WHERE id = ANY($1) ORDER BY id", &["{1,3}"], "1\n3\n"),
        ("SELECT id FROM samples WHERE name <> ALL($1)", &["{\"Ada\",\"a,b\"}"], "3\n"),
        ("SELECT id FROM samples WHERE id < ANY($1) ORDER BY id", &["{2,3}"], "1\n2\n"),
        ("SELECT id FROM samples WHERE day = ANY($1::date[])", &["{2024-10-04}"], "1\n"),
        ("SELECT $1::date[], $2::text[] AS b", &["{2024-10-04}", "{\"a,b\",c}"], "{2024-10-04}|{\"a,b\",c}\n"),
        ("SELECT id FROM samples WHERE id = ANY(ARRAY[$1, $2]) ORDER BY id", &["1", "3"], "1\n3\n"),
        ("SELECT - -id, id, * FROM sample_names WHERE id = - -$1::bigint", &["1"], "1|1|1|Ada\n"),
        ("SELECT relname FROM pg_class WHERE relname = ANY($1)", &["{samples}"], "samples\n"),
        ("SELECT $1, $2, $1", &["a", "a"], "a|a|a\n"),
        ("SELECT id = $1, id = $2 FROM samples WHERE id = 1", &["1", "1"], "t|t\n"),
    ];
    for (sql, values, rows) in table {
        assert_eq!(extended(&server, sql, values).await, rows, "{sql}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_sees_errors_transactions_and_limits() {
    if !has_psql() {
        return;
    }
    let engine = FakeEngine { rows_max: Some(20_000), timeout: Some(Duration::from_secs(2)), ..FakeEngine::default() };
    let server = Server::start(engine, PostgresLimits { sql_bytes_max: 10_000, ..PostgresLimits::default() }).await;
    assert_eq!(server.sqlstate("SELEC 1").await, "42601");
    assert_eq!(server.sqlstate("SELECT nothing FROM samples").await, "42703");
    assert_eq!(server.sqlstate("COPY samples FROM STDIN").await, "25006");
    assert_eq!(server.sqlstate("DROP TABLE samples").await, "42501");
    assert_eq!(server.sqlstate("SELECT value FROM generate_series(1, 100000)").await, "54000");
    assert_eq!(server.sqlstate(&format!("SELECT '{}'", "x".repeat(10_000))).await, "54000");
    let slow = "SELECT count(*) FROM generate_series(1, 100000000000)";
    assert_eq!(server.sqlstate(slow).await, "57014");
    assert_eq!(server.sqlstate(&format!("SET statement_timeout = 100; {slow}")).await, "57014");
    assert_eq!(server.sqlstate("PREPARE x AS SELECT 1").await, "0A000");
    assert_eq!(
        server.rows("BEGIN; SELECT 1; COMMIT; DISCARD ALL; DEALLOCATE ALL").await,
        "BEGIN\n1\nCOMMIT\nDISCARD ALL\nDEALLOCATE ALL\n"
    );
    let failed = server
        .run(&["-At", "-c", "BEGIN", "-c", "SELECT nothing", "-c", "SELECT 1", "-c", "COMMIT", "-c", "SELECT 2"])
        .await;
    assert!(failed.0 == "BEGIN\nROLLBACK\n2\n" && failed.1.contains("25P02"), "{failed:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_copies_out() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    let (text, _, _) = server.run(&["-c", "\\copy (SELECT id, name, tags FROM samples ORDER BY id) TO STDOUT"]).await;
    assert_eq!(text, "1\tAda\t{a,NULL,\"it's \\\\\"b\\\\\"\"}\n2\t\\N\t\\N\n3\tit's; \\\\ \"x\"\t{}\n");
    let (csv, _, _) =
        server.run(&["-c", "COPY (SELECT id, name FROM samples ORDER BY id) TO STDOUT (FORMAT csv, HEADER)"]).await;
    assert_eq!(csv, "id,name\n1,Ada\n2,\n3,\"it's; \\ \"\"x\"\"\"\n");
    assert_eq!(server.sqlstate("COPY samples TO '/tmp/x'").await, "42501");
    assert_eq!(server.sqlstate("COPY (SELECT nothing FROM samples) TO STDOUT").await, "42703");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_ends_the_query() {
    if !has_psql() {
        return;
    }
    let server = Server::default().await;
    let slow = "SELECT count(*) FROM generate_series(1, 100000000000)";
    let mut child = server
        .psql()
        .args(["-At", "-c", "SELECT 1", "-c", slow])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // psql cancels on an interrupt; the first row says that it is connected.
    let output = tokio::task::spawn_blocking(move || {
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.wait_with_output().unwrap()
    });
    let output = tokio::time::timeout(WAIT, output).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("57014") && said.contains("user request"), "{said}");
    server.stop().await;
}

#[test]
fn only_the_right_secret_cancels() {
    let registry = Arc::new(cancel::Registry::default());
    let canceller = cancel::Canceller::new();
    let registration = registry.register(7, SecretKey::I32(5), canceller.clone());
    let is_asked = || {
        let mut cancelled = canceller.statement();
        move || futures::FutureExt::now_or_never(cancelled.requested()).is_some()
    };
    let mut asked = is_asked();
    registry.cancel(7, &SecretKey::I32(6));
    registry.cancel(8, &SecretKey::I32(5));
    assert!(!asked());
    registry.cancel(7, &SecretKey::I32(5));
    assert!(asked() && !is_asked()());
    drop(registration);
    let mut asked = is_asked();
    registry.cancel(7, &SecretKey::I32(5));
    assert!(!asked());
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("the server ends the connection");
    // A reset is an end as well.
    let _ = read;
    answer
}

fn startup() -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    body.extend(b"user\0me\0\0");
    let mut message = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    message.extend(body);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_end_their_connection_and_no_other() {
    let limits =
        PostgresLimits { handshake_max: Duration::from_secs(2), connections_max: 8, ..PostgresLimits::default() };
    let server = Server::start(FakeEngine::default(), limits).await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[0]
    };
    for round in 0..200 {
        let mut bytes: Vec<u8> = (0..1 + usize::from(random())).map(|_| random()).collect();
        if round % 2 == 0 {
            bytes = [startup(), bytes].concat();
        }
        if round % 4 == 0 {
            // A message of a known type and a true length, with nonsense in it.
            let kind = b"QPBDEHSCpFdcf"[usize::from(random()) % 13];
            let body: Vec<u8> = (0..usize::from(random() % 40)).map(|_| random()).collect();
            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            bytes = [startup(), vec![kind], length.to_vec(), body].concat();
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        read_all(&mut stream).await;
    }
    let mut huge = TcpStream::connect(server.address).await.unwrap();
    huge.write_all(&[startup(), b"Q\x3f\xff\xff\x00".to_vec()].concat()).await.unwrap();
    let answer = String::from_utf8_lossy(&read_all(&mut huge).await).into_owned();
    assert!(answer.contains("FATAL") && answer.contains("08P01"), "{answer}");
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(&[0, 0, 0]).await.unwrap();
    read_all(&mut silent).await;
    if has_psql() {
        assert_eq!(server.rows("SELECT 1").await, "1\n");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_says_so_and_has_room_again() {
    if !has_psql() {
        return;
    }
    let server =
        Server::start(FakeEngine::default(), PostgresLimits { connections_max: 1, ..PostgresLimits::default() }).await;
    let mut only = TcpStream::connect(server.address).await.unwrap();
    only.write_all(&startup()).await.unwrap();
    let mut first = [0];
    only.read_exact(&mut first).await.unwrap();
    let (_, err, is_ok) = server.run(&["-c", "SELECT 1"]).await;
    assert!(!is_ok && err.contains("too many clients"), "{err}");
    drop(only);
    let deadline = tokio::time::Instant::now() + WAIT;
    while !server.run(&["-c", "SELECT 1"]).await.2 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_dropped() {
    let limits =
        PostgresLimits { statement_max: Duration::from_millis(500), connections_max: 1, ..PostgresLimits::default() };
    let server = Server::start(FakeEngine::default(), limits).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let query = b"SELECT repeat('x', 1000) FROM generate_series(1, 10000000)\0";
    let length = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[startup(), b"Q".to_vec(), length.to_vec(), query.to_vec()].concat()).await.unwrap();
    // Its place is free again although it neither reads nor leaves.
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        assert!(tokio::time::Instant::now() < deadline);
        let mut other = TcpStream::connect(server.address).await.unwrap();
        other.write_all(&startup()).await.unwrap();
        let mut kind = [0];
        if other.read_exact(&mut kind).await.is_ok() && kind == *b"R" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_drivers_agree() {
    let Ok(python) = std::env::var("LEGWORK_CLIENTS_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: LEGWORK_CLIENTS_PYTHON names no Python with psycopg and adbc-driver-postgresql"
        );
        return;
    };
    let server = Server::default().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/postgres_clients.py");
    let url = format!("postgresql://me@127.0.0.1:{}/legwork", server.address.port());
    let mut command = Command::new(python);
    command.args([script, &url, "--samples"]);
    let output = output_of(command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    server.stop().await;
}

#[test]
fn other_machines_cannot_be_let_in() {
    for good in ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        require_loopback(good.parse().unwrap()).unwrap();
    }
    for bad in ["0.0.0.0:1", "192.168.0.1:1", "[::]:1", "[2001:db8::1]:1"] {
        assert_eq!(require_loopback(bad.parse().unwrap()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
