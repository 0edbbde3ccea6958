"""A genuine Docker Engine with two genuine registries: one open, one with a password."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.dockerd import GenuineDockerd
from tests.support.registries import genuine_registry

USER, PASSWORD = "joe", "s3cret"


class Peers(NamedTuple):
    engine: GenuineDockerd
    plain: str
    auth: str

    def line(self, text: str) -> str:
        """A command line with the registries' hosts in it."""
        return text.format(plain=self.plain, auth=self.auth)


@contextlib.contextmanager
def genuine_peers(root: Path) -> Iterator[Peers]:
    """The open registry has team/app:1, gone:1 and own:1, whose layer is not in the engine."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(genuine_registry(root / "plain"))
        auth = stack.enter_context(genuine_registry(root / "auth", users={USER: PASSWORD}))
        engine = GenuineDockerd(root)
        stack.callback(engine.close)
        engine.start()
        made = Peers(engine, plain.host, auth.host)
        for name in ("{plain}/team/app:1", "{plain}/team/app:2", "{plain}/gone:1", "{auth}/app"):
            engine.docker("tag", "busybox", made.line(name))
        own = made.line("{plain}/own:1")
        engine.docker("import", "-", own, stdin=random_layer())
        for name in ("{plain}/team/app:1", "{plain}/gone:1", "{plain}/own:1"):
            engine.docker("push", "-q", made.line(name))
        engine.docker("rmi", own)
        yield made


def random_layer(size: int = 4 << 20) -> bytes:
    """A tar with something that cannot be compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("data")
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()
