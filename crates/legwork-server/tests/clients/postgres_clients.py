"""Real PostgreSQL clients against a running Legwork: psycopg 3 (text, binary, prepared, fetch size, COPY) and ADBC.

usage: postgres_clients.py URL [--samples] [--table NAME]

Needs `psycopg[binary]`, `adbc-driver-postgresql`, `pyarrow`. Asserts types and values of literals on any server; with --samples, those of
the table `samples` of the server's own tests; with --table, that both drivers read the same rows of that table. Exits 1 on a difference.
"""

import argparse
import datetime as dt
import decimal
import sys
import threading
import time

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from psycopg import errors

UTC = dt.timezone.utc
LITERALS = """SELECT 1 AS small, 9007199254740993 AS big, 1.5e0 AS measure, true AS flag, 'it''s' AS name, DATE '2026-11-22' AS day,
    arrow_cast('2026-11-22T12:00:00.5Z', 'Timestamp(Microsecond, Some("UTC"))') AS at,
    CAST('12.3400' AS DECIMAL(18,4)) AS money, arrow_cast(NULL, 'Utf8') AS nothing, make_array('a', NULL, 'b"c') AS tags"""
VALUES = (1, 9007199254740993, 1.5, True, "it's", dt.date(2026, 11, 22), dt.datetime(2026, 11, 22, 12, 0, 0, 500000, UTC),
          decimal.Decimal("12.3400"), None, ["a", None, 'b"c'])
SLOW = "SELECT count(*) FROM generate_series(1, 100000000000)"
SAMPLES = [
    (1, "Ada", 0.1, decimal.Decimal("1234.5678"), dt.datetime(2026, 5, 28, 20, 26, 40, 123456, UTC), dt.date(2024, 10, 4), True,
     b"\x00\xff'", ["a", None, 'it\'s "b"']),
    (2,) + (None,) * 8,
    (3, 'it\'s; \\ "x"', -1.5e300, decimal.Decimal("-0.0001"), dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
     dt.date(1969, 12, 31), False, b"", []),
]


def equal(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


def raises(kind, call, what):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what}: no {kind.__name__}")


def literals(url):
    with psycopg.connect(url) as connection:
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                cursor.execute(LITERALS)
                equal(cursor.fetchone(), VALUES, f"literals, binary={binary}")
                oids = [column.type_code for column in cursor.description]
                equal(oids, [20, 20, 701, 16, 25, 1082, 1184, 1700, 25, 1009], "types")


def parameters(url):
    values = [0, -5, 2**40, 1.5, -1e300, True, "x", "it's", "\\' OR 1=1 --", "''", "a\nb\t\\", dt.date(2026, 1, 2),
              dt.datetime(2026, 1, 2, 3, 4, 5, 678, UTC), decimal.Decimal("-12.5"), b"\x00\xff'\\", [1, 2]]
    with psycopg.connect(url, autocommit=True) as connection:
        for style in ("%s", "%b", "%t"):
            for value in values:
                found = connection.execute(f"SELECT {style} AS v", (value,)).fetchone()[0]
                equal(found, value, f"parameter {style}")
        for prepare in (False, True):
            for number in range(8):
                row = connection.execute("SELECT %s + 1, %s || 'y' LIMIT %s", (number, "x", 1), prepare=prepare).fetchone()
                equal(row, (number + 1, "xy"), f"prepare={prepare}")
        found = connection.execute("SELECT value FROM generate_series(1, 9) WHERE value = ANY(%s) ORDER BY 1", ([2, 4],)).fetchall()
        equal(found, [(2,), (4,)], "ANY")
        for query, list_, n_found in (("x = ANY(%s)", ["a", "it's", None], 2), ("x <> ALL(%s)", ["a", "it's"], 1), ("x = ANY(%s)", [], 0)):
            found = connection.execute(f"SELECT count(*) FROM (VALUES ('a'), ('b'), ('it''s')) AS t(x) WHERE {query}", (list_,)).fetchone()
            equal(found, (n_found,), f"{query} {list_}")
        at = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        found = connection.execute("SELECT t = ANY(%s) FROM (SELECT arrow_cast('2026-01-02T03:04:05Z', 'Timestamp(Microsecond, Some(\"UTC\"))') AS t)", ([at],)).fetchone()
        equal(found, (True,), "ANY of times")
        for hours in (4, -30):
            found = connection.execute("SELECT arrow_cast('2026-01-02T03:04:05Z', 'Timestamp(Microsecond, Some(\"UTC\"))') + %s", (dt.timedelta(hours=hours),)).fetchone()
            equal(found, (at + dt.timedelta(hours=hours),), "a span")
        equal(connection.execute("SELECT %s > time '03:00:00'", (dt.time(4, 5, 6, 7),)).fetchone(), (True,), "a time of day")
        equal(connection.execute("SELECT '\\xff00'::bytea").fetchone(), (b"\xff\x00",), "bytes")
        equal(psycopg.ClientCursor(connection).execute("SELECT %s", (b"\xff\\",)).fetchone(), (b"\xff\\",), "bytes in the statement")
        equal(connection.execute("SELECT %s::text", (None,)).fetchone(), (None,), "null")
        raises(psycopg.DataError, lambda: connection.execute("SELECT 1 LIMIT %s", ("x",)), "a text for a number")
        raises(psycopg.Error, lambda: connection.execute("SELECT 1; SELECT %s", (1,)), "two statements with parameters")


