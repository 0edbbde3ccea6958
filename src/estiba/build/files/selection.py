"""Which files COPY and ADD take, from trees that are not trusted, and the digest of it all.

A source that is a link is followed inside its root; links below a directory are taken as they
are. Everything is opened by openat2 below a descriptor of the root. Nothing is written.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from estiba.build.files.archives import is_archive
from estiba.build.files.digest import Contents, digest_of, shown_files
from estiba.build.files.missing import not_found
from estiba.build.files.model import (
    MAX_ENTRIES,
    CopyOptions,
    CopySource,
    Entry,
    Form,
    Selected,
    Taken,
)
from estiba.build.files.modes import parse_chmod
from estiba.build.files.walking import Decision, read_entry, walk_tree
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import open_in_root, opened_root
from estiba.model.errors import InvalidArgument, LimitExceeded
from estiba.model.ignore import IgnoreRules, match_name
from estiba.model.wildcards import has_wildcards, unescape

_READ = os.O_RDONLY | os.O_NONBLOCK
_LIST = os.O_RDONLY | os.O_DIRECTORY
_PATH = os.O_PATH
_PIVOT = "/./"


def take(
    sources: Sequence[CopySource], options: CopyOptions, cancel: CancelToken | None = None
) -> Taken:
    """Selects and hashes. Blocks.

    A pattern with wildcards may match nothing. Raises NotFound for anything else that is not
    there, with what resembles it and the rule that hides it;
    InvalidArgument for a bad pattern, mode or destination; LimitExceeded, Cancelled, OSError.
    """
    cancel = cancel or CancelToken()
    change = parse_chmod(options.mode)
    if sum(len(source.patterns) for source in sources) > 1 and not is_directory_name(options):
        raise InvalidArgument(
            "When using COPY or ADD with more than one source file, the destination must be a "
            f"directory and end with a /: {options.destination!r}"
        )
    selected: list[Selected] = []
    with Contents(cancel) as contents:
        for source in sources:
            with opened_root(source.root) as root:
                for pattern in source.patterns:
                    selection = _Selection(source, options, root, contents, cancel)
                    selected += selection.of(pattern)
        contents.finish()
    selected = [each for each in selected if each.form is not Form.NOTHING]
    count = sum(len(each.entries) for each in selected)
    if count > MAX_ENTRIES:
        raise LimitExceeded(f"more than {MAX_ENTRIES} files to copy")
    return Taken(tuple(selected), digest_of(selected, change), shown_files(selected, change))


def is_directory_name(options: CopyOptions) -> bool:
    """Whether the destination says of itself that it is a directory."""
    return options.destination.endswith(("/", "/.", "/..")) or options.destination in (".", "..")


def clean_source(pattern: str) -> str:
    """Relative to the root of its tree; `..` and a slash in front lead no further than that."""
    return posixpath.normpath("/" + pattern).lstrip("/")


@dataclass(frozen=True, slots=True)
class _Selection:
    """What one pattern selects in the tree behind `root`."""

    source: CopySource
    options: CopyOptions
    root: int
    contents: Contents
    cancel: CancelToken

    def of(self, pattern: str) -> list[Selected]:
        """Empty when a pattern with wildcards matches nothing."""
        if "\0" in pattern:
            raise InvalidArgument(f"a source with a zero byte: {pattern[:64]!r}")
        include: IgnoreRules | None = None
        path = clean_source(pattern)
        wanted = path
        if self.source.is_remote_file:
            # Its name came with it: nobody wrote a pattern.
            return self._some([self._select(pattern, path, is_matched=False, include=None)])
        if self.options.parents:
            base, pivot, below = pattern.partition(_PIVOT)
            path, wanted = (clean_source(base), clean_source(below)) if pivot else ("", path)
            include = IgnoreRules.of([wanted]) if wanted else None
        found = self._some(
            self._select(pattern, each, is_matched=has_wildcards(path), include=include)
            for each in self._matches(path)
        )
        if include is None:
            return found
        found = [each for each in found if each.entries]
        whole = posixpath.join(path, wanted)
        if not found and not has_wildcards(whole):
            raise not_found(self.source, self.root, pattern, whole)
        return found

    def _some(self, selected: Iterable[Selected | None]) -> list[Selected]:
        return [each for each in selected if each is not None]

    # -- wildcards -------------------------------------------------------------------------

    def _matches(self, path: str) -> Iterator[str]:
        """Go's patterns, directory by directory; a directory that is a link is not entered."""
        parts = path.split("/") if path else []
        plain = next((i for i, part in enumerate(parts) if has_wildcards(part)), len(parts))
        before = unescape("/".join(parts[:plain]))
        if plain == len(parts):
            yield before
            return
        yield from self._matches_below(before, parts[plain:], is_top=True)

    def _matches_below(self, before: str, parts: list[str], *, is_top: bool) -> Iterator[str]:
        self.cancel.check()
        match_name(parts[0], "")
        try:
            fd = open_in_root(self.root, before or "/", _LIST | (0 if is_top else os.O_NOFOLLOW))
        except OSError:
            return
        try:
            names = sorted(name for name in os.listdir(fd) if match_name(parts[0], name))
        finally:
            os.close(fd)
        for name in names:
            found = posixpath.join(before, name)
            if len(parts) == 1:
                yield found
            else:
                yield from self._matches_below(found, parts[1:], is_top=False)

    # -- one source ------------------------------------------------------------------------

    def _select(
        self, pattern: str, path: str, *, is_matched: bool, include: IgnoreRules | None
    ) -> Selected | None:
        """None when a match of wildcards is left out."""
        try:
            fd = open_in_root(self.root, path or "/", _PATH)
        except OSError as error:
            if is_matched:
                return None
            raise not_found(self.source, self.root, pattern, path) from error
        try:
            real = self._real_path(fd)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        name = posixpath.basename(path)
        if stat.S_ISDIR(status.st_mode):
            if self._is_hidden(real) and not self._may_hold(real):
                if is_matched:
                    return None
                raise not_found(self.source, self.root, pattern, real)
            entries = self._directory(real, include)
            return self._made(real, name, Form.CONTENTS, entries)
        if self._is_hidden(real) or self._is_hidden(path):
            if is_matched:
                return None
            hidden = path if self._is_hidden(path) else real
            raise not_found(self.source, self.root, pattern, hidden)
        excludes = IgnoreRules.of(self.options.excludes)
        if excludes.excludes(name) or excludes.excludes(path):
            return self._made(real, name, Form.NOTHING, [])
        return self._file(real, name)

    def _made(self, path: str, name: str, form: Form, entries: list[Entry]) -> Selected:
        source = self.source
        return Selected(
            source.root, path, name, form, source.keeps_owner, source.shares_files, entries
        )

    def _file(self, path: str, name: str) -> Selected:
        entry = read_entry(self.root, path, "", self.contents)
        if entry is None:
            return self._made(path, name, Form.NOTHING, [])
        is_remote = self.source.is_remote_file
        unpacks = self.options.unpacks_remote if is_remote else self.options.unpacks
        if unpacks and stat.S_ISREG(entry.mode):
            fd = open_in_root(self.root, path, _READ)
            try:
                if is_archive(fd):
                    return self._made(path, name, Form.ARCHIVE, [entry])
            finally:
                os.close(fd)
        return self._made(path, name, Form.FILE, [entry])

    def _directory(self, path: str, include: IgnoreRules | None) -> list[Entry]:
        fd = open_in_root(self.root, path or "/", _LIST)
        try:
            return walk_tree(fd, self._decider(path, include), self.contents, self.cancel)
        finally:
            os.close(fd)

    def _decider(self, base: str, include: IgnoreRules | None) -> Callable[[str], Decision]:
        ignore = self.source.ignore
        excludes = IgnoreRules.of(self.options.excludes)
        before = f"{base}/" if base else ""

        def decide(path: str) -> Decision:
            takes = enters = True
            if include is not None and not include.excludes(path):
                takes, enters = False, include.may_match_below(path)
            if ignore and ignore.excludes(before + path):
                takes, enters = False, enters and ignore.may_hold_exceptions(before + path)
            if excludes and excludes.excludes(path):
                takes, enters = False, enters and excludes.may_hold_exceptions(path)
            return Decision(takes, enters)

        return decide

    # -- what is hidden --------------------------------------------------------------------

    def _real_path(self, fd: int) -> str:
        """Where in the tree the open file stands, links resolved."""
        top = os.readlink(f"/proc/self/fd/{self.root}")
        real = os.readlink(f"/proc/self/fd/{fd}")
        return real.removeprefix(top).strip("/") if top != "/" else real.strip("/")

    def _is_hidden(self, path: str) -> bool:
        return bool(self.source.ignore and path and self.source.ignore.excludes(path))

    def _may_hold(self, path: str) -> bool:
        return bool(self.source.ignore and self.source.ignore.may_hold_exceptions(path))
