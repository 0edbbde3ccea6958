"""Addresses of git repositories as Dockerfiles and `build` write them. Pure.

`https://host/repo.git#ref:directory`, `git@host:repo`, `git://`, `ssh://`, and the form with
`?ref=…&subdir=…`. A password never stays in the address that programs and logs see.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from estiba.model.errors import InvalidArgument

_SCP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:].*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REF = re.compile(
    r"(?![-/.])(?!.*(?:\.\.|//|@\{|\.lock(?:/|\Z)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])"
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHECKSUM = re.compile(r"[0-9a-f]{7,64}")
_PRINTABLE = re.compile(r"[^\x00-\x20\x7f]+")
_SCHEMES = ("http", "https", "git", "ssh")
_MAX_CHARS = 4096
_QUERY = ("branch", "tag", "ref", "commit", "checksum", "subdir", "submodules", "keep-git-dir")
_BOOLEANS = {"": True, "true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class GitSource:
    """`remote` is what git gets; empty `ref` means the remote's own choice (HEAD).

    `commit` is what the ref must lead to, or the beginning of it. `authorization` is a
    header's value for `origin` alone. None: the instruction decides.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""
    submodules: bool = True
    keep_git_dir: bool | None = None
    authorization: str = field(default="", repr=False)

    @property
    def origin(self) -> str:
        """`https://host:port/`; empty where git speaks no HTTP."""
        parts = urlsplit(self.remote)
        is_web = parts.scheme in ("http", "https")
        return f"{parts.scheme}://{parts.netloc}/" if is_web else ""

    @property
    def host(self) -> str:
        if "://" in self.remote:
            return urlsplit(self.remote).netloc.rpartition("@")[2]
        return self.remote.partition(":")[0].rpartition("@")[2]

    @property
    def shown(self) -> str:
        """For people: no password is in it."""
        end = f"#{self.ref}" if self.ref or self.subdir else ""
        return f"{self.remote}{end}{f':{self.subdir}' if self.subdir else ''}"

    @property
    def is_commit(self) -> bool:
        """Whether the ref is a whole commit id."""
        return _COMMIT.fullmatch(self.ref) is not None


def is_git_address(text: str) -> bool:
    """As docker tells them apart: a web address is one of git when its path ends in `.git`."""
    address = re.split(r"[?#]", text, maxsplit=1)[0]
    if text.startswith(("http://", "https://")):
        return address.endswith(".git")
    return text.startswith(("git://", "ssh://", "github.com/")) or bool(_SCP.match(text))


def parse_git_url(text: str) -> GitSource:
    """Raises InvalidArgument for what names no repository, or names it in a way unknown."""
    if len(text) > _MAX_CHARS or not _PRINTABLE.fullmatch(text):
        raise InvalidArgument("invalid git URL: too long, or with spaces or control characters")
    if text.startswith("github.com/"):
        text = f"https://{text}"
    address, _, fragment = text.partition("#")
    address, has_query, query = address.partition("?")
    source = _remote(address)
    ref, _, subdir = fragment.partition(":")
    source = replace(source, ref=_checked_ref(ref), subdir=unquote(subdir))
    return _queried(source, query) if has_query else source


def _remote(address: str) -> GitSource:
    if "://" not in address:
        if not _SCP.fullmatch(address):
            raise InvalidArgument(f"invalid git URL {_hide(address)!r}: use SCHEME://HOST/PATH")
        return GitSource(remote=address)
    try:
        parts = urlsplit(address)
        user, _, host = parts.netloc.rpartition("@")
        port = parts.port
    except ValueError:
        raise InvalidArgument("invalid git URL: its host or port is none") from None
    if parts.scheme not in _SCHEMES:
        raise InvalidArgument(
            f"invalid git URL: {parts.scheme[:16]!r} is no way to git; use "
            "https://, http://, ssh://, git:// or git@HOST:PATH"
        )
    bare = host.removesuffix(f":{port}") if port is not None else host
    if not _HOST.fullmatch(bare) or not parts.path.strip("/"):
        raise InvalidArgument(f"invalid git URL {_hide(address)!r}: a host or a path is missing")
    name, colon, password = user.partition(":")
    if parts.scheme == "ssh":
        if colon or (name and not _USER.fullmatch(name)):
            raise InvalidArgument("invalid git URL: ssh takes a plain user name, no password")
        return GitSource(remote=urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))
    authorization = ""
    if user:
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    remote = urlunsplit((parts.scheme, host, parts.path, "", ""))
    return GitSource(remote=remote, authorization=authorization)


def _queried(source: GitSource, query: str) -> GitSource:
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _QUERY:
            raise InvalidArgument(
                f"invalid git URL: unknown {name[:32]!r} in its query; "
                f"known are {', '.join(_QUERY)}"
            )
        if values.setdefault(name, value) != value:
            raise InvalidArgument(f"invalid git URL: {name} is given twice")
    refs = {
        "ref": values.get("ref", ""),
        "branch": f"refs/heads/{values['branch']}" if values.get("branch") else "",
        "tag": f"refs/tags/{values['tag']}" if values.get("tag") else "",
        "#": source.ref,
    }
    given = {value for value in refs.values() if value}
    if len(given) > 1:
        raise InvalidArgument("invalid git URL: ref, branch, tag and # name different things")
    commit = values.get("commit") or values.get("checksum", "")
    if values.get("checksum", commit) != commit or (commit and not _CHECKSUM.fullmatch(commit)):
        raise InvalidArgument("invalid git URL: commit= takes 7 to 64 hex digits in lower case")
    subdir = values.get("subdir", "")
    if subdir and source.subdir not in ("", subdir):
        raise InvalidArgument("invalid git URL: subdir= and # name different directories")
    ref = _checked_ref(next(iter(given), ""))
    return replace(
        source,
        ref=ref or (commit if _COMMIT.fullmatch(commit) else ""),
        subdir=subdir or source.subdir,
        commit=commit,
        submodules=_boolean(values, "submodules") is not False,
        keep_git_dir=_boolean(values, "keep-git-dir"),
    )


def _boolean(values: dict[str, str], name: str) -> bool | None:
    if name not in values:
        return None
    if values[name].lower() not in _BOOLEANS:
        raise InvalidArgument(f"invalid git URL: {name} is true or false")
    return _BOOLEANS[values[name].lower()]


def _checked_ref(ref: str) -> str:
    """As git-check-ref-format(1): nothing that git could take for an option or a pattern."""
    if ref and not _REF.fullmatch(ref):
        raise InvalidArgument(f"invalid git URL: {ref[:100]!r} names no branch, tag or commit")
    return ref


def _hide(address: str) -> str:
    """Without what may be a password."""
    return re.sub(r"//[^/]*@", "//", address)[:200]
