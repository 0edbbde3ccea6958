"""Seccomp profiles in the runtime-spec's form: the default, a user's own, or none. Pure.

A profile is resolved for one container: its capabilities, the machine's architecture and
kernel decide which rules apply, as in Docker's profile format.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import msgspec

from estiba.model.decoding import from_json
from estiba.model.errors import InvalidArgument
from estiba.security.profiles.seccomp_table import ARCHITECTURES, DEFAULT, EPERM, Group

_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_KERNEL = re.compile(r"(\d+)\.(\d+)")

# What runtime-spec 1.0 and its seccomp flags know, as crun and runc take it.
_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY".split()
)
_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())
_FLAGS = frozenset(
    f"SECCOMP_FILTER_FLAG_{name}" for name in "TSYNC LOG SPEC_ALLOW WAIT_KILLABLE_RECV".split()
)
_ARCHITECTURES = frozenset(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 "
        "PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
_MAX_ARGUMENT = 5

Spec = dict[str, Any]


class Machine(msgspec.Struct, frozen=True):
    """What decides about rules: `architecture` in Go's words (amd64), the kernel's version."""

    architecture: str
    kernel: tuple[int, int]


def default_profile(machine: Machine, capabilities: Collection[str]) -> Spec:
    """The default profile for a container with these capabilities."""
    native = ARCHITECTURES.get(machine.architecture)
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": EPERM,
        "architectures": [native[0], *native[1]] if native else [],
        "syscalls": [_rule(group) for group in DEFAULT if _applies(group, machine, capabilities)],
    }


def _applies(group: Group, machine: Machine, capabilities: Collection[str]) -> bool:
    if group.capability and group.capability not in capabilities:
        return False
    if group.without and group.without in capabilities:
        return False
    if group.architectures and machine.architecture not in group.architectures:
        return False
    if machine.architecture in group.not_architectures:
        return False
    return group.kernel is None or machine.kernel >= group.kernel


def _rule(group: Group) -> Spec:
    rule: Spec = {"names": group.names, "action": _ALLOW if group.errno is None else _ERRNO}
    if group.errno is not None:
        rule["errnoRet"] = group.errno
    if group.argument is not None:
        argument = group.argument
        rule["args"] = [{"index": argument.index, "value": argument.value, "op": argument.operator}]
        if argument.masked is not None:
            rule["args"][0]["valueTwo"] = argument.masked
    return rule


class _Filter(msgspec.Struct, rename="camel", frozen=True):
    """Docker's `includes` and `excludes`."""

    arches: list[str] = []
    caps: list[str] = []
    min_kernel: str = ""


class _Argument(msgspec.Struct, rename="camel", frozen=True):
    index: int
    value: int
    op: str
    value_two: int = 0


class _Rule(msgspec.Struct, rename="camel", frozen=True):
    action: str
    names: list[str] = []
    name: str = ""
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Architecture(msgspec.Struct, frozen=True):
    architecture: str
    sub_architectures: list[str] | None = msgspec.field(default=None, name="subArchitectures")


class _Profile(msgspec.Struct, rename="camel", frozen=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    arch_map: list[_Architecture] = []
    flags: list[str] = []
    syscalls: list[_Rule] = []
    listener_path: str = ""
    listener_metadata: str = ""


def load_profile(text: str, machine: Machine, capabilities: Collection[str]) -> Spec:
    """A user's profile in Docker's JSON format.

    Raises InvalidArgument saying what is wrong with it.
    """
    try:
        profile = from_json(text, _Profile)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from error
    if profile.architectures and profile.arch_map:
        raise InvalidArgument(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either "
            "'architectures' or 'archMap'"
        )
    _check_words(profile)
    spec: Spec = {
        "defaultAction": profile.default_action,
        "architectures": profile.architectures or _own(profile.arch_map, machine),
        "syscalls": [
            _user_rule(rule)
            for rule in profile.syscalls
            if _user_rule_applies(rule, machine, capabilities)
        ],
    }
    optional = {
        "defaultErrnoRet": profile.default_errno_ret,
        "flags": profile.flags,
        "listenerPath": profile.listener_path,
        "listenerMetadata": profile.listener_metadata,
    }
    return spec | {key: value for key, value in optional.items() if value not in (None, [], "")}


def _check_words(profile: _Profile) -> None:
    """A word that a runtime does not know would come to light at the start only."""
    arguments = [argument for rule in profile.syscalls for argument in rule.args or ()]
    for what, known, given in (
        ("action", _ACTIONS, [profile.default_action, *(r.action for r in profile.syscalls)]),
        ("operator", _OPERATORS, [argument.op for argument in arguments]),
        ("flag", _FLAGS, profile.flags),
        ("architecture", _ARCHITECTURES, [*profile.architectures, *_mapped(profile.arch_map)]),
    ):
        for word in given:
            if word not in known:
                raise InvalidArgument(
                    f"decoding seccomp profile failed: unknown {what} {word[:64]!r}: "
                    f"use one of {', '.join(sorted(known))}"
                )
    for argument in arguments:
        if not 0 <= argument.index <= _MAX_ARGUMENT:
            raise InvalidArgument(
                f"decoding seccomp profile failed: a system call has no argument {argument.index}"
            )
        if not all(0 <= value < 2**64 for value in (argument.value, argument.value_two)):
            raise InvalidArgument("decoding seccomp profile failed: a value beyond 64 bits")


def _mapped(arch_map: list[_Architecture]) -> list[str]:
    return [
        name
        for entry in arch_map
        for name in (entry.architecture, *(entry.sub_architectures or ()))
    ]


def _own(arch_map: list[_Architecture], machine: Machine) -> list[str]:
    native = ARCHITECTURES.get(machine.architecture)
    for entry in arch_map:
        if native and entry.architecture == native[0]:
            return [entry.architecture, *(entry.sub_architectures or [])]
    return []


def _user_rule(rule: _Rule) -> Spec:
    if rule.name and rule.names:
        raise InvalidArgument(
            "use either 'name' or 'names' in a rule of the seccomp profile, not both"
        )
    spec: Spec = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errno_ret is not None:
        spec["errnoRet"] = rule.errno_ret
    if rule.args:
        spec["args"] = [
            {"index": arg.index, "value": arg.value, "valueTwo": arg.value_two, "op": arg.op}
            for arg in rule.args
        ]
    return spec


def _user_rule_applies(rule: _Rule, machine: Machine, capabilities: Collection[str]) -> bool:
    excludes, includes = rule.excludes or _Filter(), rule.includes or _Filter()
    if machine.architecture in excludes.arches or any(c in capabilities for c in excludes.caps):
        return False
    if excludes.min_kernel and machine.kernel >= _version(excludes.min_kernel):
        return False
    if includes.arches and machine.architecture not in includes.arches:
        return False
    if includes.min_kernel and machine.kernel < _version(includes.min_kernel):
        return False
    return all(capability in capabilities for capability in includes.caps)


def _version(text: str) -> tuple[int, int]:
    match = _KERNEL.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid kernel version {text[:32]!r} in the seccomp profile")
    return int(match[1]), int(match[2])
