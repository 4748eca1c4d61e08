"""Google Cloud Storage in memory, as much of its XML API as object stores' clients use: objects with generations and metadata, conditions on
generations, ranges, lists. fake-gcs-server knows these conditions in the JSON API alone, and a store without them loses data.

gcs_server.py PORT
"""

import hashlib
import sys
import threading
import urllib.parse
import xml.sax.saxutils as xml
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = 1000


@dataclass
class Object:
    content: bytes
    generation: int
    metadata: dict
    updated: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def headers(self):
        tag = hashlib.md5(self.content).hexdigest()
        return {**self.metadata, "ETag": f'"{tag}"', "Last-Modified": format_datetime(self.updated, usegmt=True), "x-goog-generation": str(self.generation)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    buckets, lock, generation = {}, threading.Lock(), 0

    def log_message(self, *args):
        pass

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        bucket, _, name = url.path.lstrip("/").partition("/")
        with self.lock:
            answer = self.answer(bucket, urllib.parse.unquote(name), dict(urllib.parse.parse_qsl(url.query)), body)
        self.reply(*answer)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = handle_one

    def answer(self, bucket, name, query, body):
        """(status, content, headers)"""
        if not name:
            if self.command == "PUT":
                self.buckets.setdefault(bucket, {})
                return 200, b"", {}
            return (200, listing(self.buckets[bucket], query), {"Content-Type": "application/xml"}) if bucket in self.buckets else (404, b"", {})
        # Uploads in parts are not known here.
        if bucket not in self.buckets or self.command == "POST" or "uploadId" in query:
            return 404 if bucket not in self.buckets else 501, b"", {}
        objects = self.buckets[bucket]
        known = objects.get(name)
        if self.command == "PUT":
            wanted = self.headers.get("x-goog-if-generation-match")
            if wanted is not None and int(wanted) != (known.generation if known else 0):
                return 412, b"", {}
            Handler.generation += 1
            metadata = {key: value for key, value in self.headers.items() if key.lower().startswith("x-goog-meta-")}
            objects[name] = Object(body, Handler.generation, metadata)
            return 200, b"", objects[name].headers()
        if known is None:
            return 404, b"", {}
        if self.command == "DELETE":
            del objects[name]
            return 204, b"", {}
        return self.read(known)

    def read(self, found):
        headers = {**found.headers(), "Accept-Ranges": "bytes"}
        wanted, size = self.headers.get("Range"), len(found.content)
        if wanted is None or self.command == "HEAD":
            return 200, found.content, headers
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = (size - int(last), size) if not first else (int(first), int(last or size - 1) + 1)
        start, end = max(start, 0), min(end, size)
        if start >= end:
            return 416, b"", {"Content-Range": f"bytes */{size}"}
        return 206, found.content[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}

    def reply(self, status, content, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def listing(objects, query):
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    after = query.get("continuation-token") or query.get("start-after", "")
    entries = {}
    for name in sorted(name for name in objects if name.startswith(prefix)):
        folder, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        entries[prefix + folder + delimiter if found else name] = None if found else objects[name]
    page = sorted(name for name in entries if name > after)
    parts = []
    for name in page[:PAGE]:
        entry, key = entries[name], xml.escape(name)
        if entry is None:
            parts.append(f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>")
        else:
            tag, updated = xml.escape(entry.headers()["ETag"]), entry.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            size, generation = len(entry.content), entry.generation
            parts.append(f"<Contents><Key>{key}</Key><Generation>{generation}</Generation><LastModified>{updated}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>")
    if len(page) > PAGE:
        parts.append(f"<NextContinuationToken>{xml.escape(page[PAGE - 1])}</NextContinuationToken>")
    return ('<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>' + "".join(parts) + "</ListBucketResult>").encode()


if __name__ == "__main__":
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
