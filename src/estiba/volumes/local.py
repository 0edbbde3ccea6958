"""The local driver: volumes are directories of this host that outlive containers.

    <root>/<name>/_data       what containers mount
    <root>/<name>/_options    its options, for the case that the record is lost
    <root>/.removed.*         a removal under way; always finished
    <root>/.making.*/<name>   a volume that is being filled; thrown away by the next start

All methods block and may be called from any thread; `Volumes` lets no two calls for one volume
overlap.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel import failpoint
from estiba.kernel.files import write_atomic
from estiba.kernel.mounts import mounted_under, unmount
from estiba.kernel.trees import remove_tree, tree_size
from estiba.model.errors import EstibaError, FailedPrecondition, InvalidArgument, NotFound
from estiba.volumes.backing import DATA, SNAPSHOTS, Backing, BackingKind, KeptBacking, choose
from estiba.volumes.ciphers import PLAIN
from estiba.volumes.disk import POINT, sync
from estiba.volumes.driver import DriverVolume
from estiba.volumes.keys import discard_key
from estiba.volumes.options import MOUNTED, VolumeMount

_REMOVED = ".removed."
_MAKING = ".making."
_POINTS = frozenset({DATA, POINT, PLAIN})
_OPTIONS = "_options"
_MAX_OPTIONS_BYTES = 1 << 20


class LocalDriver:
    """`volumes.driver.VolumeDriver`; `start` comes first."""

    scope = "local"

    def __init__(self, root: Path, kinds: Sequence[BackingKind] = ()) -> None:
        self._root = root
        self._kinds = (MOUNTED, *kinds)
        self._options: dict[str, Mapping[str, str]] = {}

    def start(self, options: Mapping[str, Mapping[str, str]]) -> set[str]:
        """Takes the options of the known volumes, and makes their directories if they are gone.

        Returns the names whose removal a crash cut off; it is finished by `purge`.
        """
        self._root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self._root.chmod(0o701)
        self._options = dict(options)
        for entry in self._root.glob(f"{_MAKING}*"):
            self._discard_made(entry)
        aside = {_name_aside(entry) for entry in self._root.glob(f"{_REMOVED}*")}
        removed = {name for name in aside if not self.directory(name).exists()}
        for name in self._options:
            if name not in removed:
                self._make_directories(name)
        return removed

    def strays(self) -> list[str]:
        """Names of directories that hold data of a volume that is not known."""
        return [
            entry.name
            for entry in self._root.iterdir()
            if not entry.name.startswith(".")
            and entry.name not in self._options
            and (entry / DATA).is_dir()
        ]

    def noted_options(self, name: str) -> dict[str, str]:
        """The options of a volume whose record is lost. Raises InvalidArgument."""
        options = _noted(self.directory(name))
        choose(self._kinds, options)
        return options

    def check(self, options: Mapping[str, str]) -> None:
        """Raises InvalidArgument for options that no volume can have."""
        choose(self._kinds, options)

    def create(self, name: str, options: Mapping[str, str]) -> None:
        backing = choose(self._kinds, options)
        directory = self.directory(name)
        is_new = not directory.exists()
        try:
            if options:
                directory.mkdir(mode=0o701, exist_ok=True)
                write_atomic(directory / _OPTIONS, json.dumps(dict(options)).encode())
            self._make_directories(name)
            failpoint.hit("volumes.directory-made")
            if backing is not None:
                backing.make(directory)
        except Exception:
            if is_new:
                if backing is not None:
                    backing.unmount(directory)
                discard_key(directory)
                remove_tree(directory)
            raise
        self._options[name] = dict(options)

    @contextmanager
    def made_aside(self, name: str, options: Mapping[str, str]) -> Iterator[Aside]:
        """A new volume out of sight, to be filled and placed; of one that is not placed nothing
        is left when the block ends.

        The caller sees to it that nobody else makes a volume of that name when it is placed.
        Raises InvalidArgument for options that say where the files are: it would be filled there.
        """
        backing = choose(self._kinds, options)
        if isinstance(backing, VolumeMount):
            raise InvalidArgument(
                "the files of a volume that is made of another lie with the engine: it cannot have "
                "the options type, device and o"
            )
        around = self._root / f"{_MAKING}{secrets.token_hex(4)}"
        directory = around / name
        try:
            around.mkdir(mode=0o700)
            directory.mkdir(mode=0o701)
            if options:
                write_atomic(directory / _OPTIONS, json.dumps(dict(options)).encode())
            _make_data(directory)
            if backing is not None:
                backing.make(directory)
                backing.mount(directory)
            yield Aside(self, name, dict(options), directory, backing)
        finally:
            self._discard_made(around)

    def _discard_made(self, around: Path) -> None:
        """Takes away what a volume left that was not finished."""
        for directory in around.glob("*"):
            with contextlib.suppress(EstibaError, OSError):
                backing = choose(self._kinds, _noted(directory))
                if backing is not None:
                    backing.unmount(directory)
            for point in mounted_under(directory):
                unmount(point)
            discard_key(directory)
        remove_tree(around)

    def move(self, name: str, new: str) -> None:
        """Gives a volume that nobody uses another name; harmless twice."""
        if self.directory(name).exists() and not self.directory(new).exists():
            self.directory(name).rename(self.directory(new))
        if name in self._options:
            self._options[new] = self._options.pop(name)

    def note_options(self, name: str, options: Mapping[str, str]) -> None:
        """From now on the volume has these."""
        write_atomic(self.directory(name) / _OPTIONS, json.dumps(dict(options)).encode())
        self.know(name, options)

    def know(self, name: str, options: Mapping[str, str]) -> None:
        self._options[name] = dict(options)

    def remove(self, name: str) -> None:
        """Sets the directory aside in one step, from where `purge` deletes it.

        Raises NotFound, FailedPrecondition for one that has a disk of its own, OSError.
        """
        backing = self._backing(name)
        if backing is not None:
            backing.unmount(self.directory(name))
        unmount(self.data(name))
        aside = self._root / f"{_REMOVED}{secrets.token_hex(4)}.{name}"
        try:
            self.directory(name).rename(aside)
        except FileNotFoundError:
            del self._options[name]
            raise NotFound(f"get {name}: no such volume") from None
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise FailedPrecondition(
                f"remove {name}: {self.directory(name)} is a mount point of the host: unmount it "
                "first"
            ) from error
        del self._options[name]

    def purge(self, name: str) -> None:
        """Deletes what `remove` set aside."""
        for entry in list(self._root.glob(f"{_REMOVED}*")):
            if _name_aside(entry) == name:
                discard_key(entry)
                remove_tree(entry)

    def mount(self, name: str, user: str) -> Path:
        """A volume that somebody deleted by hand is made anew."""
        backing = self._backing(name)
        if backing is not None and _is_bare(self.directory(name)):
            self.create(name, self._options[name])
        self._make_directories(name)
        if backing is not None:
            backing.mount(self.directory(name))
        return self.data(name)

    def unmount(self, name: str, user: str) -> None:
        backing = self._backing(name)
        if backing is not None:
            backing.unmount(self.directory(name))

    def path(self, name: str) -> str:
        return str(self.data(name))

    def get(self, name: str) -> DriverVolume:
        backing = self._backing(name)
        status = backing.status(self.directory(name)) if isinstance(backing, KeptBacking) else {}
        return DriverVolume(name, self.path(name), status=status)

    def list(self) -> list[DriverVolume]:
        return [self.get(name) for name in list(self._options)]

    # -- the local driver's own ------------------------------------------------------------

    def directory(self, name: str) -> Path:
        """All that the volume has on the disk."""
        return self._root / name

    def data(self, name: str) -> Path:
        """What containers see of it."""
        return self._root / name / DATA

    def inside(self, name: str) -> Path | None:
        """The directory in which `_data` is one directory among others, while the volume is
        mounted; None when the files lie elsewhere."""
        backing = self._backing(name)
        if backing is None:
            return self.directory(name)
        return backing.inside(self.directory(name)) if isinstance(backing, KeptBacking) else None

    def is_on_disk(self, name: str) -> bool:
        """Whether its data lies in its directory, not in what is mounted over that."""
        options = self._options.get(name)
        return options is not None and not isinstance(choose(self._kinds, options), VolumeMount)

    def usage(self, name: str) -> int:
        """Bytes in the volume's files, each file counted once; of one with a file system or a
        cipher of its own, the bytes that it takes on the host."""
        backing = self._backing(name)
        if isinstance(backing, KeptBacking):
            return backing.usage(self.directory(name))
        return sum(tree_size(self.directory(name) / part) for part in (DATA, SNAPSHOTS))

    def _backing(self, name: str) -> Backing | None:
        options = self._options.get(name)
        if options is None:
            raise NotFound(f"get {name}: no such volume")
        return choose(self._kinds, options)

    def _make_directories(self, name: str) -> None:
        directory = self.directory(name)
        directory.mkdir(mode=0o701, exist_ok=True)
        _make_data(directory)


@dataclass(frozen=True, slots=True)
class Aside:
    """A volume that `LocalDriver.made_aside` makes."""

    driver: LocalDriver
    name: str
    options: dict[str, str]
    directory: Path
    backing: Backing | None

    @property
    def data(self) -> Path:
        """The directory to fill."""
        return self.directory / DATA

    def finish(self) -> None:
        """It is full: all of it is put on the disk, and taken out of the way of `place`."""
        failpoint.hit("volumes.filled")
        sync(self.data, self.directory)
        if self.backing is not None:
            self.backing.unmount(self.directory)

    def place(self) -> None:
        """From now on it stands at its name."""
        self.directory.rename(self.driver.directory(self.name))
        self.driver.know(self.name, self.options)


def _make_data(directory: Path) -> None:
    """Never looks at what is mounted there: a server that is away would hold up everything."""
    data = directory / DATA
    with contextlib.suppress(FileExistsError):
        os.mkdir(data, 0o755)
        data.chmod(0o755)


def _is_bare(directory: Path) -> bool:
    """Whether nothing of a volume with options is left but places for mounts."""
    try:
        with os.scandir(directory) as entries:
            # Whoever cannot delete what is mounted below leaves no file and no link.
            return all(entry.name in _POINTS for entry in entries)
    except FileNotFoundError:
        return True


def _noted(directory: Path) -> dict[str, str]:
    """The options of the volume at `directory`. Raises InvalidArgument."""
    try:
        with (directory / _OPTIONS).open("rb") as file:
            noted = json.loads(file.read(_MAX_OPTIONS_BYTES))
        return {str(key): str(value) for key, value in dict(noted).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{directory / _OPTIONS}: no JSON object") from error


def _name_aside(entry: Path) -> str:
    return entry.name.removeprefix(_REMOVED).partition(".")[2]
