"""What steps take from elsewhere, as trees on disk: contexts, stages, images, files fetched.

Each input of a build is fetched once. Owns nothing that outlives the build.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from estiba.build.attest.provenance import Material
from estiba.build.effects import entered, settled, settled_or_cancelled
from estiba.build.files.git import check_out
from estiba.build.files.gitcommand import GitAccess
from estiba.build.files.giturls import GitSource, parse_git_url
from estiba.build.files.remote import download, parse_remote
from estiba.build.keys import base_id, digest_of_parts
from estiba.build.ops import (
    ContextInput,
    GitInput,
    ImageInput,
    InlineInput,
    Input,
    StageInput,
    UrlInput,
)
from estiba.build.ports import Workspaces
from estiba.build.state import State
from estiba.distribution.cancel import CancelToken
from estiba.distribution.settings import RegistrySettings
from estiba.images.record import ImageRecord
from estiba.model.errors import InvalidArgument
from estiba.model.ignore import IgnoreRules


@dataclass(frozen=True, slots=True)
class Context:
    """A context that the client sent, or that was fetched for it."""

    path: Path
    ignore: IgnoreRules | None = None


@dataclass(slots=True)
class Trees:
    """Of one build; `work` is its own directory."""

    work: Path
    settings: RegistrySettings
    workspaces: Workspaces
    contexts: Mapping[str, Context]
    stage: Callable[[int], Awaitable[State]]
    image: Callable[[ImageInput], Awaitable[ImageRecord]]
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    titles: Mapping[int, str] = field(default_factory=dict)
    """What the stages are called."""

    materials: list[Material] = field(default_factory=list)
    """What was fetched."""

    _fetched: dict[Input, asyncio.Future[tuple[Path, str]]] = field(default_factory=dict)

    async def identity(self, source: Input) -> str:
        """What the input is, when that is known without reading it; else empty."""
        match source:
            case StageInput(index):
                return (await self.stage(index)).id
            case ImageInput():
                return base_id((await self.image(source)).layers)
            case ContextInput():
                return ""
            case InlineInput():
                return digest_of_parts(source.files, source.mode)
            case UrlInput() | GitInput():
                return (await self._fetch(source))[1]

    def shown(self, source: Input) -> str:
        match source:
            case StageInput(index):
                return f"stage {self.titles.get(index) or index}"
            case ImageInput(name, _):
                return f"image {name}"
            case ContextInput(name):
                return f"the context {name}" if name else "the build context"
            case InlineInput(files):
                return "the here-document" if files else "scratch, which is empty"
            case UrlInput(url) | GitInput(url):
                return url

    def ignore(self, source: Input) -> IgnoreRules | None:
        if isinstance(source, ContextInput):
            return self._context(source).ignore
        return None

    @asynccontextmanager
    async def opened(self, source: Input) -> AsyncIterator[Path]:
        """The tree, for reading, as long as the context lasts."""
        match source:
            case ContextInput():
                yield self._context(source).path
            case StageInput(index):
                state = await self.stage(index)
                async with entered(self.workspaces.view(state.lowers)) as path:
                    yield path
            case ImageInput():
                record = await self.image(source)
                async with entered(self.workspaces.view(record.layers)) as path:
                    yield path
            case _:
                yield (await self._fetch(source))[0]

    def _context(self, source: ContextInput) -> Context:
        found = self.contexts.get(source.name)
        if found is None:
            raise InvalidArgument(
                "this build has no context: give a directory, not only a Dockerfile"
                if not source.name
                else f"no build context of the name {source.name[:64]!r} was sent"
            )
        return found

    async def _fetch(self, source: Input) -> tuple[Path, str]:
        future = self._fetched.get(source)
        if future is None:
            number = len(self._fetched)
            future = asyncio.ensure_future(self._fetch_now(source, self.work / f"input{number}"))
            self._fetched[source] = future
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Ends what is still being fetched."""
        left = [future for future in self._fetched.values() if not future.done()]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _fetch_now(self, source: Input, place: Path) -> tuple[Path, str]:
        match source:
            case UrlInput(url, checksum):
                await settled(place.mkdir)
                cancel = CancelToken()
                found = await settled_or_cancelled(
                    cancel,
                    download,
                    parse_remote(url),
                    place,
                    settings=self.settings,
                    checksum=checksum,
                    cancel=cancel,
                )
                self.materials.append(Material(url, found.digest))
                return place, f"{found.name} {found.digest}"
            case GitInput(url, keep_git_dir, checksum):
                return await self._check_out(url, place, keep_git_dir, checksum)
            case InlineInput(files, mode):
                await settled(_write, place, files, mode)
                return place, digest_of_parts(files, mode)
            case _:
                raise InvalidArgument(f"{self.shown(source)} cannot be fetched")

    async def _check_out(
        self, url: str, place: Path, keep_git_dir: bool, checksum: str
    ) -> tuple[Path, str]:
        await settled(place.mkdir)
        source = parse_git_url(url)
        if checksum:
            source = replace(source, commit=checksum)
        cancel = CancelToken()
        made = await settled_or_cancelled(
            cancel,
            check_out,
            source,
            place,
            keep_git_dir=keep_git_dir,
            access=git_access(self.secrets, source),
            cancel=cancel,
        )
        self.materials.append(Material(url, f"gitCommit:{made.commit}"))
        # Of one commit there are several trees; git's own files name the repository too.
        keeps = keep_git_dir if source.keep_git_dir is None else source.keep_git_dir
        remote = source.remote if keeps or source.submodules else ""
        tree = (made.commit, source.subdir, source.submodules, keeps, remote)
        return made.root, digest_of_parts(*tree)


def git_access(secrets: Mapping[str, bytes], source: GitSource) -> GitAccess:
    """The secrets that BuildKit knows too: GIT_AUTH_TOKEN and GIT_AUTH_HEADER, for one host with
    its name behind a dot."""

    def secret(name: str) -> str:
        data = secrets.get(f"{name}.{source.host}", secrets.get(name, b""))
        return data.decode(errors="replace").strip()

    return GitAccess(token=secret("GIT_AUTH_TOKEN"), header=secret("GIT_AUTH_HEADER"))


def _write(place: Path, files: tuple[tuple[str, str], ...], mode: int) -> None:
    place.mkdir(mode=0o755)
    for name, content in files:
        if "/" in name or name in ("", ".", ".."):
            raise InvalidArgument(f"a here-document cannot be called {name[:64]!r}")
        path = place / name
        path.write_text(content, errors="surrogateescape")
        path.chmod(mode)
