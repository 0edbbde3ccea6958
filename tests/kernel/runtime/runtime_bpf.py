"""A classic BPF machine, as far as seccomp filters use it (linux/filter.h, seccomp(2))."""

from __future__ import annotations

import struct

ALLOW = 0x7FFF0000
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
X32_BIT = 0x40000000

_INSTRUCTION = struct.Struct("HBBI")
_DATA = struct.Struct("iIQ6Q")

_LD_W_ABS, _LD_IMM, _ALU_AND, _JA, _RET = 0x20, 0x00, 0x54, 0x05, 0x06
_COMPARE = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def decide(program: bytes, number: int, *args: int, arch: int = AUDIT_ARCH_X86_64) -> int:
    """What the filter returns for a system call."""
    code = list(_INSTRUCTION.iter_unpack(program))
    data = _DATA.pack(number, arch, 0, *[*args, 0, 0, 0, 0, 0, 0][:6])
    accumulator = position = 0
    while True:
        operation, if_true, if_false, k = code[position]
        position += 1
        if operation == _LD_W_ABS:
            (accumulator,) = struct.unpack_from("I", data, k)
        elif operation == _ALU_AND:
            accumulator &= k
        elif operation == _JA:
            position += k
        elif operation in _COMPARE:
            position += if_true if _COMPARE[operation](accumulator, k) else if_false
        elif operation == _RET:
            return k
        else:
            raise ValueError(f"unknown instruction {operation:#x}")


def outcome(value: int) -> str:
    """`allow`, or `errno N`."""
    if value == ALLOW:
        return "allow"
    if value & 0xFFFF0000 == 0x00050000:
        return f"errno {value & 0xFFFF}"
    return f"{value:#x}"