def session(url):
    with psycopg.connect(url) as connection:
        equal(connection.info.parameter_status("server_version")[:2], "16", "server_version")
        equal(connection.info.parameter_status("TimeZone"), "UTC", "TimeZone")
        with connection.transaction():
            with connection.transaction():
                connection.execute("SELECT 1")
        raises(errors.UndefinedColumn, lambda: connection.execute("SELECT nothing FROM information_schema.tables"), "undefined column")
        raises(errors.InFailedSqlTransaction, lambda: connection.execute("SELECT 1"), "failed transaction")
        connection.rollback()
        equal(connection.execute("SELECT 2").fetchone(), (2,), "after rollback")
        for refused in ("CREATE TABLE x (a int)", "DELETE FROM x", "COPY (SELECT 1) TO '/tmp/x'"):
            raises(psycopg.Error, lambda: connection.execute(refused), refused)
            connection.rollback()
        rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'").fetchall()
        assert rows, "information_schema lists no tables"


def streams(url):
    with psycopg.connect(url) as connection:
        with connection.cursor() as cursor:
            total = sum(row[0] for row in cursor.stream("SELECT value FROM generate_series(1, 50000)"))
            equal(total, 50000 * 50001 // 2, "stream")
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT 1 AS a, 'x\ty' AS b, NULL AS c) TO STDOUT") as copy:
            equal(b"".join(copy), b"1\tx\\ty\t\\N\n", "copy text")
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT 7 AS a, 'x' AS b) TO STDOUT (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "text"])
            equal(list(copy.rows()), [(7, "x")], "copy binary")


def cancel(url):
    with psycopg.connect(url, autocommit=True) as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        start = time.monotonic()
        raises(errors.QueryCanceled, lambda: connection.execute(SLOW), "cancel")
        assert time.monotonic() - start < 10, "the cancellation came late"
        timer.join()
        equal(connection.execute("SELECT 3").fetchone(), (3,), "after a cancellation")
        connection.execute("SET statement_timeout = '200ms'")
        raises(errors.QueryCanceled, lambda: connection.execute(SLOW), "statement_timeout")


def drivers_agree(url, table):
    with psycopg.connect(url) as connection, adbc.connect(url) as other:
        columns = [column.name for column in connection.execute(f"SELECT * FROM {table} LIMIT 0").description]
        sql = f"SELECT * FROM {table} ORDER BY " + ", ".join(str(idx + 1) for idx in range(min(3, len(columns)))) + " LIMIT 1000"
        rows = connection.execute(sql, binary=True).fetchall()
        with other.cursor() as cursor:
            cursor.execute(sql)
            table_found = cursor.fetch_arrow_table()
        equal(table_found.column_names, columns, "columns")
        equal(table_found.num_rows, len(rows), "rows")


def arrow(url):
    with adbc.connect(url) as connection:
        with connection.cursor() as cursor:
            cursor.execute(LITERALS)
            found = cursor.fetch_arrow_table()
        kinds = [str(field.type) for field in found.schema]
        equal(kinds[:7], ["int64", "int64", "double", "bool", "string", "date32[day]", "timestamp[us, tz=UTC]"], "ADBC types")
        assert pa.types.is_list(found.schema.field("tags").type), "ADBC type of tags"
        row = [column[0].as_py() for column in found.columns]
        wanted = list(VALUES)
        wanted[7] = row[7]
        equal(decimal.Decimal(row[7]), VALUES[7], "ADBC numeric")
        equal(row, wanted, "ADBC values")
        with connection.cursor() as cursor:
            cursor.execute("SELECT value FROM generate_series(1, 100000)")
            equal(cursor.fetch_arrow_table().column(0).to_pylist()[-1], 100000, "ADBC rows")
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 AS a WHERE false")
            equal(cursor.fetch_arrow_table().num_rows, 0, "ADBC no rows")
        with connection.cursor() as cursor:
            cursor.execute("SELECT $1 + 1 AS a", parameters=(41,))
            equal(cursor.fetchone(), (42,), "ADBC parameter")
        names = connection.adbc_get_table_types()
        assert "table" in names, names
        for depth in ("catalogs", "db_schemas", "tables", "all"):
            assert connection.adbc_get_objects(depth=depth).read_all().num_rows, depth


def samples(url):
    with psycopg.connect(url) as connection:
        for binary in (False, True):
            found = connection.execute("SELECT * FROM samples ORDER BY id", binary=binary).fetchall()
            equal(found, SAMPLES, f"samples, binary={binary}")
        found = connection.execute("SELECT id FROM samples WHERE at < %s AND name = %s", (dt.datetime.now(UTC), SAMPLES[2][1])).fetchall()
        equal(found, [(3,)], "parameters of columns")
        found = connection.execute("SELECT id FROM samples WHERE at = %s AND day = %s AND amount = %s AND good = %s AND raw = %s",
                                   (SAMPLES[0][4], SAMPLES[0][5], SAMPLES[0][3], True, SAMPLES[0][7])).fetchall()
        equal(found, [(1,)], "parameters of every type")
    with adbc.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, name, share, at, day, good, raw, tags FROM samples ORDER BY id")
        found = [tuple(row.values()) for row in cursor.fetch_arrow_table().to_pylist()]
        equal(found, [row[:3] + row[4:] for row in SAMPLES], "ADBC samples")
        schema = connection.adbc_get_table_schema("samples")
        equal(schema.names[:2], ["id", "name"], "ADBC table schema")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--table")
    arguments = parser.parse_args()
    checks = [literals, parameters, session, streams, cancel, arrow] + ([samples] if arguments.samples else [])
    n_failed = 0
    for check in checks:
        try:
            check(arguments.url)
            print(f"ok      {check.__name__}")
        except Exception as error:  # every failure is told, not only the first
            n_failed += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}")
    if arguments.table:
        drivers_agree(arguments.url, arguments.table)
        print(f"ok      {arguments.table}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
