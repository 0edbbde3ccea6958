"""Linux capabilities: names, numbers, and what this process may hand out (capabilities(7))."""

from __future__ import annotations

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)

NAMES: tuple[str, ...] = tuple(f"CAP_{name}" for name in _NAMES.split())
"""By number, as in linux/capability.h of Linux 5.9; later kernels added none."""


def from_mask(mask: int) -> frozenset[str]:
    """The names of the bits in a set, as /proc/pid/status prints it; unknown bits are left out."""
    return frozenset(name for number, name in enumerate(NAMES) if mask >> number & 1)


def read_set(kind: str, pid: int | str = "self") -> frozenset[str]:
    """One of a process's sets: `kind` is CapInh, CapPrm, CapEff, CapBnd or CapAmb.

    Raises ProcessLookupError when there is no such process.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name == kind:
                    return from_mask(int(value, 16))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    raise ValueError(f"no capability set {kind}")


def bounding_set() -> frozenset[str]:
    """What this process and its children can ever have."""
    return read_set("CapBnd")
