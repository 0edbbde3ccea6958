"""The flags of the storage, for `serve` and `gc`; every one is named in docs/registry.md."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.model.errors import InvalidArgument
from estiba.model.reference import DEFAULT_DOMAIN, parse_reference
from estiba.registry.storage.quota import Limits
from estiba.registry.storage.s3_driver import S3Settings

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgtp]?)(?:i?b)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DOCKER_HUB = ("registry-1.docker.io", "index.docker.io")
_MAX_PASSWORD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Upstream:
    """The registry that a cache is of; `ttl` in seconds is how long a tag is believed."""

    domain: str
    prefix: str = ""
    credentials: Credentials = ANONYMOUS
    ttl: float = 300.0
    settings: RegistrySettings = field(default_factory=RegistrySettings)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """`root` holds all that is stored, unless `s3` says where that is. Times in seconds;
    an interval of 0 is never."""

    root: Path
    s3: S3Settings | None = None
    limits: Limits = field(default_factory=Limits)
    grace: float = 86400.0
    interval: float = 6 * 3600.0
    delete_untagged: bool = False
    upstream: Upstream | None = None


def add_storage_flags(command: argparse.ArgumentParser) -> None:
    """Where things are stored and what garbage is: for `serve` and `gc`, beside `--root`."""
    add = command.add_argument
    add("--s3-bucket", metavar="NAME", help="store in this bucket, by keys as boto3 finds them")
    add("--s3-prefix", metavar="PATH", help="below this path in the bucket")
    add("--s3-endpoint", metavar="URL", help="a server that speaks S3, if not Amazon's")
    add("--s3-region", metavar="NAME", help="region of the bucket")
    add("--gc-grace", metavar="TIME", help="what is younger is no garbage (default 24h)")
    add("--delete-untagged", action="store_true", help="manifests without a tag are garbage too")


def add_serving_flags(command: argparse.ArgumentParser) -> None:
    """What matters while serving only."""
    add = command.add_argument
    add("--s3-redirect", action="store_true", help="send clients to the bucket for blobs")
    add("--gc-interval", metavar="TIME", help="between collections (default 6h, 0 is never)")
    add("--quota", metavar="SIZE", help="how much the registry may store")
    add(
        "--quota-for",
        action="append",
        metavar="PREFIX=SIZE",
        help="how much the repositories below PREFIX may hold",
    )
    add("--proxy", metavar="URL", help="be a cache of this registry, read-only")
    add("--proxy-user", metavar="NAME", help="who the cache is there")
    add("--proxy-password-file", type=Path, metavar="FILE", help="and its password")
    add("--proxy-ttl", metavar="TIME", help="how long a tag is believed (default 5m)")


def storage_settings(root: Path, given: Mapping[str, Any]) -> StorageSettings:
    """From parsed arguments; what was not given is absent or None.

    Raises InvalidArgument naming the flag that is wrong.
    """
    for flag in ("s3_prefix", "s3_endpoint", "s3_region", "s3_redirect"):
        if given.get(flag) and not given.get("s3_bucket"):
            raise InvalidArgument(f"--{flag.replace('_', '-')} needs --s3-bucket NAME")
    s3 = None
    if bucket := given.get("s3_bucket"):
        s3 = S3Settings(
            bucket,
            prefix=given.get("s3_prefix") or "",
            endpoint=given.get("s3_endpoint"),
            region=given.get("s3_region"),
            redirect=bool(given.get("s3_redirect")),
        )
    return StorageSettings(
        root,
        s3,
        _limits(given),
        grace=_time("--gc-grace", given.get("gc_grace") or "24h"),
        interval=_time("--gc-interval", given.get("gc_interval") or "6h"),
        delete_untagged=bool(given.get("delete_untagged")),
        upstream=_upstream(given),
    )


def _limits(given: Mapping[str, Any]) -> Limits:
    total = given.get("quota")
    prefixes = {}
    for text in given.get("quota_for") or ():
        prefix, equals, size = text.rpartition("=")
        try:
            parse_reference(f"registry.invalid/{prefix}")
        except InvalidArgument:
            equals = ""
        if not equals:
            raise InvalidArgument(f"invalid --quota-for {text[:128]!r}: expected PREFIX=SIZE")
        prefixes[prefix] = parse_size("--quota-for", size)
    return Limits(parse_size("--quota", total) if total else None, prefixes)


def _upstream(given: Mapping[str, Any]) -> Upstream | None:
    url = given.get("proxy")
    user, password_file = given.get("proxy_user"), given.get("proxy_password_file")
    if not url:
        if user or password_file or given.get("proxy_ttl"):
            raise InvalidArgument("the other --proxy flags need --proxy URL")
        return None
    if bool(user) != bool(password_file):
        raise InvalidArgument("--proxy-user and --proxy-password-file go together")
    if "@" in url:
        raise InvalidArgument("invalid --proxy: name and password go into the flags for them")
    parts = urlsplit(url)
    domain, prefix = parts.netloc.lower(), parts.path.strip("/")
    if domain in _DOCKER_HUB:
        domain = DEFAULT_DOMAIN
    try:
        named = parse_reference(f"{domain}/{prefix or 'x/x'}")
        if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise InvalidArgument("expected https://HOST")
        if named.domain != domain:
            raise InvalidArgument("expected a host with a dot or a port")
    except (InvalidArgument, ValueError) as error:
        raise InvalidArgument(f"invalid --proxy {url[:128]!r}: {error}") from error
    credentials = ANONYMOUS
    if user and password_file:
        credentials = Credentials(user, _password(password_file))
    insecure = (domain,) if parts.scheme == "http" else ()
    ttl = _time("--proxy-ttl", given.get("proxy_ttl") or "5m")
    return Upstream(domain, prefix, credentials, ttl, RegistrySettings(insecure=insecure))


def _password(path: Path) -> str:
    """The file's first line. Raises InvalidArgument."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PASSWORD_BYTES).decode().split("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--proxy-password-file {path}: {error}") from error


def parse_size(flag: str, text: str) -> int:
    """Bytes of `10GB`: units are powers of 1024. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise InvalidArgument(f"invalid {flag} {text[:64]!r}: expected a size such as 10GB")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2] or " "))


def _time(flag: str, text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text.strip())
    if match is None:
        raise InvalidArgument(f"invalid {flag} {text[:64]!r}: expected a time such as 90s or 24h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
