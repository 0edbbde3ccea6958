"""One stage, instruction by instruction: what it does to the config, and its steps. Pure."""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from estiba.build import history
from estiba.build.dockerfile import instructions as ast
from estiba.build.dockerfile.errors import refusal
from estiba.build.dockerfile.parser import parse_trigger
from estiba.build.dockerfile.words import expand, expand_words
from estiba.build.exposed import parse_exposed
from estiba.build.filesplan import plan_files
from estiba.build.ops import (
    CopyOp,
    DirectoryOp,
    ImageInput,
    Input,
    Op,
    StageInput,
    StagePlan,
    Step,
)
from estiba.build.runplan import PROXY_NAMES, plan_run
from estiba.model.container import HealthConfig
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageConfig, ImageProcessConfig, Platform

_MAX_EXPANDED_CHARS = 16 << 20
"""Of all words of a stage: variables that double one another take no more."""

T = TypeVar("T")

_MAX_NAMES = 10_000
_MAX_PORTS = 70_000
"""Somewhat more than all ports of a protocol."""

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a stage sees from outside: arguments, and what `--from` finds."""

    request_args: Mapping[str, str]
    global_args: Mapping[str, str]
    platform_args: Mapping[str, str]
    escape: str
    find_input: Callable[[str, ast.Instruction], Input]
    inherited_args: Mapping[str, str]
    """Of the stage below, if it is one."""


class Dispatcher:
    """Call `plan` once."""

    def __init__(
        self,
        stage: ast.Stage,
        index: int,
        base: Input | None,
        platform: Platform,
        config: ImageConfig,
        scope: Scope,
    ) -> None:
        self._stage = stage
        self._index = index
        self._base = base
        self._platform = platform
        self._image = config
        self.config: ImageProcessConfig = config.config
        self._environment = dict(entry.partition("=")[::2] for entry in self.config.env)
        self.scope = scope
        self.args: dict[str, str] = dict(scope.inherited_args)
        """Declared so far, with a value."""
        self.stronger_args: set[str] = set()
        """Those that were declared below an ENV of the same name."""
        self._expanded_chars = 0
        self._steps: list[Step] = []
        self._is_cmd_set = False
        self._author = config.author

    def plan(self, labels: Mapping[str, str]) -> StagePlan:
        """`labels` are the client's, for the target. Raises DockerfileError."""
        if not self._variable("PATH"):
            self._set_env({"PATH": DEFAULT_PATH})
        self._take_files()
        for trigger in self._take_triggers():
            self._dispatch(trigger)
        for instruction in self._stage.instructions:
            self._dispatch(instruction)
        if labels:
            self._change(labels={**self.config.labels, **labels})
        image = msgspec.structs.replace(
            self._image,
            author=self._author,
            config=self.config,
            os=self._platform.os,
            architecture=self._image.architecture or self._platform.architecture,
        )
        return StagePlan(
            index=self._index,
            name=self._stage.from_.name,
            from_=self._stage.from_,
            platform=self._platform,
            base=self._base,
            steps=tuple(self._steps),
            config=image,
            shell=self.shell,
            args=tuple(self.args.items()),
        )

    def _take_files(self) -> None:
        """A base that is no image is a tree of files: they are copied onto nothing."""
        if self._base is None or isinstance(self._base, StageInput | ImageInput):
            return
        op = CopyOp(groups=((self._base, (".",)),), destination="/")
        self._base = None
        self._add(self._stage.from_, op, f"FROM {self._stage.from_.image}")

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.shell) or DEFAULT_SHELL

    @property
    def index(self) -> int:
        return self._index

    @property
    def working_dir(self) -> str:
        return self.config.working_dir or "/"

    # -- variables -------------------------------------------------------------------------

    def variables(self) -> dict[str, str]:
        """What words may name: arguments and the environment; what came later goes before."""
        stronger = {name: self.args[name] for name in self.stronger_args}
        return {**self.args, **self._environment, **stronger}

    def expand(self, word: str, at: ast.Instruction) -> str:
        try:
            # Thousands of variables take their time to be put together.
            known = self.variables() if "$" in word else {}
            text = expand(word, known, self.scope.escape).text
        except InvalidArgument as error:
            raise refusal(str(error), at.span) from error
        self._expanded_chars += len(text)
        if self._expanded_chars > _MAX_EXPANDED_CHARS:
            raise refusal(
                f"the stage's values come to more than {_MAX_EXPANDED_CHARS >> 20} MiB: make "
                "variables shorter",
                at.span,
            )
        return text

    def expand_words(self, word: str, at: ast.Instruction) -> list[str]:
        try:
            return list(expand_words(word, self.variables(), self.scope.escape).words)
        except InvalidArgument as error:
            raise refusal(str(error), at.span) from error

    def _variable(self, name: str) -> str:
        return self.variables().get(name, "")

    def _set_env(self, values: Mapping[str, str]) -> None:
        self._environment.update(values)
        self._change(env=[f"{name}={text}" for name, text in self._environment.items()])

    def _change(self, **fields: Any) -> None:
        self.config = msgspec.structs.replace(self.config, **fields)

    def _few(
        self, values: dict[str, T], at: ast.Instruction, limit: int = _MAX_NAMES
    ) -> dict[str, T]:
        """As they are; so many of anything are a mistake, or meant to keep the engine busy."""
        if len(values) > limit:
            raise refusal(f"{at.keyword}: more than {limit} of them in an image", at.span)
        return values

    # -- instructions ----------------------------------------------------------------------

    def _take_triggers(self) -> list[ast.Instruction]:
        """ONBUILD of the base image, for which this build is the occasion."""
        triggers = self.config.on_build
        self._change(on_build=[])
        parsed = []
        for text in triggers:
            try:
                trigger = parse_trigger(text)
            except InvalidArgument as error:
                raise refusal(
                    f"ONBUILD of the base image cannot be read: {text[:128]!r}: {error}",
                    self._stage.from_.span,
                ) from error
            parsed.append(replace(trigger, span=self._stage.from_.span))
        return parsed

    def _dispatch(self, at: ast.Instruction) -> None:
        match at:
            case ast.Arg():
                self._arg(at)
            case ast.Env():
                self._env(at)
            case ast.Label():
                self._label(at)
            case ast.Run():
                self._add(at, *plan_run(at, self))
            case ast.Files():
                self._add(at, *plan_files(at, self))
            case ast.Cmd() | ast.Entrypoint():
                self._command(at)
            case ast.Shell():
                self._change(shell=list(at.words))
                self._add(at, None, history.shell(at.words))
            case ast.Healthcheck():
                self._healthcheck(at)
            case ast.Words():
                self._words(at)
            case ast.Value():
                self._value(at)
            case ast.Onbuild():
                self._change(on_build=[*self.config.on_build, at.trigger])
                self._add(at, None, "")
            case _:
                raise refusal(f"{at.keyword} has no place here", at.span)

    def _add(self, at: ast.Instruction, op: Op | None, created_by: str, name: str = "") -> None:
        self._steps.append(
            Step(
                index=len(self._steps),
                instruction=at,
                name=name or " ".join(at.text.split()),
                created_by=created_by,
                op=op,
            )
        )

    def _arg(self, at: ast.Arg) -> None:
        told = []
        for name, default in at.pairs:
            value = self.scope.request_args.get(name)
            if value is None and default is not None:
                value = self.expand(default, at)
            elif value is None:
                value = self.scope.global_args.get(name, self.scope.platform_args.get(name))
            if value is not None:
                self.args[name] = value
                self.stronger_args.add(name)
                self._few(self.args, at)
            is_private = name in PROXY_NAMES
            told.append(f"{name}={value}" if value is not None and not is_private else name)
        self._add(at, None, f"ARG {' '.join(told)}")

    def _env(self, at: ast.Env) -> None:
        values = [(self.expand(name, at), self.expand(value, at)) for name, value in at.pairs]
        if not all(name for name, _ in values):
            raise refusal("ENV with a name that is empty once expanded", at.span)
        self._set_env(self._few({**self._environment, **dict(values)}, at))
        self.stronger_args.difference_update(name for name, _ in values)
        told = " ".join(f"{name}={value}" for name, value in values)
        self._add(at, None, f"ENV {told}")

    def _label(self, at: ast.Label) -> None:
        values = {self.expand(name, at): self.expand(value, at) for name, value in at.pairs}
        self._change(labels=self._few({**self.config.labels, **values}, at))
        told = " ".join(f"{name}={value}" for name, value in values.items())
        self._add(at, None, f"LABEL {told}")

    def _command(self, at: ast.Cmd | ast.Entrypoint) -> None:
        words = self.argv(at.command)
        if isinstance(at, ast.Cmd):
            self._is_cmd_set = True
            self._change(cmd=words)
        else:
            # The base image's arguments were meant for its own program.
            self._change(entrypoint=words, cmd=self.config.cmd if self._is_cmd_set else None)
        self._add(at, None, f"{at.keyword} {history.go_list(words)}")

    def argv(self, command: ast.CommandLine) -> list[str]:
        return [*self.shell, *command.words] if command.is_shell else list(command.words)

    def _healthcheck(self, at: ast.Healthcheck) -> None:
        if at.command is None:
            check = HealthConfig(test=["NONE"])
        else:
            kind = "CMD-SHELL" if at.command.is_shell else "CMD"
            check = HealthConfig(
                test=[kind, *at.command.words],
                interval=at.interval_ns,
                timeout=at.timeout_ns,
                start_period=at.start_period_ns,
                start_interval=at.start_interval_ns,
                retries=at.retries,
            )
        self._change(healthcheck=check)
        self._add(at, None, f"HEALTHCHECK {history.health(check)}")

    def _words(self, at: ast.Words) -> None:
        if at.keyword == "EXPOSE":
            self._expose(at)
            return
        words = [self.expand(word, at) for word in at.words]
        if not all(words):
            raise refusal("VOLUME specified can not be an empty string", at.span)
        volumes = {**self.config.volumes, **{word: {} for word in words}}
        self._change(volumes=self._few(volumes, at))
        self._add(at, None, f"VOLUME [{' '.join(words)}]")

    def _expose(self, at: ast.Words) -> None:
        # In the order of the words as they are written.
        words = [word for text in sorted(at.words) for word in self.expand_words(text, at)]
        ports: dict[str, dict[str, Any]] = {}
        try:
            for word in words:
                ports.update((port, {}) for port in parse_exposed(word))
                self._few(ports, at, _MAX_PORTS)
        except InvalidArgument as error:
            raise refusal(str(error), at.span) from error
        exposed = {**self.config.exposed_ports, **ports}
        self._change(exposed_ports=self._few(exposed, at, _MAX_PORTS))
        self._add(at, None, f"EXPOSE [{' '.join(ports)}]")

    def _value(self, at: ast.Value) -> None:
        value = at.value if at.keyword == "MAINTAINER" else self.expand(at.value, at)
        if at.keyword == "MAINTAINER":
            self._author = value
        elif at.keyword == "USER":
            self._change(user=value)
        elif at.keyword == "STOPSIGNAL":
            self._change(stop_signal=checked_signal(value, at))
        else:
            path = posixpath.normpath(posixpath.join(self.working_dir, value))
            path = "/" + path.lstrip("/")
            self._change(working_dir=path)
            op = None if path == "/" else DirectoryOp(path=path, user=self.config.user)
            self._add(at, op, f"WORKDIR {path}")
            return
        self._add(at, None, f"{at.keyword} {value}")


def checked_signal(value: str, at: ast.Instruction) -> str:
    name = value.upper().removeprefix("SIG")
    known = {one.name.removeprefix("SIG") for one in signal.Signals} | {"RTMIN", "RTMAX"}
    is_real_time = name.startswith(("RTMIN+", "RTMAX-")) and name[6:].isdecimal()
    is_number = value.isdecimal() and len(value) < 10 and 0 < int(value) < 65
    if not is_number and name not in known and not is_real_time:
        raise refusal(f"invalid signal: {value[:64]!r}: use a name such as SIGTERM", at.span)
    return value
