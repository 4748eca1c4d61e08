"""Reads tables of a lake with Python's deltalake and DuckDB and prints what they see, as JSON.

Usage: read_lake.py TABLE=FOLDER... < SQL    (each table is visible to the SQL under its name)
"""
import json
import os
import sys

import duckdb
from deltalake import DeltaTable

connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
answer = {"tables": {}}
for argument in sys.argv[1:]:
    name, folder = argument.split("=", 1)
    table = DeltaTable(folder)
    connection.register(name, table.to_pyarrow_dataset())
    schema = {field.name: field.type.type if hasattr(field.type, "type") else str(field.type) for field in table.schema().fields}
    answer["tables"][name] = {
        "version": table.version(),
        "schema": schema,
        "n_files": len(table.file_uris()),
        "n_rows": connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0],
        "transaction": table.transaction_version("legwork:field.gps-pings.v1/0"),
    }
sql = sys.stdin.read().strip()
if sql:
    answer["rows"] = [[str(value) for value in row] for row in connection.execute(sql).fetchall()]
print(json.dumps(answer), flush=True)
# Threads of the two libraries may abort an orderly exit.
os._exit(0)
