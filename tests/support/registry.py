"""Our own registry as a process with a root and a port of its own, and a client for it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

from tests.support.daemon import DEADLINE_S, wait_until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
POLICY = """
[[repository]]
match = "public/*"
read = ["anonymous"]
write = ["ana"]

[[repository]]
match = "ana/*"
read = ["ana"]
write = ["ana"]
delete = ["ana"]

[[repository]]
match = "shared/*"
read = ["*"]
write = ["ana"]
"""
_ADDRESS = re.compile(r" on (?:127\.0\.0\.1|0\.0\.0\.0):(\d+)$", re.MULTILINE)


def write_people(path: Path, **passwords: str) -> None:
    """A file of passwords, as htpasswd makes it."""
    path.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
            for name, password in passwords.items()
        )
    )


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first error's."""
        return str(self.json["errors"][0]["code"])

    def header(self, name: str) -> str:
        return self.headers.get(name) or ""


@dataclass
class OwnRegistry:
    """`estiba registry serve` with `flags`; ends when its context does."""

    root: Path
    flags: tuple[str, ...] = ()
    context: ssl.SSLContext | None = None
    authorization: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.root.with_name(f"{self.root.name}.log")

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> OwnRegistry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens on a free port at first, and on the same one again later."""
        command = [sys.executable, "-m", "estiba.registry", "serve", "--root", str(self.root)]
        if "--addr" not in self.flags:
            command += ["--addr", f"127.0.0.1:{self.port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *self.flags], stdout=log, stderr=log, start_new_session=True
            )
        self.port = int(wait_until(self._address, what="the registry"))

    def _address(self) -> str:
        assert self.process is not None
        text = self.log.read_text()
        assert self.process.poll() is None, f"the registry ended:\n{text}"
        found = _ADDRESS.search(text)
        return found[1] if found else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    # -- asking ----------------------------------------------------------------------------

    def connect(self) -> http.client.HTTPConnection:
        if self.context is not None:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=DEADLINE_S, context=self.context
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        **headers: str,
    ) -> Answer:
        """Header names are given with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.authorization and "Authorization" not in named:
            named["Authorization"] = self.authorization
        connection = self.connect()
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def sign_in(self, user: str, password: str) -> None:
        """From now on, with Basic."""
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.authorization = f"Basic {pair}"

    # -- pushing ---------------------------------------------------------------------------

    def begin(self, name: str) -> str:
        """The path of a new upload."""
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.header("Location")

    def push_blob(self, name: str, data: bytes) -> str:
        digest = digest_of(data)
        answer = self.ask("PUT", f"{self.begin(name)}?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(
        self, name: str, content: dict[str, Any], reference: str = "", kind: str = MANIFEST
    ) -> str:
        """By its digest, unless a tag is given."""
        data = json.dumps(content).encode()
        digest = digest_of(data)
        answer = self.ask(
            "PUT", f"/v2/{name}/manifests/{reference or digest}", data, Content_Type=kind
        )
        assert answer.status == 201, answer
        assert answer.header("Docker-Content-Digest") == digest
        return digest

    def push_image(self, name: str, tag: str = "", seed: str = "", **more: Any) -> str:
        """A small one that `seed` sets apart; `more` goes into its manifest."""
        return self.push_manifest(name, {**self.image(name, seed), **more}, tag)

    def image(self, name: str, seed: str = "") -> dict[str, Any]:
        """The manifest of an image whose blobs are pushed."""
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "created": "2026-01-02T03:04:05Z",
                "config": {"Labels": {"seed": seed}},
                "rootfs": {"type": "layers", "diff_ids": []},
                "history": [{"created_by": "made by a test", "comment": seed}],
            }
        ).encode()
        layer = f"layer {seed}".encode()
        return {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config, self.push_blob(name, config)),
            "layers": [descriptor(LAYER, layer, self.push_blob(name, layer))],
        }


def descriptor(kind: str, data: bytes, digest: str = "") -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest or digest_of(data), "size": len(data)}
