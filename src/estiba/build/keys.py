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

_VERSION = "1"
"""Changed when the same op would give another tree."""


def digest_of_parts(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode([_VERSION, *parts])).hexdigest()


def base_id(layers: Sequence[Digest]) -> str:
    """The identity of an image's tree: its layers, whatever its config says."""
    return f"base:{digest_of_parts(list(layers))}" if layers else "base:scratch"


def step_key(parent: str, op: Op, inputs: Sequence[str], extra: Sequence[str] = ()) -> str:
    """`inputs` are the identities of what the op takes from elsewhere, in its order."""
    above = "" if isinstance(op, CopyOp) and op.link else parent
    return digest_of_parts(above, described(op), list(inputs), list(extra))


def described(op: Op) -> list[object]:
    """The op without what its inputs are."""
    match op:
        case RunOp():
            mounts = [
                [m.type, m.target, m.source, m.readonly, m.id, m.sharing, m.mode, m.uid, m.gid,
                 m.size_bytes, m.env, _kind(m.input)]
                for m in op.mounts
            ]  # fmt: skip
            return [
                "run", op.argv, op.env, op.args, op.cwd, op.user, mounts, op.network,
                op.insecure, op.hostname,
            ]  # fmt: skip
        case CopyOp():
            patterns = [[_kind(source), patterns] for source, patterns in op.groups]
            return [
                "copy", patterns, op.destination, op.owner, op.mode, op.link, op.parents,
                op.excludes, op.unpack,
            ]  # fmt: skip
        case DirectoryOp():
            return ["directory", op.path, op.user]


def _kind(source: Input | None) -> object:
    """What an input is, apart from its content."""
    match source:
        case None:
            return None
        case StageInput() | ContextInput() | ImageInput():
            return "tree"
        case UrlInput():
            return ["url", source.checksum]
        case GitInput():
            return ["git", source.keep_git_dir]
        case InlineInput():
            return ["inline", source.files, source.mode]


def facts(op: Op, text: str, stage: str, files: Mapping[str, str], inputs: Sequence[str]) -> Facts:
    """What a later miss is explained by; no value of a variable is kept in the clear."""
    other: dict[str, str] = {}
    match op:
        case RunOp():
            return Facts(
                kind="run",
                text=text,
                stage=stage,
                env={name: _hidden(value) for name, value in _pairs(op.env)},
                args={name: _hidden(value) for name, value in op.args},
                files=dict(files),
                other={
                    "command": digest_of_parts(op.argv)[:16],
                    "working directory": op.cwd,
                    "user": op.user,
                    "mounts": digest_of_parts(described(op)[6])[:16],
                    "inputs": digest_of_parts(list(inputs))[:16],
                },
            )
        case CopyOp():
            other = {
                "destination": op.destination,
                "owner": op.owner,
                "mode": op.mode,
                "sources": digest_of_parts(described(op)[1])[:16],
                "inputs": digest_of_parts(list(inputs))[:16],
            }
            return Facts(kind="copy", text=text, stage=stage, files=dict(files), other=other)
        case DirectoryOp():
            other = {"path": op.path, "user": op.user}
            return Facts(kind="directory", text=text, stage=stage, other=other)


def _pairs(env: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (entry.partition("=") for entry in env)]


def _hidden(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:12]
