"""Seccomp filters as BPF: compiled from the runtime-spec's form, and read back from a process.

Compiling takes libseccomp, which every OCI runtime brings along, about 20 ms for the default
profile and its three architectures; a runtime would do that again for every container.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from estiba.kernel.libc import check, libc

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_UNKNOWN_CALL = -1

_RECENT_CALLS = {
    name: number
    for number, name in enumerate(
        """quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
        process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack
        futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr
        lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
        removexattrat""".split(),
        start=443,
    )
}
"""Calls that an installed libseccomp may be too old to know. From 424 on the numbers are the same
on every architecture but Alpha and MIPS."""

_COMMON_CALLS = 1024
"""Below lie the calls that are numbered alike; above those of x32 and of ARM alone."""

_PTRACE_DETACH = 17
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_SECCOMP_GET_FILTER = 0x420C
_WALL = 0x40000000

_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter: code, jump if true, if false, operand
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_JUMP_IF_EQUAL, _JUMP_IF_GREATER, _JUMP_IF_GREATER_OR_EQUAL = 0x15, 0x25, 0x35
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4  # struct seccomp_data


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Unsupported(Exception):
    """The profile has something that only a runtime itself can set up."""


def compile_filter(profile: Mapping[str, Any]) -> bytes | None:
    """The BPF of a profile (runtime-spec linux.seccomp): an array of struct sock_filter.

    None when that is not possible here: no libseccomp, user notification, filter flags, or a
    word that it does not know. The runtime then compiles for itself, or says what is wrong.
    """
    library = _library()
    if library is None or profile.get("flags") or profile.get("listenerPath"):
        return None
    try:
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        context = library.seccomp_init(default)
        if not context:
            return None
        try:
            architectures = profile.get("architectures", ())
            tokens = _add_architectures(library, context, architectures)
            for rule in profile.get("syscalls", ()):
                _add_rule(library, context, rule, default)
            body = _export(library, context)
        finally:
            library.seccomp_release(context)
    except (_Unsupported, KeyError):
        return None
    if profile["defaultAction"] != "SCMP_ACT_ERRNO" or any(
        "MIPS" in name for name in architectures
    ):
        return body
    return _recent_calls_first(library, profile.get("syscalls", ()), tokens) + body


def _recent_calls_first(
    library: Any, rules: Sequence[Mapping[str, Any]], architectures: Sequence[int]
) -> bytes:
    """A head for the filter, for calls that libseccomp or the profile does not know.

    Those that the profile allows by a name that is too new for libseccomp are allowed by number.
    Those newer than any that it names fail with ENOSYS, not with EPERM, as runc has it: the C
    library falls back to an older call on ENOSYS only.
    """
    newest, allowed = 0, []
    for rule in rules:
        for name in rule["names"]:
            known = library.seccomp_syscall_resolve_name(name.encode())
            number = known if known >= 0 else _RECENT_CALLS.get(name, 0)
            if number < _COMMON_CALLS:
                newest = max(newest, number)
            is_plain = rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
            if known == _UNKNOWN_CALL and number and is_plain:
                allowed.append(number)
    count = len(allowed)
    comparisons = len(architectures)
    head = [(_LOAD, 0, 0, _OFFSET_ARCH)]
    head += [
        (_JUMP_IF_EQUAL, comparisons - index, 0, token) for index, token in enumerate(architectures)
    ]
    head += [
        (_JUMP, 0, 0, count + 5),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_IF_GREATER_OR_EQUAL, count + 3, 0, _COMMON_CALLS),
        *((_JUMP_IF_EQUAL, count - index, 0, number) for index, number in enumerate(allowed)),
        (_JUMP_IF_GREATER, 1, 2, newest),
        (_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ALLOW"]),
        (_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in head)


def _add_architectures(library: Any, context: int, names: Sequence[str]) -> list[int]:
    """Their AUDIT_ARCH_* values; x32 shares the one of x86_64."""
    tokens = []
    for name in names:
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        if token == 0:
            raise _Unsupported(name)
        result = library.seccomp_arch_add(context, token)
        if result not in (0, -errno.EEXIST):
            raise _Unsupported(name)
        if not name.endswith("X32"):
            tokens.append(token)
    return tokens


def _add_rule(library: Any, context: int, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    comparisons = [
        _Comparison(arg["index"], _OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
        for arg in rule.get("args") or ()
    ]
    # libseccomp compares an argument once in a rule; runtimes make several rules of them.
    repeated = len({comparison.arg for comparison in comparisons}) < len(comparisons)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN_CALL:
            continue
        for part in [[one] for one in comparisons] if repeated else [comparisons]:
            array = (_Comparison * len(part))(*part)
            if library.seccomp_rule_add_array(context, action, number, len(part), array) != 0:
                raise _Unsupported(name)


def _export(library: Any, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        if library.seccomp_export_bpf(context, fd) != 0:
            raise _Unsupported("export")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _action(name: str, data: int | None) -> int:
    if name not in _ACTIONS:
        raise _Unsupported(name)
    return _ACTIONS[name] | ((errno.EPERM if data is None else data) if name in _WITH_DATA else 0)


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def read_filters(pid: int) -> list[bytes]:
    """The filters that a process runs under, newest first; it is stopped for a moment.

    Needs CAP_SYS_ADMIN, no seccomp on the caller, and a process that nobody traces. Blocks;
    start to end stay on one thread, as ptrace(2) wants. Raises OSError.
    """
    _ptrace(_PTRACE_SEIZE, pid, 0, 0)
    try:
        _ptrace(_PTRACE_INTERRUPT, pid, 0, 0)
        os.waitpid(pid, _WALL)
        filters: list[bytes] = []
        while True:
            try:
                count = _ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, len(filters), 0)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):
                    return filters
                raise
            buffer = ctypes.create_string_buffer(count * _INSTRUCTION.size)
            _ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, len(filters), ctypes.addressof(buffer))
            filters.append(buffer.raw)
    finally:
        _ptrace(_PTRACE_DETACH, pid, 0, 0)


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    arguments = (ctypes.c_long(request), ctypes.c_int(pid))
    pointers = (ctypes.c_void_p(address), ctypes.c_void_p(data))
    libc.ptrace.restype = ctypes.c_long
    return check(libc.ptrace(*arguments, *pointers), f"ptrace {pid}")
