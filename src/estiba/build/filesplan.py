"""COPY and ADD as a step: where each source is found, and what is done with it. Pure."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from estiba.build import history
from estiba.build.dockerfile import instructions as ast
from estiba.build.dockerfile.errors import refusal
from estiba.build.dockerfile.words import HEREDOC, expand
from estiba.build.files.giturls import is_git_address
from estiba.build.files.remote import is_web_address
from estiba.build.ops import ContextInput, CopyOp, GitInput, InlineInput, Input, UrlInput
from estiba.model.errors import InvalidArgument

if TYPE_CHECKING:
    from estiba.build.dispatch import Dispatcher


def plan_files(at: ast.Files, stage: Dispatcher) -> tuple[CopyOp, str, str]:
    """The op, its text for the history, and its name. Raises DockerfileError."""
    documents = {doc.name: doc for doc in at.heredocs}
    groups: list[tuple[Input, list[str]]] = []
    shown = []
    main = stage.scope.find_input(stage.expand(at.from_, at), at) if at.from_ else ContextInput()
    for source in at.sources:
        if source.startswith("<<") and (doc := documents.get(_heredoc_name(source))):
            content = _content(doc, at, stage)
            _append(groups, InlineInput(((doc.name, content),)), doc.name)
            shown.append(source)
            continue
        for word in [stage.expand(source, at)]:
            shown.append(word)
            kind = _remote(word, at, stage) if at.keyword == "ADD" else None
            _append(groups, kind or main, word)
    destination = stage.expand(at.destination, at)
    op = CopyOp(
        groups=tuple((source, tuple(patterns)) for source, patterns in groups),
        destination=_absolute(destination, stage.working_dir),
        owner=stage.expand(at.chown, at),
        mode=stage.expand(at.chmod, at),
        link=at.link,
        parents=at.parents,
        excludes=tuple(stage.expand(one, at) for one in at.excludes),
        unpack=at.unpack if at.keyword == "ADD" else False,
    )
    flags = ["--parents"] if op.parents else []
    if op.owner:
        flags.append(f"--chown={op.owner}")
    if op.mode:
        flags.append(f"--chmod={op.mode}")
    return op, history.files(at.keyword, flags, shown, destination), ""


def _append(groups: list[tuple[Input, list[str]]], source: Input, pattern: str) -> None:
    if groups and groups[-1][0] == source:
        groups[-1][1].append(pattern)
    else:
        groups.append((source, [pattern]))


def _absolute(destination: str, working_dir: str) -> str:
    """A slash at the end says that it is a directory, and stays."""
    joined = posixpath.join(working_dir, destination)
    is_directory = joined.endswith(("/", "/.")) or posixpath.basename(joined) in (".", "..")
    normal = "/" + posixpath.normpath(joined).lstrip("/")
    return normal.rstrip("/") + "/" if is_directory else normal


def _heredoc_name(source: str) -> str:
    return source.removeprefix("<<").removeprefix("-").strip("\"'")


def _content(doc: ast.Heredoc, at: ast.Files, stage: Dispatcher) -> str:
    if not doc.expand:
        return doc.content
    try:
        # Quotes mean nothing here, and the escape directive neither.
        return expand(doc.content, stage.variables(), style=HEREDOC).text
    except InvalidArgument as error:
        raise refusal(str(error), at.span) from error


def _remote(word: str, at: ast.Files, stage: Dispatcher) -> Input | None:
    """What ADD fetches: a git repository, or a file by HTTP."""
    checksum = stage.expand(at.checksum, at)
    if is_git_address(word):
        return GitInput(word, at.keep_git_dir, checksum)
    if is_web_address(word):
        return UrlInput(word, checksum)
    if checksum:
        raise refusal("checksum can only be specified for remote sources", at.span)
    return None
