"""The lake as others see it: Python's deltalake and DuckDB, with the query of docs/lake.md."""

import collections
import json
import re
from pathlib import Path
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable

# Keys as docs and contracts state them.
KEYS = {
    "device_movement": ("device_id", "rep_id", "window_start"),
    "rep_positions": ("device_id",),
    "stays": ("device_id", "stay_start"),
    "trips": ("device_id", "trip_start"),
    "device_coverage": ("device_id", "day_start", "h3_cell", "part"),
    "rep_calls": ("rep_id", "window_start"),
    "touches": ("channel", "touch_id"),
    "deals": ("deal_id",),
    "deal_stage_visits": ("deal_id", "visit_no"),
    "rejected_events": ("topic", "partition", "offset", "arrival_time"),
    "late_events": ("topic", "partition", "offset", "arrival_time"),
}
EVENTS = {"gps": "gps_pings", "calls": "calls", "deal-events": "deal_events"}
# What differs between runs that are equal: numbers of checkpoints, and when a window was told to be closed.
NOT_COMPARED = ("revision", "is_open")
# Holds what the chunks of a track that are sealed cover, and where those end depends on when events came.
CUT_BY_ARRIVAL = "device_coverage"

NEWEST = """
SELECT * EXCLUDE (is_deleted) FROM {table}
QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY revision DESC) = 1 AND NOT is_deleted
"""


def tables(lake):
    """Names of the tables that a lake on a folder has."""
    return sorted(folder.name for folder in Path(lake).iterdir() if (folder / "_delta_log").is_dir())


def newest(connection, url, table, version=None, storage_options=None, alias="log"):
    """A relation of a table's newest versions, of an event table its rows, at a version of the table."""
    delta = DeltaTable(f"{url}/{table}", version=version, storage_options=storage_options)
    connection.register(f"{alias}_log", delta.to_pyarrow_dataset())
    if table in EVENTS.values():
        return connection.sql(f"SELECT * FROM {alias}_log")
    # A key's column may itself be called day.
    key = ", ".join(f'"{column}"' for column in dict.fromkeys(("day", "lane", *KEYS[table])))
    return connection.sql(NEWEST.format(table=f"{alias}_log", key=key))


def assert_read_by_duckdb_itself(url, table, version):
    """DuckDB's own reader finds in the files of a version what Arrow's finds. *Returns* how many rows."""
    delta, connection = DeltaTable(f"{url}/{table}", version=version), duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("by_arrow", delta.to_pyarrow_dataset())
    connection.read_parquet(delta.file_uris(), hive_partitioning=False).create_view("by_duckdb")
    columns = ", ".join(f'"{field.name}"' for field in delta.schema().fields if field.name != "day")
    for one, other in (("by_arrow", "by_duckdb"), ("by_duckdb", "by_arrow")):
        only = connection.sql(f"SELECT columns(*)::VARCHAR FROM (SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}) LIMIT 4")
        assert not (rows := only.fetchall()), f"{table}: only {one}: {rows}"
    return connection.sql("SELECT count(*) FROM by_duckdb").fetchone()[0]


def assert_same(lake, other):
    """Both lakes have the same tables, row for row. *Returns* rows by table."""
    names, others = ({*tables(one)} - {CUT_BY_ARRIVAL} for one in (lake, other))
    assert names == others, "one run has tables that the other has not"
    counts = {}
    for table in sorted(names):
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        these, those = newest(connection, lake, table, alias="these"), newest(connection, other, table, alias="those")
        left_out = [column for column in NOT_COMPARED if column in these.columns]
        columns = ", ".join(f'"{column}"' for column in sorted(set(these.columns) - set(left_out)))
        connection.execute(f"CREATE TABLE a AS SELECT {columns} FROM these")
        connection.execute(f"CREATE TABLE b AS SELECT {columns} FROM those")
        differences = {"here": "FROM a EXCEPT ALL FROM b ORDER BY ALL", "there": "FROM b EXCEPT ALL FROM a ORDER BY ALL"}
        only = {where: connection.sql(f"SELECT columns(*)::VARCHAR FROM ({query}) LIMIT 4").fetchall() for where, query in differences.items()}
        counts[table] = connection.sql("SELECT count(*) FROM a").fetchone()[0]
        n_other = connection.sql("SELECT count(*) FROM b").fetchone()[0]
        assert not only["here"] and not only["there"], f"{table} differs, {counts[table]} and {n_other} rows ({columns}): {only}"
        assert counts[table] == n_other > 0 or table == "late_events", f"{table} has no rows"
    return counts


def assert_events_once(lake, ledger):
    """Each accepted event is one row, each rejected one, and as many as were sent."""
    connection = duckdb.connect()
    for kind, table in EVENTS.items():
        if kind not in ledger:
            continue
        rows = newest(connection, lake, table)
        n, n_places, n_ids = rows.aggregate('count(*), count(DISTINCT (topic, partition, "offset")), count(DISTINCT event_id)').fetchone()
        assert n == n_places == n_ids == ledger[kind]["valid"], f"{table}: {n} rows of {n_places} messages and {n_ids} events, {ledger[kind]} sent"
    if CUT_BY_ARRIVAL in tables(lake):
        covered = newest(connection, lake, CUT_BY_ARRIVAL, alias="coverage")
        pings = newest(connection, lake, "gps_pings", alias="pings")
        joined = "(SELECT device_id, sum(n_pings) AS n FROM covered GROUP BY 1) JOIN (SELECT device_id, count(*) AS n_sent FROM pings GROUP BY 1) USING (device_id)"
        assert connection.sql(f"SELECT count(*) FROM {joined} WHERE n > n_sent").fetchone() == (0,), "pings are covered twice"
    rejected = newest(connection, lake, "rejected_events")
    log = connection.sql("SELECT count(*) FROM log_log").fetchone()[0]
    n = sum(sent["garbage"] + sent["future"] for sent in ledger.values())
    assert rejected.count("*").fetchone()[0] == log == n, "rejected events"


def commits(lake, table):
    """(version, actions) of a table's log."""
    for path in sorted((Path(lake) / table / "_delta_log").glob("*.json")):
        if re.fullmatch(r"\d{20}\.json", path.name):
            yield int(path.stem), [json.loads(line) for line in path.read_text().splitlines()]


def assert_checkpoints_once(lake):
    """No table's log has a lane's checkpoint twice, and none goes backwards. *Returns* commits by table."""
    n_commits = {}
    for table in tables(lake):
        numbers, versions = collections.defaultdict(list), []
        for version, actions in commits(lake, table):
            versions.append(version)
            for action in actions:
                if "txn" in action:
                    numbers[action["txn"]["appId"]].append(action["txn"]["version"])
        assert versions == list(range(len(versions))), f"{table}: versions are missing"
        assert numbers, f"{table} has no transaction numbers"
        for lane, through in numbers.items():
            assert all(a < b for a, b in zip(through, through[1:])), f"{table}, {lane}: {through}"
        n_commits[table] = len(versions)
    return n_commits


def orphans(lake):
    """Data files that no version of their table has ever held."""
    found = []
    for table in tables(lake):
        known = {unquote(action["add"]["path"]) for _, actions in commits(lake, table) for action in actions if "add" in action}
        folder = Path(lake) / table
        found += [f"{table}/{path.relative_to(folder)}" for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts and str(path.relative_to(folder)) not in known]
    return found
