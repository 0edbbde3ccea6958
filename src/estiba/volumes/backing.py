"""How `_data` of a local volume comes to hold the volume's files.

A volume without a backing is a plain directory. Each kind of backing owns some names of driver
options; the options of one volume belong to one kind. Further kinds are given to `LocalDriver`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from estiba.model.errors import InvalidArgument

DATA = "_data"
"""What containers see of a volume's directory."""

SNAPSHOTS = "_snapshots"
"""Copies of `_data` beside it."""


class Backing(Protocol):
    """One volume's. `directory` is the volume's own, with `_data` in it, which exists.

    `_staging` and `_ready` belong to the copy from images, `_snapshots` to snapshots; other names
    are the backing's.
    All methods raise EstibaError or OSError; none may put a secret into the message.
    """

    def make(self, directory: Path) -> None:
        """What the volume needs once, when it is made; harmless twice. All of it lies in
        `directory` and is deleted with it."""

    def mount(self, directory: Path) -> None:
        """Makes `_data` hold the files; harmless when it does."""

    def unmount(self, directory: Path) -> None:
        """Undoes `mount`, busy or not; harmless when nothing is mounted."""


@runtime_checkable
class KeptBacking(Backing, Protocol):
    """A backing that keeps the files in the volume's directory, in a form of its own."""

    def inside(self, directory: Path) -> Path:
        """Where `_data` and what is made beside it lie in one file system, while mounted."""

    def usage(self, directory: Path) -> int:
        """Bytes that the volume takes on the host, mounted or not."""

    def status(self, directory: Path) -> Mapping[str, object]:
        """What there is to tell in `volume inspect`; no secrets."""


@dataclass(frozen=True, slots=True)
class BackingKind:
    """`make` takes all options of a volume, checks them and says what they ask for.

    It is pure, may answer None, and raises InvalidArgument.
    """

    options: frozenset[str]
    make: Callable[[Mapping[str, str]], Backing | None]


def choose(kinds: Sequence[BackingKind], options: Mapping[str, str]) -> Backing | None:
    """The backing that `options` ask for. Raises InvalidArgument for a name that is unknown
    and for names of two kinds."""
    known = sorted(name for kind in kinds for name in kind.options)
    for name in options:
        if name not in known:
            raise InvalidArgument(f'invalid option: "{name}": use {", ".join(known)}')
    asked = [kind for kind in kinds if kind.options & options.keys()]
    if len(asked) > 1:
        one, other = (sorted(kind.options & options.keys())[0] for kind in asked[:2])
        raise InvalidArgument(f'options "{one}" and "{other}" do not go together')
    return asked[0].make(options) if asked else None
