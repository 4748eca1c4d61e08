"""A seeded, paced stream of pings, calls and deal events to a Kafka, as one process: stream.py SPECIFICATION-AS-JSON.

It behaves as phones and CRMs do: late events, whole hours uploaded newest first, events sent twice, patches in the wrong order, garbage and
tombstones. What it sent is its only output, as JSON: the tests count by it, not by what the program says.
"""

import dataclasses
import io
import json
import math
import random
import struct
import sys
import time
from decimal import Decimal
from pathlib import Path

US = 1_000_000
SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
KINDS = ("gps", "calls", "deal-events")
# Of a thousand events.
SHARE = {"gps": 850, "calls": 100, "deal-events": 50}
N_LATE, N_TWICE, N_GARBAGE, N_TOMBSTONES, N_FUTURE = 40, 6, 2, 1, 1
# A device that is off line uploads so many pings newest first.
BACKLOG = 40
STAGES = ("new", "qualified", "proposal", "negotiation", "won", "lost")


def topics_of_stream(topics, partitions=4):
    """Topics for one stream, from which the broker deletes nothing."""
    return {kind: topics(kind, partitions=partitions, **{"retention.ms": "-1"}) for kind in KINDS}


@dataclasses.dataclass
class Stream:
    """What is sent. Event time runs `speed` times as fast as the wall clock and ends about when the stream ends."""

    bootstrap: str
    registry: str
    topics: dict
    seconds: float
    seed: int = 1
    rate: int = 10_000
    speed: float = 300.0
    # Pings of a device are about this far apart in event time.
    ping_every_s: float = 15.0

    def start(self, stderr=None):
        import subprocess

        process = subprocess.Popen([sys.executable, __file__, json.dumps(dataclasses.asdict(self))], stdout=subprocess.PIPE, stderr=stderr)
        return Sending(process)


class Sending:
    """A stream on its way."""

    def __init__(self, process):
        self.process = process

    def is_running(self):
        return self.process.poll() is None

    def ledger(self, within_s=600):
        """Waits for the end; {kind: {valid, twice, garbage, tombstones, future, sent}}."""
        out, _ = self.process.communicate(timeout=within_s)
        assert self.process.returncode == 0, f"the stream ended with {self.process.returncode}"
        return json.loads(out)

    def stop(self):
        if self.is_running():
            self.process.kill()
            self.process.wait()


