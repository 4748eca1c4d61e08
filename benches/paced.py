"""Sends W1's pings with the present time at a steady rate: paced.py BOOTSTRAP TOPIC SCHEMA_ID RATE SECONDS."""

import random
import struct
import sys
import time

from confluent_kafka import Producer

NULL, FIRST_VALUE = b"\x00", b"\x02"  # branches of a union of null and something


def varint(n):
    n = (n << 1) ^ (n >> 63)
    out = bytearray()
    while n > 0x7F:
        out.append((n & 0x7F) | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def body(device, time_us):
    place = struct.pack("<dd", 52.5 + random.random() * 1e-3, 13.4)
    speed = FIRST_VALUE + struct.pack("<f", 8.0) + FIRST_VALUE + struct.pack("<f", 3.0)
    return varint(len(device)) + device + NULL + varint(time_us) + place + speed


def main():
    bootstrap, topic, schema_id, rate, seconds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "partitioner": "murmur2_random", "queue.buffering.max.messages": 1_000_000})
    frame = b"\x00" + struct.pack(">I", schema_id)
    began = time.monotonic()
    for step in range(seconds * 100):
        now_us = time.time_ns() // 1_000
        for i in range(rate // 100):
            device = f"d{(step * 7 + i * 13) % 10_000:05}".encode()
            producer.produce(topic, key=device, value=frame + body(device, now_us + i))
        producer.poll(0)
        time.sleep(max(0, began + (step + 1) / 100 - time.monotonic()))
    producer.flush(30)


main()
