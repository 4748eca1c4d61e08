"""Object stores of three kinds on this machine: moto's S3, a small GCS (gcs_server.py), Azurite."""

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
    """A process that serves BUCKET. `endpoint`: the option of Legwork that says where it is; `environ`: what else Legwork needs to know;
    `programs`: of which one must be there."""

    environ, programs = {}, ()

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
    environ = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
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
    # skip_signature is not enough: a write asks the metadata server for a token all the same.
    account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    environ = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_ALLOW_HTTP": "true"}
    endpoint = "base_url"

    def command(self, folder):
        return [sys.executable, str(Path(__file__).with_name("gcs_server.py")), str(self.port)]

    def make_bucket(self):
        self.ask(BUCKET, "PUT", b"")

    def names(self, prefix):
        token, names = "", []
        while token is not None:
            found = xml.fromstring(self.ask(f"{BUCKET}?" + urllib.parse.urlencode({"list-type": "2", "prefix": prefix, "continuation-token": token})))
            names += [item.findtext("Key") for item in found.iter("Contents")]
            token = found.findtext("NextContinuationToken")
        return names

    def content(self, name):
        return self.ask(f"{BUCKET}/{urllib.parse.quote(name)}")


class Azure(Server):
    scheme = "az"
    account = "devstoreaccount1"
    # Azurite's own, in its documentation.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": account, "AZURE_STORAGE_ACCOUNT_KEY": key, "AZURE_ALLOW_HTTP": "true"}
    endpoint = "endpoint"
    programs = ("azurite-blob", "npx")

    def command(self, folder):
        program = ["azurite-blob"] if shutil.which("azurite-blob") else ["npx", "--yes", "--package=azurite@3", "azurite-blob"]
        return [*program, "--inMemoryPersistence", "--blobPort", str(self.port), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]

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
    """What a kind of server needs, where none of it is there."""
    return " or ".join(kind.programs) if kind.programs and not any(map(shutil.which, kind.programs)) else None