class Events:
    """Events of one seed, one after the other."""

    def __init__(self, seed, n_devices, start_us):
        self.random = random.Random(seed)
        self.n_devices, self.start_us = n_devices, start_us
        self.backlogs = {}
        self.n = dict.fromkeys(KINDS, 0)
        self.calls, self.stages = [], {}

    def next(self, kind, now_us):
        """(key, event) of this event time, or None when it is kept back."""
        self.n[kind] += 1
        return {"gps": self.ping, "calls": self.call, "deal-events": self.patch}[kind](self.n[kind], now_us)

    def common(self, kind, number, time_us):
        return {"event_id": f"{kind}{number}", "source": "faults", "event_time": time_us, "sequence": number if number % 3 else None}

    def ping(self, number, now_us):
        device = number * 7919 % self.n_devices
        # No two pings of a device at one time: which wins is a test of its own.
        time_us = now_us + number % 1_000
        seconds = (time_us - self.start_us) / US
        # Twelve minutes of driving, eight of standing, out and back.
        lap, into = divmod(seconds + device * 37, 1_200)
        along_m = min(into, 720) * 11.0
        along_m = along_m if int(lap) % 2 == 0 else 720 * 11.0 - along_m
        noise = self.random.gauss(0, 4.0)
        event = {
            **self.common("p", number, time_us),
            "device_id": f"d{device:05}",
            "rep_id": f"r{device % 500}" if device % 4 else None,
            "lat": round(40 + device % 100 * 0.15 + (along_m + noise) / 111_195, 7),
            "lon": round(-100 + device // 100 * 0.2 + noise / 111_195 / math.cos(math.radians(45)), 7),
            "accuracy_m": float(self.random.choice((4, 8, 12, 250))),
            "battery_pct": float(100 - number % 100),
            "mock": True if number % 997 == 0 else None,
        }
        return event["device_id"], event

    def call(self, number, now_us):
        if self.calls and number % 10 == 0:
            # A correction: its start moves, now and then into another window.
            first = self.random.choice(self.calls)
            event = {**first, **self.common("c", number, first["event_time"] + 60 * US)}
            event |= {"start_time": first["start_time"] - 200 * US, "duration_s": first["duration_s"] + 0.5, "status": "completed"}
            return event["rep_id"], event
        event = {
            **self.common("c", number, now_us),
            "call_id": f"call{number}",
            "rep_id": f"r{number * 31 % 500}",
            "direction": self.random.choice(("inbound", "outbound")),
            "status": self.random.choice(("completed", "no_answer", "voicemail")),
            "start_time": now_us - 90 * US,
            "duration_s": float(self.random.randrange(600)),
            "peer": f"+4930{number % 10_000}",
            "deal_id": f"deal{number % 2_000}" if number % 5 else None,
        }
        self.calls.append(event)
        del self.calls[:-500]
        return event["rep_id"], event

    def patch(self, number, now_us):
        # Deals come and go: two thousand at a time, each with some ten patches.
        deal = f"deal{number // 10 + self.random.randrange(2_000)}"
        event = {**self.common("e", number, now_us), "deal_id": deal}
        which = self.random.randrange(6)
        if which < 3 or deal not in self.stages:
            stage = self.stages[deal] = self.random.choice(STAGES)
            event |= {"stage": stage, "pipeline_id": "p1" if number % 9 else "p2"}
        elif which == 3:
            event |= {"amount": Decimal(number) / 100, "currency": "EUR"}
        elif which == 4:
            event |= {"owner_id": f"r{number % 500}", "probability": number % 100 / 100}
        else:
            event |= {"cleared": ["amount", "currency"]}
        return deal, event

    def out_of_order(self, kind, key, event):
        """What is to be sent now, (kind, key, event): nothing, or this one, or all that was kept back."""
        size = BACKLOG if kind == "gps" else 3
        backlog = self.backlogs.get((kind, key))
        if backlog is not None:
            backlog.append((kind, key, event))
            return self.backlogs.pop((kind, key))[::-1] if len(backlog) == size else []
        if self.random.randrange(1_000) * size < N_LATE:
            self.backlogs[kind, key] = [(kind, key, event)]
            return []
        return [(kind, key, event)]

    def left(self):
        backlogs, self.backlogs = self.backlogs, {}
        return [sent for backlog in backlogs.values() for sent in backlog[::-1]]


class Sender:
    """Frames, sends, counts."""

    def __init__(self, spec):
        import fastavro
        from confluent_kafka import Producer
        from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

        self.topics, self.random = spec.topics, random.Random(spec.seed + 1)
        registry = SchemaRegistryClient({"url": spec.registry})
        self.write = fastavro.schemaless_writer
        self.schemas, self.frames, self.kinds = {}, {}, {}
        for kind in KINDS:
            text = (SCHEMAS / f"{kind}.avsc").read_text()
            self.schemas[kind] = fastavro.parse_schema(json.loads(text))
            self.frames[kind] = b"\x00" + struct.pack(">I", registry.register_schema(f"{spec.topics[kind]}-value", Schema(text, "AVRO")))
        settings = {"enable.idempotence": True, "message.timeout.ms": 300_000, "queue.buffering.max.messages": 1_000_000, "linger.ms": 5}
        self.producer = Producer({"bootstrap.servers": spec.bootstrap, "partitioner": "murmur2_random", **settings})
        names = ("valid", "twice", "garbage", "tombstones", "future", "sent", "failed")
        self.ledger = {kind: dict.fromkeys(names, 0) for kind in KINDS}

    def encoded(self, kind, event):
        out = io.BytesIO()
        self.write(out, self.schemas[kind], event)
        return self.frames[kind] + out.getvalue()

    def raw(self, kind, key, value):
        def delivered(error, _):
            if error is not None:
                self.ledger[kind]["failed"] += 1

        while True:
            try:
                self.producer.produce(self.topics[kind], key=key, value=value, on_delivery=delivered)
                break
            except BufferError:
                self.producer.poll(0.05)
        self.ledger[kind]["sent"] += 1

    def send(self, kind, key, event):
        ledger, value = self.ledger[kind], self.encoded(kind, event)
        self.raw(kind, key, value)
        ledger["valid"] += 1
        luck = self.random.randrange(1_000)
        if luck < N_TWICE:
            self.raw(kind, key, value)
            ledger["twice"] += 1
        elif luck < N_TWICE + N_GARBAGE:
            self.raw(kind, key, self.random.choice((value[:-2], value + b"\x00", b"\x01" + value, b"")))
            ledger["garbage"] += 1
        elif luck < N_TWICE + N_GARBAGE + N_TOMBSTONES:
            self.raw(kind, key, None)
            ledger["tombstones"] += 1
        elif luck < N_TWICE + N_GARBAGE + N_TOMBSTONES + N_FUTURE:
            self.raw(kind, key, self.encoded(kind, {**event, "event_id": event["event_id"] + "f", "event_time": event["event_time"] + 10**14}))
            ledger["future"] += 1


def main():
    spec = Stream(**json.loads(sys.argv[1]))
    pings_a_second = spec.rate * SHARE["gps"] / 1_000
    n_devices = max(8, round(pings_a_second * spec.ping_every_s / spec.speed))
    start_us = time.time_ns() // 1_000 - round(spec.seconds * spec.speed * US) - 60 * US
    events, sender = Events(spec.seed, n_devices, start_us), Sender(spec)
    began, number, n = time.monotonic(), 0, round(spec.rate * spec.seconds)
    while number < n:
        due = min(n, round((time.monotonic() - began) * spec.rate))
        for number in range(number, due):
            place = number * 7 % 1_000
            kind = "gps" if place < SHARE["gps"] else "calls" if place < SHARE["gps"] + SHARE["calls"] else "deal-events"
            key, event = events.next(kind, start_us + number * round(spec.speed * US) // spec.rate)
            for sent in events.out_of_order(kind, key, event):
                sender.send(*sent)
        number = due
        sender.producer.poll(0)
        time.sleep(0.01)
    for sent in events.left():
        sender.send(*sent)
    assert sender.producer.flush(300) == 0, "some of the stream was not acknowledged"
    assert all(ledger["failed"] == 0 for ledger in sender.ledger.values()), sender.ledger
    print(json.dumps(sender.ledger))


if __name__ == "__main__":
    main()
