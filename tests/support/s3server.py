"""A server that speaks S3 (moto), as a process of its own on a private port."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from estiba.registry.storage.s3_driver import S3Settings, client_of

_ADDRESS = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class S3Server:
    """Keeps what it is given in memory until it ends."""

    address: str

    def settings(self, *, prefix: str = "", redirect: bool = False) -> S3Settings:
        """Of a new bucket."""
        settings = S3Settings(
            bucket=f"test-{uuid.uuid4()}",
            prefix=prefix,
            endpoint=self.address,
            region="us-east-1",
            access_key="key",
            secret_key="secret",
            redirect=redirect,
        )
        client_of(settings).create_bucket(Bucket=settings.bucket)
        return settings


@contextmanager
def s3_server() -> Iterator[S3Server]:
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := _ADDRESS.search(line):
                break
        else:
            raise AssertionError(f"moto does not start: {''.join(said)}")
        # It logs every request: a full pipe would stop it.
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        yield S3Server(found[1])
        process.kill()
        drain.join()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
