"""Image references: the grammar of distribution/reference, with Docker's defaults.

reference  := name [ ":" tag ] [ "@" digest ]
name       := [ domain "/" ] path-component [ "/" path-component ]*
domain     := host [ ":" port ]           host may be a bracketed IPv6 address
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalized reference; `repository` is `domain/path`."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: no docker.io, no library/."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as people write it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.familiar_name}{tag}{digest}"

    @property
    def tagged(self) -> Reference:
        """Itself, with the tag `latest` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG, None)

    def with_tag(self, tag: str) -> Reference:
        """With another tag, which came apart from the name; itself for an empty one.

        Raises InvalidArgument.
        """
        if not tag:
            return self
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid tag format: {tag[:64]!r}")
        return Reference(self.domain, self.path, tag, self.digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Parses and normalizes what a user wrote.

    Raises InvalidArgument saying which part is wrong.
    """
    if len(text) > 1024:
        raise InvalidArgument("invalid reference format: longer than 1024 characters")
    rest, at, digest = text.partition("@")
    checked = parse_digest(digest) if at else None
    tag = None
    head, colon, tail = rest.rpartition(":")
    if colon and "/" not in tail and "]" not in tail:
        rest, tag = head, tail
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid reference format: bad tag {tag[:64]!r} in {text!r}")
    domain, path = _split_domain(rest)
    if not _DOMAIN.fullmatch(domain):
        raise InvalidArgument(f"invalid reference format: bad registry host {domain[:64]!r}")
    if not _PATH.fullmatch(path):
        why = "repository name must be lowercase" if path != path.lower() else "bad repository name"
        raise InvalidArgument(f"invalid reference format: {why} in {text!r}")
    if len(domain) + 1 + len(path) > MAX_NAME_LENGTH:
        raise InvalidArgument("invalid reference format: repository name over 255 characters")
    return Reference(domain, path, tag, checked)


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
