"""RUN as a step: its command, environment, mounts and what of it counts for the cache. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from estiba.build import history
from estiba.build.argument_use import uses
from estiba.build.dockerfile import heredocs
from estiba.build.dockerfile import instructions as ast
from estiba.build.dockerfile.errors import DockerfileError, refusal
from estiba.build.ops import ContextInput, InlineInput, Input, MountSpec, RunOp
from estiba.model.errors import InvalidArgument
from estiba.model.sizes import parse_ram_bytes

if TYPE_CHECKING:
    from estiba.build.dispatch import Dispatcher

HOSTNAME = "buildkitsandbox"
"""As BuildKit's: programs write it into what they make, and it must not differ between builds."""

_PIPES = "/dev/pipes"
_SECRETS = "/run/secrets"
_AGENTS = "/run/buildkit/ssh_agent.{}"
_SHARING = ("shared", "private", "locked")
_MAX_ID = 2**31 - 1


@dataclass(slots=True)
class _Command:
    argv: list[str]
    mounts: list[MountSpec] = field(default_factory=list)


def plan_run(at: ast.Run, stage: Dispatcher) -> tuple[RunOp, str, str]:
    """The op, its text for the history, and its name. Raises DockerfileError."""
    command = _command(at, stage)
    mounts = [*command.mounts, *_mounts(at, stage)]
    environment = dict(entry.partition("=")[::2] for entry in stage.config.env)
    scope = {
        name: value
        for name, value in stage.args.items()
        if name not in environment or name in stage.stronger_args
    }
    used = uses(
        at.command.words[0] if at.command.is_shell else at.command.words,
        at.heredocs,
        list(scope),
        is_shell=at.command.is_shell,
        shell=stage.shell,
        env=list(environment),
    )
    args = [(name, value) for name, value in sorted(scope.items()) if name in used]
    args = [pair for pair in args if not _is_private(pair[0])]
    counted = {name for name, _ in args}
    hidden = [f"{name}={value}" for name, value in scope.items() if name not in counted]
    hidden += [
        f"{name}={value}"
        for name, value in stage.scope.request_args.items()
        if _is_private(name) and name not in scope and name not in environment
    ]
    op = RunOp(
        argv=tuple(command.argv),
        env=tuple(one for one in stage.config.env if one.partition("=")[0] not in scope),
        args=tuple(args),
        hidden_env=tuple(hidden),
        cwd=stage.working_dir,
        user=stage.config.user,
        mounts=tuple(mounts),
        network=at.network,
        insecure=at.security == "insecure",
        hostname=stage.scope.request_args.get("BUILDKIT_SANDBOX_HOSTNAME", HOSTNAME),
    )
    if at.devices:
        raise refusal(
            "RUN --device needs a CDI device, and this engine serves none: leave it out", at.span
        )
    return op, history.run(command.argv, args), _name(at)


def _is_private(name: str) -> bool:
    from estiba.build.dispatch import PROXY_NAMES

    return name in PROXY_NAMES


def _name(at: ast.Run) -> str:
    text = " ".join(at.text.split())
    if at.heredocs and at.command.words and at.command.words[0].strip().startswith("<<"):
        first = next((line.strip() for line in at.heredocs[0].content.splitlines() if line), "")
        return f"{text} ({first[:60]}...)"
    return text


def _command(at: ast.Run, stage: Dispatcher) -> _Command:
    if not at.heredocs:
        return _Command(stage.argv(at.command))
    script = heredocs.script(at)
    if not script.is_file:
        return _Command([*stage.shell, script.text])
    # The kernel reads the program's first line.
    files = InlineInput(((script.name, script.text),), 0o755)
    argv = [*stage.shell, f"{_PIPES}/{script.name}"]
    return _Command(argv, [MountSpec("bind", _PIPES, files)])


# -- mounts --------------------------------------------------------------------------------


