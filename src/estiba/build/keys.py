"""Cache keys: what a step is, as one digest, and as facts that explain a miss. Pure.

A key covers the parent's record, the instruction as it is carried out, and the content of the
files that it takes, never times. Comments, line breaks, unused arguments and instructions that
only change the config are not in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from estiba.build.ops import (
    ContextInput,
    CopyOp,
    DirectoryOp,
    GitInput,
    ImageInput,
    InlineInput,
    Input,
    Op,
    RunOp,
    StageInput,
    UrlInput,
)
from estiba.build.record import Facts
from estiba.model.digest import Digest

_MAX_FILES = 1000
"""A record is read at each start, so it stays small."""

_VERSION = "1"
"""Changed when the same op would give another tree."""


def digest_of_parts(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode([_VERSION, *parts])).hexdigest()


BASE, _LINKED = "base:", "linked:"


def base_id(layers: Sequence[Digest]) -> str:
    """The identity of an image's tree: its layers, whatever its config says."""
    return f"{BASE}{digest_of_parts(list(layers))}" if layers else f"{BASE}scratch"


def linked_id(below: str, copied: str) -> str:
    """The identity of a tree with a linked copy on it, whose own record says nothing of it."""
    return f"{_LINKED}{digest_of_parts(below, copied)}"


def is_step(identity: str) -> bool:
    """Whether the identity of a tree is the id of one step's record."""
    return bool(identity) and not identity.startswith((BASE, _LINKED))


def step_key(parent: str, op: Op, inputs: Sequence[str], extra: Sequence[str] = ()) -> str:
    """`inputs` are the identities of what the op takes from elsewhere, in its order."""
    above = "" if isinstance(op, CopyOp) and op.link else parent
    return digest_of_parts(above, described(op), list(inputs), list(extra))


def described(op: Op) -> list[object]:
    """The op without what its inputs are."""
    match op:
        case RunOp():
            return [
                "run", op.argv, op.env, op.args, op.cwd, op.user, _mounts(op), op.network,
                op.insecure, op.hostname,
            ]  # fmt: skip
        case CopyOp():
            return [
                "copy", _sources(op), op.destination, op.owner, op.mode, op.link, op.parents,
                op.excludes, op.unpack,
            ]  # fmt: skip
        case DirectoryOp():
            return ["directory", op.path, op.user]


def _mounts(op: RunOp) -> list[object]:
    return [
        [m.type, m.target, m.source, m.readonly, m.id, m.sharing, m.mode, m.uid, m.gid,
         m.size_bytes, m.env, _kind(m.input)]
        for m in op.mounts
    ]  # fmt: skip


def _sources(op: CopyOp) -> list[object]:
    return [[_kind(source), patterns] for source, patterns in op.groups]


def _kind(source: Input | None) -> object:
    """What an input is, apart from its content."""
    match source:
        case None:
            return None
        case StageInput() | ContextInput() | ImageInput():
            return "tree"
        case UrlInput():
            return "url"
        case GitInput():
            return ["git", source.keep_git_dir]
        case InlineInput():
            return ["inline", source.files, source.mode]


def _listed(files: Mapping[str, str]) -> dict[str, str]:
    """All or none: a part of them would explain what it does not know."""
    return dict(files) if len(files) <= _MAX_FILES else {}


def facts(
    op: Op,
    text: str,
    stage: str,
    files: Mapping[str, str],
    inputs: Sequence[str],
    around: Mapping[str, str] | None = None,
) -> Facts:
    """What a later miss is explained by; no value of a variable is kept in the clear.

    `around` are the client's wishes that count, by their names.
    """
    other = {**_others(op), **(around or {}), "inputs": _short_digest(list(inputs))}
    if isinstance(op, RunOp):
        return Facts(
            kind="run",
            text=text,
            stage=stage,
            env={name: _hidden(value) for name, value in _pairs(op.env)},
            args={name: _hidden(value) for name, value in op.args},
            files=_listed(files),
            other=other,
        )
    kind = "copy" if isinstance(op, CopyOp) else "directory"
    return Facts(kind=kind, text=text, stage=stage, files=_listed(files), other=other)


def _others(op: Op) -> dict[str, str]:
    """All of `described` but variables and arguments, by names that a person knows."""
    match op:
        case RunOp():
            return {
                "command": _short_digest(op.argv),
                "working directory": op.cwd,
                "user": op.user,
                "mounts": _short_digest(_mounts(op)),
                "network": op.network,
                "security": "insecure" if op.insecure else "",
                "host name": op.hostname,
            }
        case CopyOp():
            return {
                "destination": op.destination,
                "owner": op.owner,
                "mode": op.mode,
                "sources": _short_digest(_sources(op)),
                "excludes": _short_digest(op.excludes),
                "flags": _short_digest([op.link, op.parents, op.unpack]),
            }
        case DirectoryOp():
            return {"path": op.path, "user": op.user}


def _short_digest(value: object) -> str:
    return digest_of_parts(value)[:16]


def _pairs(env: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (entry.partition("=") for entry in env)]


def _hidden(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:12]
