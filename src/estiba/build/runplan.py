"""RUN as a step: its command, environment, mounts and what of it counts for the cache. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from estiba.build import history
from estiba.build.argument_use import uses
from estiba.build.dockerfile import heredocs
from estiba.build.dockerfile import instructions as ast
from estiba.build.dockerfile.errors import DockerfileError, refusal
from estiba.build.dockerfile.mounts import Mount, MountError, resolve
from estiba.build.ops import ContextInput, InlineInput, Input, MountSpec, RunOp

if TYPE_CHECKING:
    from estiba.build.dispatch import Dispatcher

PROXY_NAMES = frozenset(
    name
    for word in ("HTTP", "HTTPS", "FTP", "NO", "ALL")
    for name in (f"{word}_PROXY", f"{word.lower()}_proxy")
)
"""Arguments that every step has and that never count for the cache."""

HOSTNAME = "buildkitsandbox"
"""As BuildKit's: programs write it into what they make, and it must not differ between builds."""

_PIPES = "/dev/pipes"
_SECRETS = "/run/secrets"
_AGENTS = "/run/buildkit/ssh_agent.{}"
_PLACED = ("bind", "cache", "tmpfs")


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
    args = [pair for pair in args if pair[0] not in PROXY_NAMES]
    counted = {name for name, _ in args}
    hidden = [f"{name}={value}" for name, value in scope.items() if name not in counted]
    hidden += [
        f"{name}={value}"
        for name, value in _proxies(stage.scope.request_args).items()
        if name not in scope and name not in environment
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


def _proxies(given: Mapping[str, str]) -> dict[str, str]:
    """In capitals and in small letters, whichever was given: programs read one or the other."""
    proxies = {name: value for name, value in given.items() if name in PROXY_NAMES}
    return {**{name.swapcase(): value for name, value in proxies.items()}, **proxies}


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
    """Raises DockerfileError."""
    found: list[MountSpec] = []
    agents = 0
    for flag in at.mounts:
        try:
            mount = resolve(flag, lambda word: stage.expand(word, at))
        except MountError as error:
            raise DockerfileError(at.span, error.what, error.expected) from error
        target = _target(mount, stage.working_dir)
        if mount.type == "ssh" and not target:
            target = _AGENTS.format(agents)
            agents += 1
        if mount.type in _PLACED and target in ("", "/"):
            raise refusal(f"--mount=type={mount.type} needs target=PATH, not the root", at.span)
        found.append(
            MountSpec(
                type=mount.type,
                target=target,
                input=_input(mount, at, stage),
                source=mount.source or "/",
                readonly=mount.readonly,
                id=_id(mount, target),
                sharing=mount.sharing,
                mode=mount.mode,
                uid=mount.uid or 0,
                gid=mount.gid or 0,
                size_bytes=mount.size_bytes,
                env=mount.env,
                required=mount.required,
            )
        )
    return found


def _target(mount: Mount, working_dir: str) -> str:
    if mount.target:
        return posixpath.normpath(posixpath.join(working_dir, mount.target))
    if mount.type == "secret" and not mount.env:
        return f"{_SECRETS}/{mount.id or posixpath.basename(mount.source)}"
    return ""


def _input(mount: Mount, at: ast.Run, stage: Dispatcher) -> Input | None:
    if mount.type not in ("bind", "cache"):
        return None
    if mount.from_:
        return stage.scope.find_input(mount.from_, at)
    return ContextInput() if mount.type == "bind" else None


def _id(mount: Mount, target: str) -> str:
    if mount.type == "cache":
        return mount.id or target
    if mount.type == "ssh":
        return mount.id or "default"
    return mount.id or posixpath.basename(mount.source or target)