def _mounts(at: ast.Run, stage: Dispatcher) -> list[MountSpec]:
    found = [_Options(flag, at, stage).spec() for flag in at.mounts]
    agents = 0
    numbered = []
    for mount in found:
        if mount.type == "ssh" and not mount.target:
            mount = _with_target(mount, _AGENTS.format(agents))
            agents += 1
        numbered.append(mount)
    return numbered


def _with_target(mount: MountSpec, target: str) -> MountSpec:
    from dataclasses import replace

    return replace(mount, target=target)


class _Options:
    """The options of one `--mount`, expanded."""

    def __init__(self, flag: ast.MountFlag, at: ast.Run, stage: Dispatcher) -> None:
        self._type = flag.type or "bind"
        self._at = at
        self._stage = stage
        self._options = {name: stage.expand(value, at) for name, value in flag.options}

    def spec(self) -> MountSpec:
        """Raises DockerfileError."""
        kind = self._type
        target = self._target()
        if kind in ("bind", "cache", "tmpfs") and not target:
            raise self._error(f"--mount=type={kind} needs target=PATH")
        if kind in ("bind", "cache", "tmpfs") and target == "/":
            raise self._error("--mount: the target cannot be the root directory")
        return MountSpec(
            type=kind,
            target=target,
            input=self._input(),
            source=self._options.get("source", "/") or "/",
            readonly=self._flag("readonly", default=kind == "bind"),
            id=self._id(target),
            sharing=self._sharing(),
            mode=self._mode(),
            uid=self._number("uid"),
            gid=self._number("gid"),
            size_bytes=self._size(),
            env=self._options.get("env", ""),
            required=self._flag("required", default=False),
        )

    def _error(self, text: str) -> DockerfileError:
        return refusal(text, self._at.span)

    def _target(self) -> str:
        target = self._options.get("target", "")
        if not target and self._type == "secret" and not self._options.get("env"):
            name = self._options.get("id") or posixpath.basename(self._options.get("source", ""))
            if not name:
                raise self._error("--mount=type=secret needs id=NAME")
            return f"{_SECRETS}/{name}"
        if not target:
            return ""
        return posixpath.normpath(posixpath.join(self._stage.working_dir, target))

    def _input(self) -> Input | None:
        name = self._options.get("from", "")
        if self._type == "bind":
            return self._stage.scope.find_input(name, self._at) if name else ContextInput()
        if self._type == "cache" and name:
            return self._stage.scope.find_input(name, self._at)
        return None

    def _id(self, target: str) -> str:
        given = self._options.get("id", "")
        if self._type == "cache":
            return given or target
        if self._type == "ssh":
            return given or "default"
        return given or posixpath.basename(self._options.get("source", "") or target)

    def _flag(self, name: str, *, default: bool) -> bool:
        text = self._options.get(name)
        if text is None:
            return default
        lowered = text.lower()
        if lowered in ("", "true", "1"):
            return True
        if lowered in ("false", "0"):
            return False
        raise self._error(f"--mount: {name}={text[:32]}: use true or false")

    def _sharing(self) -> str:
        sharing = (self._options.get("sharing") or "shared").lower()
        if sharing not in _SHARING:
            raise self._error(f"--mount: sharing={sharing[:32]}: one of {', '.join(_SHARING)}")
        return sharing

    def _mode(self) -> int | None:
        text = self._options.get("mode")
        if not text:
            return None
        try:
            mode = int(text, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o7777:
            raise self._error(f"--mount: mode={text[:32]}: give octal digits, 0755 for instance")
        return mode

    def _number(self, name: str) -> int:
        text = self._options.get(name, "")
        if not text:
            return 0
        if not (text.isascii() and text.isdecimal() and int(text) <= _MAX_ID):
            raise self._error(f"--mount: {name}={text[:32]}: give a number")
        return int(text)

    def _size(self) -> int:
        text = self._options.get("size", "")
        if not text:
            return 0
        try:
            return parse_ram_bytes(text)
        except InvalidArgument as error:
            raise self._error(f"--mount: size={text[:32]}: {error}") from error
