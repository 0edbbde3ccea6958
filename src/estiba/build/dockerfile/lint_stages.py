"""The checks that must know what variables a stage has: its words are expanded on the way."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from estiba.build.dockerfile.errors import nearest
from estiba.build.dockerfile.instructions import (
    Arg,
    Cmd,
    CommandLine,
    Dockerfile,
    Entrypoint,
    Env,
    Files,
    Instruction,
    Label,
    Run,
    Shell,
    Value,
    Warning,
    Words,
)
from estiba.build.dockerfile.words import HEREDOC, Expanded, expand, expand_words
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform, parse_platform
from estiba.model.reference import parse_reference

_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_NOT_IN_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.I
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.I)
_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@|github\.com/", re.I)


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of a base image."""

    env: Mapping[str, str]
    has_shell: bool = False


@dataclass(slots=True)
class _Stage:
    """How it stands after the instructions seen so far."""

    env: dict[str, str]
    is_known: bool
    args: set[str] = field(default_factory=set)
    has_workdir: bool = False
    has_shell: bool = False


class Walk:
    """The stages from top to bottom, each on what the one it stands on has left."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        build_args: Mapping[str, str],
        target_platform: str,
        build_platform: str,
        ignored: Callable[[str], bool] | None,
        bases: Mapping[int, Base],
    ) -> None:
        self.dockerfile = dockerfile
        self.build_args = build_args
        self.ignored = ignored
        self.escape = dockerfile.directives.escape
        self._bases = bases
        self._by_name: dict[str, _Stage] = {}
        self.platforms = {
            **_platform_args("TARGET", target_platform),
            **_platform_args("BUILD", build_platform),
            "TARGETSTAGE": dockerfile.stages[-1].from_.name or "default",
        }
        self.global_args = self.with_global_args(build_args)

    def with_global_args(self, build_args: Mapping[str, str]) -> dict[str, str]:
        """What FROM can use."""
        known = dict(self.platforms)
        known.update({name: build_args[name] for name in known if name in build_args})
        for arg in self.dockerfile.global_args:
            for name, default in arg.pairs:
                if name in build_args:
                    known[name] = build_args[name]
                elif default is not None and (value := self.expanded(default, known)) is not None:
                    known[name] = value.text
        return known

    def expanded(self, word: str, variables: Mapping[str, str]) -> Expanded | None:
        """None where it cannot be: the build will say why."""
        try:
            return expand(word, variables, self.escape)
        except InvalidArgument:
            return None

    def open(self, number: int) -> _Stage:
        from_ = self.dockerfile.stages[number].from_
        image = self.expanded(from_.image, self.global_args)
        name = image.text if image else from_.image
        parent = self._by_name.get(name.lower())
        if parent is not None:
            stage = _Stage(
                dict(parent.env),
                parent.is_known,
                set(parent.args),
                parent.has_workdir,
                parent.has_shell,
            )
        elif name == "scratch":
            stage = _Stage(dict(_PATH), True)
        else:
            base = self._bases.get(number)
            env = dict(_PATH) if base is None else {**_PATH, **base.env}
            has_shell = base is not None and base.has_shell
            stage = _Stage(env, base is not None, has_shell=has_shell)
        if from_.name:
            self._by_name[from_.name] = stage
        return stage


def _platform_args(prefix: str, platform: str) -> dict[str, str]:
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return {
        f"{prefix}PLATFORM": platform,
        f"{prefix}OS": system,
        f"{prefix}ARCH": architecture,
        f"{prefix}VARIANT": variant,
    }


# -- FROM ----------------------------------------------------------------------------------


def from_rules(walk: Walk) -> Iterator[Warning]:
    defaults = walk.with_global_args({})
    declared = set(walk.global_args)
    declared.update(name for arg in walk.dockerfile.global_args for name, _ in arg.pairs)
    for stage in walk.dockerfile.stages:
        from_ = stage.from_
        image = walk.expanded(from_.image, defaults)
        if image is not None and not _is_reference(image.text):
            message = (
                f"Default value for ARG {from_.image} results in empty or invalid base image name"
            )
            yield Warning("InvalidDefaultArgInFrom", message, from_.span)
        platform = walk.expanded(from_.platform, walk.global_args)
        unset = set[str]()
        for used in (walk.expanded(from_.image, walk.global_args), platform):
            unset |= used.unset if used else frozenset()
        for name in sorted(unset - declared):
            message = f"FROM argument '{name}' is not declared{nearest(name, declared)}"
            yield Warning("UndefinedArgInFrom", message, from_.span)
        if from_.platform and platform is not None:
            yield from _platform_rules(walk, from_.name, from_.platform, platform, from_)


def _platform_rules(
    walk: Walk, name: str, written: str, platform: Expanded, from_: Instruction
) -> Iterator[Warning]:
    target = walk.global_args["TARGETPLATFORM"]
    is_target = platform.used == {"TARGETPLATFORM"} and not platform.unset
    if is_target and platform.text == target:
        message = (
            f"Setting platform to predefined {written} in FROM is redundant as this is the "
            "default behavior"
        )
        yield Warning("RedundantTargetPlatform", message, from_.span)
    if platform.used or platform.unset:
        return
    parsed = _platform(platform.text)
    if parsed is None or parsed.os in name or parsed.architecture in name:
        return
    message = f'FROM --platform flag should not use constant value "{platform.text}"'
    yield Warning("FromPlatformFlagConstDisallowed", message, from_.span)


def _platform(text: str) -> Platform | None:
    try:
        return parse_platform(text, "amd64")
    except InvalidArgument:
        return None


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except InvalidArgument:
        return False
    return True


# -- instructions of a stage ---------------------------------------------------------------


def stage_rules(walk: Walk, number: int) -> list[Warning]:
    stage = walk.open(number)
    found: list[Warning] = []
    for instruction in walk.dockerfile.stages[number].instructions:
        before = dict(stage.env) if isinstance(instruction, (Arg, Env)) else stage.env
        found += _rules(walk, stage, instruction)
        found += _undefined(walk, stage, before, instruction)
    return found


def _rules(walk: Walk, stage: _Stage, instruction: Instruction) -> Iterator[Warning]:
    match instruction:
        case Arg():
            yield from _secret_names("ARG", [name for name, _ in instruction.pairs], instruction)
            _declare(walk, stage, instruction)
        case Env():
            yield from _secret_names("ENV", [name for name, _ in instruction.pairs], instruction)
            _set(walk, stage, instruction)
        case Shell():
            stage.has_shell = True
        case Cmd() | Entrypoint():
            if instruction.command.is_shell and not stage.has_shell:
                written = instruction.text[: len(instruction.keyword)]
                message = (
                    f"JSON arguments recommended for {written} to prevent unintended behavior "
                    "related to OS signals"
                )
                yield Warning("JSONArgsRecommended", message, instruction.span)
        case Run(command=CommandLine((text,), is_shell=True)) if text.startswith(('["', "['")):
            # No test of a shell: that has a blank behind its bracket.
            message = (
                "JSON arguments expected: this begins as an array of strings and is none, so the "
                "shell gets it as it is written"
            )
            yield Warning("JSONArgsRecommended", message, instruction.span)
        case Value(keyword="WORKDIR"):
            yield from _workdir(walk, stage, instruction)
        case Words(keyword="EXPOSE"):
            yield from _ports(walk, stage, instruction)
        case Files():
            yield from _sources(walk, stage, instruction)


def _secret_names(kind: str, names: list[str], instruction: Instruction) -> Iterator[Warning]:
    for name in names:
        if _SECRET.search(name) and not _HARMLESS.search(name):
            message = f'Do not use ARG or ENV instructions for sensitive data ({kind} "{name}")'
            yield Warning("SecretsUsedInArgOrEnv", message, instruction.span)


def _declare(walk: Walk, stage: _Stage, arg: Arg) -> None:
    for name, default in arg.pairs:
        stage.args.add(name)
        value = walk.build_args.get(name)
        if value is None and default is None:
            value = walk.global_args.get(name)
        elif value is None and default is not None:
            expanded = walk.expanded(default, stage.env)
            value = expanded.text if expanded else None
        if value is not None and name not in _NOT_IN_ENV:
            stage.env[name] = value


def _set(walk: Walk, stage: _Stage, env: Env) -> None:
    """All values of one ENV see the environment in front of it."""
    made = {}
    for name, written in env.pairs:
        key, value = walk.expanded(name, stage.env), walk.expanded(written, stage.env)
        if key is not None:
            made[key.text] = value.text if value else ""
    stage.env.update(made)


def _workdir(walk: Walk, stage: _Stage, instruction: Value) -> Iterator[Warning]:
    path = walk.expanded(instruction.value, stage.env)
    if path is not None and not stage.has_workdir and not path.text.startswith("/"):
        message = (
            f'Relative workdir "{path.text}" can have unexpected results if the base image changes'
        )
        yield Warning("WorkdirRelativePath", message, instruction.span)
    stage.has_workdir = True


def _ports(walk: Walk, stage: _Stage, instruction: Words) -> Iterator[Warning]:
    for word in instruction.words:
        try:
            ports = expand_words(word, stage.env, walk.escape).words
        except InvalidArgument:
            continue
        for port in ports:
            host, _, container = port.rpartition(":")
            protocol = container.partition("/")[2]
            if protocol != protocol.lower():
                message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                yield Warning("ExposeProtoCasing", message, instruction.span)
            if host.strip(":"):
                message = (
                    "EXPOSE instruction should not define an IP address or host-port mapping, "
                    f"found '{port}'"
                )
                yield Warning("ExposeInvalidFormat", message, instruction.span)


def _sources(walk: Walk, stage: _Stage, files: Files) -> Iterator[Warning]:
    if walk.ignored is None or files.from_:
        return
    for source in files.sources:
        expanded = walk.expanded(source, stage.env)
        if source.startswith("<<") or expanded is None:
            continue
        if files.keyword == "ADD" and _REMOTE.match(expanded.text):
            continue
        path = posixpath.normpath(expanded.text or ".").lstrip("/")
        if path not in ("", ".") and walk.ignored(path):
            kind = files.keyword.capitalize()
            message = f'Attempting to {kind} file "{path}" that is excluded by .dockerignore'
            yield Warning("CopyIgnoredFile", message, files.span)


def _undefined(
    walk: Walk, stage: _Stage, before: Mapping[str, str], instruction: Instruction
) -> Iterator[Warning]:
    """Names that neither an ARG nor the environment in front of the instruction has."""
    if not stage.is_known:
        return
    unset: set[str] = set()
    for word in _words(instruction, stage.args):
        used = walk.expanded(word, before)
        unset |= used.unset if used else frozenset()
    if isinstance(instruction, Files):
        for doc in instruction.heredocs:
            try:
                unset |= expand(doc.content, before, style=HEREDOC).unset if doc.expand else set()
            except InvalidArgument:
                continue
    for name in sorted(unset - stage.args - _NOT_IN_ENV):
        hint = nearest(name, before).replace("mean ", "mean $")
        yield Warning(
            "UndefinedVar", f"Usage of undefined variable '${name}'{hint}", instruction.span
        )


def _words(instruction: Instruction, args: set[str]) -> list[str]:
    """What of it is expanded."""
    match instruction:
        case Files():
            plain = [source for source in instruction.sources if not source.startswith("<<")]
            return [
                instruction.chown,
                instruction.chmod,
                instruction.checksum,
                *instruction.excludes,
                *plain,
                instruction.destination,
            ]
        case Env() | Label():
            return [word for pair in instruction.pairs for word in pair]
        case Arg():
            return [default for _, default in instruction.pairs if default is not None]
        case Words(keyword="VOLUME"):
            return list(instruction.words)
        case Value(keyword="WORKDIR" | "USER" | "STOPSIGNAL"):
            return [instruction.value]
        case Run():
            return [value for mount in instruction.mounts for _, value in mount.options]
        case _:
            return []
