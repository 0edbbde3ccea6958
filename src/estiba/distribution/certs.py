"""Whom TLS trusts: the system's authorities and `certs.d/<host[:port]>`, as Docker lays it out.

`*.crt` are certificate authorities, `*.cert` with `*.key` of the same name client certificates.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable
from pathlib import Path

from estiba.model.errors import FailedPrecondition

_Stamp = tuple[tuple[Path, int, int], ...]


def tls_context(folders: Iterable[Path], *, verify: bool) -> ssl.SSLContext:
    """Raises FailedPrecondition for files in `folders` that are no certificates."""
    return _context(_stamp(folders), verify)


def _stamp(folders: Iterable[Path]) -> _Stamp:
    """The files that matter, with what changes when they do."""
    found = []
    for folder in folders:
        try:
            files = sorted(folder.iterdir())
        except OSError:
            continue
        for path in files:
            if path.suffix in (".crt", ".cert", ".key"):
                status = path.stat()
                found.append((path, status.st_mtime_ns, status.st_size))
    return tuple(found)


@functools.lru_cache(maxsize=32)
def _context(stamp: _Stamp, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    paths = [path for path, _, _ in stamp]
    for path in paths:
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                context.load_cert_chain(path, _key_of(path, paths))
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"{path} cannot be used for TLS: {error}") from error
    return context


def _key_of(certificate: Path, paths: list[Path]) -> Path:
    key = certificate.with_suffix(".key")
    if key not in paths:
        raise FailedPrecondition(
            f"missing key {key.name} for client certificate {certificate}; "
            "certificate authorities must have the extension .crt"
        )
    return key
