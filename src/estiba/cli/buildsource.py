"""What is built from: the context that the user names, its Dockerfile and its ignore file.

Finds them and reads the two small files; the context itself is read when it is sent.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise

from estiba.cli.parse import Arguments, FlagError, UsageError
from estiba.client.tarstream import DIRECTORY, header, member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from estiba.client.buildcontext import Tree
    from estiba.client.buildstdin import Begun
    from estiba.model.ignore import IgnoreRules

_MAIN = "contexts/context"
_MOST_DOCKERFILE = 16 << 20
_WEB = ("http://", "https://")
_GIT = ("git://", "git@", "ssh://", "github.com/")
_IMAGE = "docker-image://"
_TWICE = (
    "invalid argument: can't use stdin for both build context and dockerfile: give one of them "
    "as a path"
)


class Source:
    """`dockerfile` is its path in the main context, or its name when `text` is sent beside it."""

    def __init__(self) -> None:
        self.remote = ""
        self.dockerfile = ""
        self.text: bytes | None = None
        """None when only the daemon will see it."""
        self.is_text_sent = False
        self.ignore: bytes | None = None
        self.root = ""
        """A directory, without what `rules` leave out."""
        self.rules: IgnoreRules | None = None
        self.archive: Begun | None = None

    @property
    def shown(self) -> str:
        """What messages call the Dockerfile."""
        return self.dockerfile or "Dockerfile"

    def send_text(self, text: bytes) -> None:
        self.text, self.is_text_sent = text, True

    def send_only_dockerfile(self) -> None:
        """As far as it is here: the rest of the context is of no interest."""
        if self.text is not None:
            self.is_text_sent, self.root = True, ""

    def members(self) -> Iterator[bytes]:
        """What comes after request.json. Raises ClientError for what cannot be read."""
        if self.text is not None and self.is_text_sent:
            yield member("dockerfile", self.text)
        if self.ignore is not None:
            yield member("dockerignore", self.ignore)
        yield from self.context(_MAIN)

    def context(self, prefix: str) -> Iterator[bytes]:
        """The main context below a name of its own. Raises ClientError."""
        if self.root:
            yield from _tree(self.root, prefix, self.rules).members()
        elif self.archive is not None:
            from estiba.client.buildstdin import members

            yield from members(self.archive, prefix)
        elif not self.remote:
            yield header(f"{prefix}/".encode(), DIRECTORY, mode=0o755)


def find(given: Arguments) -> Source:
    """Raises UsageError for what is not there. Reads STDIN when it is named."""
    context = given.words[0]
    if context == "-":
        if given.file == "-":
            raise UsageError(_TWICE)
        return _from_stdin(given)
    if os.path.isdir(context):
        return _from_directory(context, given)
    if not is_remote(context):
        if os.path.exists(context):
            raise UsageError(f"unable to prepare context: {context} is no directory")
        raise UsageError(f'unable to prepare context: path "{context}" not found')
    source = Source()
    source.remote = context
    if given.file == "-":
        source.send_text(_read_stdin())
    else:
        source.dockerfile = given.file or "Dockerfile"
    return source


def is_remote(text: str) -> bool:
    """A URL or a git repository."""
    return text.startswith((*_WEB, *_GIT)) or text.partition("#")[0].endswith(".git")


def _from_stdin(given: Arguments) -> Source:
    from estiba.client.buildstdin import Begun

    source = Source()
    begun = Begun(sys.stdin.buffer)
    if begun.is_archive():
        source.archive = begun
        source.dockerfile = given.file or "Dockerfile"
        return source
    if given.file:
        raise UsageError(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"
        )
    source.send_text(_limited(begun.read(_MOST_DOCKERFILE + 1), "STDIN"))
    return source


def _read_stdin() -> bytes:
    return _limited(sys.stdin.buffer.read(_MOST_DOCKERFILE + 1), "STDIN")


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > _MOST_DOCKERFILE:
        raise UsageError(f"{name} is no Dockerfile: it has more than {_MOST_DOCKERFILE >> 20} MiB")
    return data


# -- a directory ---------------------------------------------------------------------------


def _from_directory(root: str, given: Arguments) -> Source:
    source = Source()
    path = _dockerfile_path(root, given.file)
    source.root = root
    source.ignore, source.rules = _ignore(root, path)
    if path == "-":
        source.send_text(_read_stdin())
        return source
    source.text = _read_dockerfile(path)
    inside = _path_inside(root, path)
    source.dockerfile = inside or os.path.basename(path)
    # A Dockerfile that the context leaves out is still what is built.
    is_left_out = source.rules is not None and source.rules.excludes(inside)
    source.is_text_sent = (
        not inside or is_left_out or os.path.islink(path) or not os.path.isfile(path)
    )
    return source


def _dockerfile_path(root: str, flag: str) -> str:
    if flag:
        return flag
    path = os.path.join(root, "Dockerfile")
    lower = os.path.join(root, "dockerfile")
    return lower if not os.path.lexists(path) and os.path.exists(lower) else path


def _read_dockerfile(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _limited(file.read(_MOST_DOCKERFILE + 1), path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "" if os.path.exists(path) else ": name another one with -f"
        raise UsageError(f"failed to read dockerfile: open {path}: {reason}{hint}") from error


def _path_inside(root: str, path: str) -> str:
    """Relative to the context; empty when it is outside, by way of a symlink too."""
    base = os.path.realpath(root)
    found = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    relative = os.path.relpath(found, base)
    return "" if relative == ".." or relative.startswith("../") else relative


def _ignore(root: str, dockerfile: str) -> tuple[bytes, IgnoreRules | None]:
    """The ignore file, and its rules; the one beside the Dockerfile wins. Empty without any, so
    that the daemon looks for none."""
    beside = [] if dockerfile == "-" else [f"{dockerfile}.dockerignore"]
    for path in [*beside, os.path.join(root, ".dockerignore")]:
        try:
            with open(path, "rb") as file:
                data = _limited(file.read(_MOST_DOCKERFILE + 1), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"failed to read {path}: {(error.strerror or '').lower()}") from error
        return data, _rules(data, path)
    return b"", None


def _rules(data: bytes, path: str) -> IgnoreRules:
    from estiba.model.errors import EstibaError
    from estiba.model.ignore import IgnoreRules

    try:
        return IgnoreRules.parse(data.decode(errors="surrogateescape"), path)
    except EstibaError as error:
        raise UsageError(str(error)) from error


def _tree(root: str, prefix: str, rules: IgnoreRules | None) -> Tree:
    from estiba.client.buildcontext import Tree

    if not rules:
        return Tree(root, prefix)
    return Tree(root, prefix, rules.excludes, rules.may_hold_exceptions)


def stage_names(words: list[str]) -> list[str]:
    """For completion: the stages of the Dockerfile that an unfinished command line names."""
    given = [value for flag, value in pairwise(words) if flag in ("-f", "--file")]
    root = next((word for word in words if os.path.isdir(word)), ".")
    try:
        text = _read_dockerfile(_dockerfile_path(root, given[-1] if given else ""))
    except UsageError:
        return []
    lines = [line.split() for line in text.decode(errors="replace").splitlines()]
    return [
        line[-1]
        for line in lines
        if len(line) > 3 and line[0].upper() == "FROM" and line[-2].upper() == "AS"
    ]


# -- named contexts ------------------------------------------------------------------------


def named_contexts(texts: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What the daemon is told of each, and the directories that are sent. Raises FlagError."""
    told: dict[str, str] = {}
    folders: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise FlagError(
                f'invalid argument "{text}" for "--build-context" flag: NAME=DIRECTORY, '
                f"{_IMAGE}IMAGE or a URL"
            )
        if value.startswith(_IMAGE) or is_remote(value):
            told[name] = value
            continue
        if "://" in value:
            raise FlagError(
                f'invalid argument "{text}" for "--build-context" flag: {value} is no directory, '
                f"no URL and no {_IMAGE}IMAGE"
            )
        if not os.path.isdir(value):
            raise UsageError(f"build context {name}: {value} is no directory")
        if name == "context" or "/" in name or name in (".", ".."):
            raise UsageError(f"build context {name}: a directory cannot be called so")
        told[name], folders[name] = "local", value
    return told, folders


def named_members(folders: dict[str, str]) -> Iterator[bytes]:
    for name, folder in folders.items():
        yield from _tree(folder, f"contexts/{name}", _ignore(folder, "-")[1]).members()


def cache_members(folders: dict[int, str]) -> Iterator[bytes]:
    """OCI layouts, by their place in `cache_from`."""
    from estiba.client.buildcontext import Tree

    for index, folder in folders.items():
        yield from Tree(folder, f"caches/{index}").members()
