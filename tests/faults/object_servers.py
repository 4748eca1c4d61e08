"""Object stores of three kinds on this machine: moto's S3, fake-gcs-server, Azurite."""

import base64
import datetime
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as xml
from pathlib import Path

from e2e import free_port

BUCKET = "legwork"


class Server:
    """A process that serves BUCKET. `options`: what Legwork needs to know beside where it is; `environ`: the same as its environment."""

    options, environ = {}, {}

    def __init__(self, folder):
        self.port, self.log_path = free_port(), folder / "objects.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(self.command(folder), stdout=log, stderr=log, start_new_session=True)
        # What is run for the first time is fetched first.
        deadline = time.monotonic() + 300
        while True:
            try:
                self.make_bucket()
                return
            except Exception:
                assert self.process.poll() is None and time.monotonic() < deadline, self.log_path.read_text(errors="replace")
                time.sleep(0.2)

    def ask(self, path, method="GET", body=None, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def fetch(self, prefix, folder):
        """The lake below a prefix, as a folder."""
        for name in self.names(f"{prefix}/lake/"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content(name))
        return folder / prefix / "lake"

    def stop(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class S3(Server):
    scheme = "s3"
    options = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1", "allow_http": "true"}
    environ = {f"AWS_{name.upper()}": value for name, value in options.items()}
    endpoint = "endpoint"

    def command(self, folder):
        return [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(self.port)]

    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")

    def make_bucket(self):
        self.client().create_bucket(Bucket=BUCKET)

    def names(self, prefix):
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def content(self, name):
        return self.client().get_object(Bucket=BUCKET, Key=name)["Body"].read()


class Gcs(Server):
    scheme = "gs"
    options = {"skip_signature": "true", "allow_http": "true"}
    environ = {f"GOOGLE_{name.upper()}": value for name, value in options.items()}
    endpoint = "base_url"
    needs = "go"

    def command(self, folder):
        program = "github.com/fsouza/fake-gcs-server@v1.56.1"
        return ["go", "run", program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port), "-backend", "memory"]

    def make_bucket(self):
        self.ask("storage/v1/b?project=legwork", "POST", json.dumps({"name": BUCKET}).encode(), **{"content-type": "application/json"})

    def names(self, prefix):
        page, names = "", []
        while page is not None:
            found = json.loads(self.ask(f"storage/v1/b/{BUCKET}/o?" + urllib.parse.urlencode({"prefix": prefix, "pageToken": page})))
            names += [item["name"] for item in found.get("items", [])]
            page = found.get("nextPageToken")
        return names

    def content(self, name):
        return self.ask(f"storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}?alt=media")


class Azure(Server):
    scheme = "az"
    account = "devstoreaccount1"
    # Azurite's own, in its documentation.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    options = {"account_name": account, "account_key": key, "allow_http": "true"}
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": account, "AZURE_STORAGE_ACCOUNT_KEY": key, "AZURE_ALLOW_HTTP": "true"}
    endpoint = "endpoint"
    needs = "npx"

    def command(self, folder):
        azurite = ["npx", "--yes", "--package=azurite@3", "azurite-blob", "--location", str(folder / "azurite")]
        return [*azurite, "--blobPort", str(self.port), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]

    def signed(self):
        """A shared access signature for everything in the account, for a day."""
        until = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {"sp": "rwdlac", "ss": "b", "srt": "sco", "st": "", "se": until, "sip": "", "spr": "http,https", "sv": "2020-02-10"}
        text = "\n".join([self.account, *fields.values(), ""])
        signature = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        given = {name: value for name, value in fields.items() if value}
        return urllib.parse.urlencode({**given, "sig": base64.b64encode(signature).decode()})

    def make_bucket(self):
        self.ask(f"{self.account}/{BUCKET}?restype=container&{self.signed()}", "PUT", b"")

    def names(self, prefix):
        marker, names = "", []
        while marker is not None:
            wanted = urllib.parse.urlencode({"restype": "container", "comp": "list", "prefix": prefix, "marker": marker})
            found = xml.fromstring(self.ask(f"{self.account}/{BUCKET}?{wanted}&{self.signed()}"))
            names += [blob.findtext("Name") for blob in found.iter("Blob")]
            marker = found.findtext("NextMarker") or None
        return names

    def content(self, name):
        return self.ask(f"{self.account}/{BUCKET}/{urllib.parse.quote(name)}?{self.signed()}")


def missing(kind):
    """The program that a kind of server needs and that is not there."""
    needs = getattr(kind, "needs", None)
    return needs if needs and not shutil.which(needs) else None
