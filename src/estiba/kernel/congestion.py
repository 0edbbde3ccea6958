"""TCP's congestion control for a way that lies in memory.

BBR paces what it sends by timers, for queues of routers that it cannot see. Between two
namespaces of one host there is no such queue; the timers, and the wake-ups between them, take
most of the throughput.
"""

from __future__ import annotations

from pathlib import Path

_DEFAULT = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def unpaced() -> str:
    """An algorithm that does not pace, instead of this namespace's default if that one does;
    else the empty string."""
    if not _DEFAULT.read_text().startswith("bbr"):
        return ""
    return "cubic" if "cubic" in _AVAILABLE.read_text().split() else "reno"
