//! Statements that must not run, and those that must.

use super::engine;
use super::fake::Fake;
use super::sql::rows_of;
use crate::{Checked, Engine, ErrorKind, check};

const HOSTILE: &[&str] = &[
    "COPY rep_calls TO '/tmp/x.csv'",
    "COPY (SELECT 1) TO '/tmp/x.parquet' STORED AS PARQUET",
    "COPY rep_calls FROM '/etc/passwd'",
    "COPY rep_calls FROM PROGRAM 'id'",
    "COPY rep_calls TO STDOUT",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE t (a int) STORED AS CSV LOCATION 's3://bucket/x'",
    "CREATE UNBOUNDED EXTERNAL TABLE t (a int) STORED AS CSV LOCATION '/dev/zero'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t (a int)",
    "CREATE TEMP TABLE t (a int)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW deals AS SELECT 1",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f(x int) RETURNS int RETURN x",
    "CREATE ROLE r",
    "CREATE INDEX i ON deals (deal_id)",
    "CREATE EXTENSION plpython3u",
    "CREATE TRIGGER t BEFORE INSERT ON deals EXECUTE FUNCTION f()",
    "CREATE SEQUENCE s",
    "DROP TABLE deals",
    "DROP VIEW deals",
    "DROP VIEW IF EXISTS rep_movement CASCADE",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION legwork_now",
    "ALTER TABLE deals ADD COLUMN x int",
    "ALTER ROLE postgres SUPERUSER",
    "ALTER SYSTEM SET shared_buffers = 1",
    "TRUNCATE deals",
    "INSERT INTO deals VALUES (1)",
    "INSERT INTO deals SELECT * FROM deals",
    "UPDATE deals SET amount = 0",
    "DELETE FROM deals",
    "MERGE INTO deals d USING deals s ON d.deal_id = s.deal_id WHEN MATCHED THEN DELETE",
    "WITH x AS (INSERT INTO deals VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM deals RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE deals SET amount = 0 RETURNING *) SELECT * FROM x",
    "SELECT * INTO t FROM deals",
    "SELECT 1 AS a INTO TEMP t",
    "SELECT * FROM deals FOR UPDATE",
    "SELECT * FROM deals FOR SHARE",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'data.csv'",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM deals JOIN 'x.json' ON true",
    "SELECT (SELECT count(*) FROM 'x.csv')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('x')",
    "SELECT * FROM parquet_metadata('x')",
    "SELECT * FROM pg_read_file('/etc/passwd')",
    "SELECT * FROM LATERAL pg_ls_dir('/')",
    "TABLE 'x.csv'",
    "SET datafusion.execution.batch_size = 1",
    "SET datafusion.catalog.location = '/'",
    "SET datafusion.runtime.memory_limit = '100G'",
    "SET datafusion.sql_parser.dialect = 'mysql'",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET session_preload_libraries = 'x'",
    "SET application_name = (SELECT version())",
    "RESET datafusion.runtime.memory_limit",
    "GRANT ALL ON deals TO public",
    "REVOKE ALL ON deals FROM public",
    "CALL f()",
    "DO $$ BEGIN END $$",
    "EXECUTE p",
    "PREPARE p AS SELECT 1",
    "PREPARE p AS INSERT INTO deals VALUES (1)",
    "LOAD 'x.so'",
    "INSTALL httpfs",
    "ATTACH DATABASE 'x' AS y",
    "VACUUM",
    "ANALYZE deals",
    "EXPLAIN INSERT INTO deals VALUES (1)",
    "EXPLAIN ANALYZE DELETE FROM deals",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "EXPLAIN COPY deals TO '/tmp/x'",
    "EXPLAIN SELECT * INTO t FROM deals",
    "DESCRIBE 'x.csv'",
    "LISTEN x",
    "NOTIFY x",
    "LOCK TABLE deals",
    "COMMENT ON TABLE deals IS 'x'",
    "USE other",
    "KILL 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE deals",
    "BEGIN; DELETE FROM deals",
    "SELEC 1",
    "SELECT 'open",
];

#[test]
fn hostile_statements_are_refused() {
    for sql in HOSTILE {
        let error = match check(sql) {
            Err(error) => error,
            Ok(checked) => panic!("{sql} passed as {checked:?}"),
        };
        assert!(["42501", "42601"].contains(&error.sqlstate), "{sql}: {error:?}");
    }
    assert!(HOSTILE.len() > 60);
}

#[test]
fn refusals_name_the_way_out() {
    let error = check("DROP TABLE deals").unwrap_err();
    assert_eq!((error.kind, error.sqlstate), (ErrorKind::Forbidden, "42501"));
    assert!(error.message.contains("DROP TABLE") && error.message.contains("SELECT"), "{error}");
    let error = check("SET statement_timeut = 5").unwrap_err();
    assert!(error.message.contains("is it statement_timeout?"), "{error}");
}

