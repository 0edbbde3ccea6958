"""Content digests: `algorithm:hex` (image-spec 1.1, descriptor.md#digests)."""

from __future__ import annotations

import hashlib
import re

from estiba.model.errors import InvalidArgument

Digest = str
"""A checked digest string, for example `sha256:6c3c…`; `parse_digest` is the gate."""

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


def parse_digest(text: str) -> Digest:
    """Returns `text` if it is a digest in a supported algorithm.

    Raises InvalidArgument otherwise.
    """
    match = _DIGEST.fullmatch(text)
    if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
        raise InvalidArgument(f"invalid digest {text[:100]!r}: expected sha256:<64 hex digits>")
    return text


def parse_diff_id(text: str) -> Digest:
    """Returns `text` if it names a layer, as sha256. Raises InvalidArgument otherwise."""
    if not text.startswith("sha256:"):
        raise InvalidArgument(f"invalid digest {text[:100]!r} of a layer: expected sha256")
    return parse_digest(text)


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hex_of(digest: Digest) -> str:
    """The part after the algorithm."""
    return digest.partition(":")[2]


def chain_id(parent: Digest | None, diff_id: Digest) -> Digest:
    """ChainID of a layer upon `parent` (image-spec 1.1, config.md#layer-chainid)."""
    if parent is None:
        return diff_id
    return digest_of(f"{parent} {diff_id}".encode())
