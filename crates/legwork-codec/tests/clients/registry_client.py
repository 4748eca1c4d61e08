#!/usr/bin/env python3
"""Exercises a schema registry with Confluent's Python client: registry_client.py URL

Needs: pip install "confluent-kafka[avro,schema-registry]". The registry holds Legwork's own schemas (BACKWARD). Exits 0 when all checks pass.
"""

import json
import sys
import uuid

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext


def schema(*fields):
    return json.dumps({"type": "record", "name": "Ping", "namespace": "test", "fields": list(fields)})


FIRST = schema({"name": "device_id", "type": "string"}, {"name": "speed", "type": "int"})
SECOND = schema(
    {"name": "device_id", "type": "string"},
    {"name": "speed", "type": "double"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
)
BROKEN = schema({"name": "device_id", "type": "string"}, {"name": "needed", "type": "string"})


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except SchemaRegistryError as error:
        assert error.error_code == code, f"{call.__name__}: expected {code}, found {error}"
    else:
        raise AssertionError(f"{call.__name__}: expected error {code}, found none")


def registration(client, subject):
    first = client.register_schema(subject, Schema(FIRST, "AVRO"))
    again = json.dumps(json.loads(FIRST), indent=2)
    assert client.register_schema(subject, Schema(again, "AVRO"), normalize_schemas=True) == first
    refused(409, client.register_schema, subject, Schema(BROKEN, "AVRO"))
    assert not client.test_compatibility(subject, Schema(BROKEN, "AVRO"))
    assert client.test_compatibility(subject, Schema(SECOND, "AVRO"))
    assert client.test_compatibility_all_versions(subject, Schema(SECOND, "AVRO"))
    second = client.register_schema_full_response(subject, Schema(SECOND, "AVRO")).schema_id
    assert second != first
    assert client.get_versions(subject) == [1, 2]
    assert client.get_latest_version(subject).schema_id == second
    assert client.get_version(subject, 1).schema_id == first
    found = client.lookup_schema(subject, Schema(FIRST, "AVRO"))
    assert (found.version, found.schema_id, found.subject) == (1, first, subject)
    assert json.loads(client.get_schema(second).schema_str) == json.loads(SECOND)
    assert client.get_subjects_by_schema_id(first) == [subject]
    assert [(v.subject, v.version) for v in client.get_schema_versions(second)] == [(subject, 2)]
    assert client.get_schema_types() == ["AVRO"]
    assert client.get_referenced_by(subject, 1) == []
    refused(40401, client.get_latest_version, subject + "-none")
    refused(40402, client.get_version, subject, 7)
    refused(40403, client.lookup_schema, subject, Schema(BROKEN, "AVRO"))
    refused(40403, client.get_schema, 10**6)
    refused(42201, client.register_schema, subject, Schema("{", "AVRO"))
    refused(42201, client.register_schema, subject, Schema('{"type": "object"}', "JSON"))


def levels(client, subject):
    assert client.get_compatibility() == "BACKWARD"
    refused(40408, client.get_compatibility, subject)
    client.set_compatibility(subject, "NONE")
    assert client.get_compatibility(subject) == "NONE"
    third = client.register_schema(subject, Schema(BROKEN, "AVRO"))
    client.clear_latest_caches()
    assert client.get_latest_version(subject).schema_id == third
    client.set_compatibility(subject, "FULL_TRANSITIVE")
    assert client.get_config(subject).compatibility_level.upper() == "FULL_TRANSITIVE"
    refused(42203, client.set_compatibility, subject, "SOMETIMES")
    client.delete_config(subject)
    refused(40408, client.get_compatibility, subject)
    assert client.get_global_mode() == "READWRITE"


def deletion(client, subject):
    refused(40407, client.delete_version, subject, 1, permanent=True)
    assert client.delete_version(subject, 1) == 1
    assert client.get_versions(subject) == [2, 3]
    assert client.delete_subject(subject) == [2, 3]
    assert subject not in client.get_subjects()
    assert subject in client.get_subjects(deleted=True)
    assert client.delete_subject(subject, permanent=True) == [1, 2, 3]
    assert subject not in client.get_subjects(deleted=True)


def serializer(client, topic):
    """Two producers with one schema each; a reader with the newer one reads both."""
    context = SerializationContext(topic, MessageField.VALUE)
    old = AvroSerializer(client, FIRST)({"device_id": "d1", "speed": 3}, context)
    new = AvroSerializer(client, SECOND)({"device_id": "d2", "speed": 1.5, "at": 7}, context)
    assert old[0] == new[0] == 0 and old[1:5] != new[1:5]
    read = AvroDeserializer(client, SECOND)
    assert read(old, context)["speed"] == 3.0
    assert read(new, context)["device_id"] == "d2"
    known = AvroSerializer(client, FIRST, conf={"auto.register.schemas": False})
    assert known({"device_id": "d1", "speed": 3}, context) == old
    latest = AvroSerializer(client, conf={"auto.register.schemas": False, "use.latest.version": True})
    assert latest({"device_id": "d2", "speed": 1.5, "at": 7}, context) == new


def own_schemas(client):
    """A producer of pings with Legwork's own schema, and one whose schema lacks what may be missing."""
    topic = "field.gps-pings.v1"
    context = SerializationContext(topic, MessageField.VALUE)
    registered = client.get_latest_version(f"{topic}-value")
    ping = {"event_id": "e", "source": "s", "event_time": 1_700_000_000_000_000, "device_id": "d", "lat": 52.5, "lon": 13.4}
    serialize = AvroSerializer(client, registered.schema.schema_str)
    framed = serialize(ping, context)
    assert int.from_bytes(framed[1:5], "big") == registered.schema_id
    assert AvroDeserializer(client)(framed, context)["lat"] == 52.5
    fields = json.loads(registered.schema.schema_str)["fields"]
    few = [field for field in fields if field["name"] in ("event_time", "device_id", "lat", "lon")]
    smaller = json.dumps({"type": "record", "name": "GpsPing", "namespace": "legwork.v1", "fields": few})
    framed = AvroSerializer(client, smaller)(ping, context)
    assert int.from_bytes(framed[1:5], "big") != registered.schema_id


def main():
    url = sys.argv[1]
    client = SchemaRegistryClient({"url": url})
    name = f"test-{uuid.uuid4()}"
    registration(client, f"{name}/ä-value")
    levels(client, f"{name}/ä-value")
    deletion(client, f"{name}/ä-value")
    serializer(SchemaRegistryClient({"url": url}), name)
    own_schemas(SchemaRegistryClient({"url": url}))
    print("all checks passed")


if __name__ == "__main__":
    main()