#[test]
fn what_clients_send_passes() {
    let tags = [
        ("", ""),
        (" ; -- nothing\n", ""),
        ("SELECT 1;", "SELECT"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("VALUES (1), (2)", "SELECT"),
        ("SHOW TABLES", "SELECT"),
        ("SHOW COLUMNS FROM deals", "SELECT"),
        ("DESCRIBE deals", "SELECT"),
        ("EXPLAIN SELECT 1", "SELECT"),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", "SELECT"),
        ("EXPLAIN (ANALYZE, VERBOSE) SELECT 1", "SELECT"),
        ("SELECT * FROM generate_series(1, 3)", "SELECT"),
        ("SELECT * FROM explain_track('d', '2026-01-01', '2026-01-02')", "SELECT"),
        ("SET extra_float_digits = 3", "SET"),
        ("SET DateStyle TO ISO", "SET"),
        ("SET SESSION search_path TO public, lanes", "SET"),
        ("SET LOCAL statement_timeout = '5s'", "SET"),
        ("SET TIME ZONE 'Europe/Berlin'", "SET"),
        ("SET TimeZone = 'UTC'", "SET"),
        ("SET NAMES 'UTF8'", "SET"),
        ("SET client_encoding = 'UTF8'", "SET"),
        ("SET legwork.as_of = '2026-03-01T00:00:00Z'", "SET"),
        ("SET legwork.as_of TO DEFAULT", "RESET"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
        ("RESET legwork.as_of", "RESET"),
        ("SHOW server_version", "SHOW"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "SHOW"),
        ("BEGIN", "BEGIN"),
        ("BEGIN READ ONLY", "BEGIN"),
        ("START TRANSACTION", "BEGIN"),
        ("COMMIT", "COMMIT"),
        ("ROLLBACK", "ROLLBACK"),
        ("DEALLOCATE ALL", "DEALLOCATE"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("CLOSE ALL", "CLOSE CURSOR"),
    ];
    for (sql, tag) in tags {
        assert_eq!(check(sql).map(|checked| checked.tag()).unwrap_or_else(|e| panic!("{sql}: {e}")), tag, "{sql}");
    }
}

#[test]
fn deep_and_long_statements_are_refused_before_they_are_parsed() {
    let n = 100_000;
    let deep = [
        format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("SELECT 1{}", " OR 1".repeat(n)),
        format!("SELECT 1{}", "+1".repeat(n)),
        format!("SELECT 1{}", "::int".repeat(n)),
        format!("SELECT a{}", "[1]".repeat(n)),
        format!("SELECT 1{}", " IS NULL".repeat(n)),
        format!("SELECT 1{}", " IS DISTINCT FROM 1".repeat(n)),
        format!("SELECT {}1", "NOT ".repeat(n)),
        format!("SELECT {}1", "- ".repeat(n)),
        format!("SELECT {}1{}", "CASE WHEN ".repeat(n), " THEN 1 END".repeat(n)),
        format!("SELECT 1{}", " OR CASE WHEN 1=1 THEN true ELSE false END".repeat(n)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n)),
        format!("SELECT * FROM a t{}", ", a t".repeat(n)),
        format!("SELECT * FROM a{}", " CROSS JOIN a".repeat(n)),
        format!("SELECT * FROM {}a{}", "(SELECT * FROM ".repeat(n), ")".repeat(n)),
        format!("SELECT {}", "f(".repeat(n)),
        format!("SELECT {}", "(".repeat(n)),
        format!("{}SELECT 1", "EXPLAIN ".repeat(n)),
    ];
    for sql in deep {
        let error = check(&sql).unwrap_err();
        assert!(["54001", "42601", "42501"].contains(&error.sqlstate), "{}: {error:?}", &sql[..60]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_expressions_that_pass_also_run() {
    let engine = engine(super::sql::calls());
    let session = engine.session();
    let longest = [
        format!("SELECT n_calls{} FROM rep_calls", "+1".repeat(980)),
        format!("SELECT n_calls{} FROM rep_calls", "::bigint".repeat(980)),
        format!("SELECT * FROM rep_calls WHERE rep_id = 'x'{}", " OR rep_id = 'ann'".repeat(480)),
        format!("SELECT * FROM rep_calls WHERE true{}", " AND n_calls > 0".repeat(480)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(150)),
        format!("SELECT {}1{}", "(".repeat(20), ")".repeat(20)),
    ];
    for sql in longest {
        let rows = rows_of(session.as_ref(), &sql).await.unwrap_or_else(|e| panic!("{}: {e}", &sql[..60]));
        assert!(!rows.is_empty());
    }
}

#[tokio::test]
async fn a_context_of_its_own_finds_no_files_either() {
    let engine = engine(Fake::default());
    let session = engine.session();
    for sql in ["SELECT * FROM '/etc/passwd'", "SELECT * FROM \"/etc/passwd\"", "SELECT * FROM \"/etc/hosts.csv\""] {
        assert!(session.context().sql(sql).await.is_err(), "{sql}");
    }
    let files = datafusion::execution::object_store::ObjectStoreUrl::local_filesystem();
    assert!(session.context().runtime_env().object_store(files).is_err());
    let sql = "CREATE EXTERNAL TABLE t (a text) STORED AS CSV LOCATION '/etc/passwd'";
    assert!(session.context().sql(sql).await.is_err());
    assert!(session.context().sql("CREATE VIEW deals AS SELECT 1").await.is_err());
    assert!(matches!(check("SELECT 1"), Ok(Checked::Query(_))));
}
