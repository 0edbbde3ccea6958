"""Counters in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import resource
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping

from estiba import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """All of it is touched in the event loop alone."""

    def __init__(self) -> None:
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_BOUNDS_S) + 1))
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._sources: list[tuple[str, str, str, Callable[[], Mapping[Labels, float]]]] = []
        self.received_bytes = 0
        self.sent_bytes = 0
        self.in_flight = 0

    def add_source(
        self, name: str, kind: str, text: str, read: Callable[[], Mapping[Labels, float]]
    ) -> None:
        """`read` gives values by labels whenever somebody asks; `kind` is counter or gauge."""
        self._sources.append((name, kind, text, read))

    def observe(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        self._requests[endpoint, method if method in _METHODS else "other", status] += 1
        self._buckets[endpoint][bisect_left(_BOUNDS_S, seconds)] += 1
        self._seconds[endpoint] += seconds

    def render(self) -> bytes:
        lines = _head("build_info", "gauge", "The version that runs")
        lines.append(_line("build_info", (("version", __version__),), 1))
        lines += _head("http_requests_total", "counter", "Requests answered")
        for (endpoint, method, status), count in sorted(self._requests.items()):
            labels = (("endpoint", endpoint), ("method", method), ("code", str(status)))
            lines.append(_line("http_requests_total", labels, count))
        lines += self._durations()
        simple = [
            ("http_in_flight", "gauge", "Requests being answered", self.in_flight),
            ("received_bytes_total", "counter", "Bytes of uploads", self.received_bytes),
            ("sent_bytes_total", "counter", "Bytes of blobs and manifests", self.sent_bytes),
            ("peak_memory_bytes", "gauge", "Highest resident memory so far", _peak_bytes()),
        ]
        for name, kind, text, value in simple:
            lines += [*_head(name, kind, text), _line(name, (), value)]
        for name, kind, text, read in self._sources:
            lines += _head(name, kind, text)
            lines += [_line(name, labels, value) for labels, value in read().items()]
        return ("\n".join(lines) + "\n").encode()

    def _durations(self) -> list[str]:
        name = "http_request_seconds"
        lines = _head(name, "histogram", "Time until an answer was sent")
        for endpoint, buckets in sorted(self._buckets.items()):
            own = ("endpoint", endpoint)
            total = 0
            for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                lines.append(_line(f"{name}_bucket", (own, ("le", bound)), total))
            lines.append(_line(f"{name}_sum", (own,), self._seconds[endpoint]))
            lines.append(_line(f"{name}_count", (own,), total))
        return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP estiba_registry_{name} {text}", f"# TYPE estiba_registry_{name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    quoted = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
    shown = f"{{{quoted}}}" if quoted else ""
    return (
        f"estiba_registry_{name}{shown} {value:g}"
        if isinstance(value, float)
        else (f"estiba_registry_{name}{shown} {value}")
    )


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
