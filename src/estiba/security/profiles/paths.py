"""Files of /proc and /sys that tell too much about the host, or change it."""

from __future__ import annotations

from collections.abc import Iterable

_TELL_OF_THE_HARDWARE = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/firmware",
)
_TELL_WHAT_OTHERS_DO = (
    # Counts of interrupts time the key strokes and packets of the whole host.
    "/proc/interrupts",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    # Energy counters are a side channel on everything the CPU computes (PLATYPUS).
    "/sys/devices/virtual/powercap",
)
_GIVE_AWAY_SECRETS = (
    "/proc/kcore",
    "/proc/keys",
)

READ_ONLY_PATHS = (
    # Kernel settings, and files that act on writing whatever the namespaces.
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def masked_paths(cpus: Iterable[int]) -> list[str]:
    """All paths to hide; a runtime passes over those that the kernel does not have.

    `cpus` are the numbers of the host's CPUs: each has a thermal_throttle directory, whose
    counters tell of the load of others.
    """
    throttle = [f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in cpus]
    fixed = _TELL_OF_THE_HARDWARE + _TELL_WHAT_OTHERS_DO + _GIVE_AWAY_SECRETS
    return sorted(fixed) + throttle
