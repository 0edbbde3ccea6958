"""The isolation of one container, decided as a whole from what the user asked for. Pure.

`Host` holds what the decision depends on; `read_host` is the only reader of the machine.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estiba.kernel.capabilities import bounding_set
from estiba.model.container import HostConfig, Ulimit
from estiba.model.errors import InvalidArgument
from estiba.security.profiles.capabilities import decide_capabilities
from estiba.security.profiles.paths import READ_ONLY_PATHS, masked_paths
from estiba.security.profiles.rlimits import UNLIMITED, decide_rlimits
from estiba.security.profiles.seccomp import Machine, default_profile, load_profile

_GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "loongarch64": "loong64",
}


@dataclass(frozen=True, slots=True)
class Host:
    """`ceiling` are the engine's own hard limits, None where it may exceed them."""

    machine: Machine
    bounding: frozenset[str]
    ceiling: Mapping[str, int] | None
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the runtime-spec is told. `seccomp` None is unconfined."""

    capabilities: list[str]
    seccomp: dict[str, Any] | None
    no_new_privileges: bool
    masked_paths: list[str]
    readonly_paths: list[str]
    rlimits: list[dict[str, object]]
    writable_cgroups: bool = False
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Options:
    seccomp: str = "builtin"
    no_new_privileges: bool = False
    writable_cgroups: bool = False
    warnings: tuple[str, ...] = ()


def read_host() -> Host:
    """The machine and this process's own rights, read once at start."""
    uname = os.uname()
    major, minor = uname.release.split(".")[:2]
    digits = minor[: next((i for i, c in enumerate(minor) if not c.isdigit()), len(minor))]
    bounding = bounding_set()
    return Host(
        machine=Machine(go_architecture(uname.machine), (int(major), int(digits))),
        bounding=bounding,
        ceiling=None if "CAP_SYS_RESOURCE" in bounding else _hard_limits(),
        cpus=tuple(range(os.cpu_count() or 1)),
    )


def go_architecture(machine: str) -> str:
    """The name in the Engine API and in profiles of what uname(2) calls `machine`."""
    return _GO_ARCHITECTURES.get(machine, machine)


def decide_profile(
    wanted: HostConfig,
    host: Host,
    *,
    default_ulimits: Sequence[Ulimit] = (),
    no_new_privileges: bool = False,
) -> Profile:
    """The isolation for a container; `warnings` say what this host could not give.

    Raises InvalidArgument for an option, capability, limit or profile that makes no sense.
    """
    options = _parse_options(wanted.security_opt)
    privileged = wanted.privileged
    capabilities, warnings = decide_capabilities(
        wanted.cap_add, wanted.cap_drop, privileged=privileged, bounding=host.bounding
    )
    masked, readonly = default_paths(host)
    rlimits, more = decide_rlimits(wanted.ulimits, default_ulimits, ceiling=host.ceiling)
    return Profile(
        capabilities=capabilities,
        seccomp=_seccomp(options.seccomp, host.machine, capabilities, privileged=privileged),
        no_new_privileges=options.no_new_privileges or no_new_privileges,
        masked_paths=_paths(wanted.masked_paths, masked, privileged),
        readonly_paths=_paths(wanted.readonly_paths, readonly, privileged),
        rlimits=rlimits,
        writable_cgroups=options.writable_cgroups or privileged,
        warnings=[*options.warnings, *warnings, *more],
    )


def default_paths(host: Host) -> tuple[list[str], list[str]]:
    """The masked and the read-only paths of a container that asks for none of its own."""
    return masked_paths(host.cpus), list(READ_ONLY_PATHS)


def _paths(wanted: list[str] | None, default: list[str], privileged: bool) -> list[str]:
    if privileged:
        return []
    return default if wanted is None else wanted


def _seccomp(
    choice: str, machine: Machine, capabilities: list[str], *, privileged: bool
) -> dict[str, Any] | None:
    """A profile that was asked for holds in a privileged container too."""
    if choice == "unconfined" or (privileged and choice == "builtin"):
        return None
    if choice == "builtin":
        return default_profile(machine, capabilities)
    return load_profile(choice, machine, capabilities)


def _parse_options(options: Sequence[str]) -> _Options:
    """HostConfig.SecurityOpt: `key=value`, `key:value` as of old, or `no-new-privileges`."""
    chosen: dict[str, Any] = {}
    warnings = []
    for option in options:
        separator = "=" if "=" in option or ":" not in option else ":"
        key, has_value, value = option.partition(separator)
        if option in ("no-new-privileges", "writable-cgroups"):
            chosen[option.replace("-", "_")] = True
        elif not has_value:
            raise InvalidArgument(f'invalid --security-opt 1: "{option[:100]}"')
        elif key in ("no-new-privileges", "writable-cgroups"):
            chosen[key.replace("-", "_")] = _parse_bool(option, value)
        elif key == "seccomp":
            chosen["seccomp"] = value
        elif key in ("apparmor", "label"):
            if value not in ("unconfined", "disable"):
                warnings.append(f"--security-opt {option}: this engine does not apply {key}")
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option[:100]}"')
    return _Options(**chosen, warnings=tuple(warnings))


def _parse_bool(option: str, value: str) -> bool:
    if value.lower() not in ("true", "1", "t", "false", "0", "f"):
        raise InvalidArgument(f'invalid --security-opt 2: "{option[:100]}"')
    return value.lower() in ("true", "1", "t")


def _hard_limits() -> dict[str, int]:
    limits = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            hard = resource.getrlimit(getattr(resource, name))[1]
            limits[name.removeprefix("RLIMIT_").lower()] = UNLIMITED if hard < 0 else hard
    return limits
