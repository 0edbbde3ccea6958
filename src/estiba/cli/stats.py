"""stats: live resource usage. A thread a container reads its stream; one loop draws."""

from __future__ import annotations

import sys
import threading
import time

from estiba.cli.output import binary_size, human_size, print_rows
from estiba.cli.parse import Arguments
from estiba.client.errors import ApiError, ClientError
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\033[H", "\033[K", "\033[J"
_INTERVAL_S = 0.5


class _Watch:
    """The latest sample of one container."""

    def __init__(self, client: Client, name: str, *, stream: bool, named: bool) -> None:
        self.name = name
        self.named = named
        self.sample: dict[str, Any] = {}
        self.error: ClientError | None = None
        self.ended = threading.Event()
        self.ready = threading.Event()
        self._client = client
        self._stream = stream
        threading.Thread(target=self._read, name=f"stats {name}", daemon=True).start()

    def _read(self) -> None:
        query = {"stream": "1" if self._stream else "0"}
        try:
            url = f"/containers/{part(self.name)}/stats"
            for sample in self._client.call("GET", url, query).lines():
                self.sample = sample
                self.ready.set()
        except ClientError as error:
            self.error = error
        finally:
            self.ended.set()
            self.ready.set()


def stats(client: Client, given: Arguments) -> int:
    _ = client.version  # negotiated once, before the threads
    watches: dict[str, _Watch] = {}
    fixed = list(given.words)
    while True:
        names = fixed or [view["Id"] for view in client.get("/containers/json", {"all": given.all})]
        for name in names:
            if name not in watches:
                watches[name] = _Watch(client, name, stream=not given.no_stream, named=bool(fixed))
        shown = [watches[name] for name in names]
        for watch in shown:
            watch.ready.wait()
        _raise_first(shown, strict=bool(fixed))
        alive = [watch for watch in shown if watch.sample and not watch.error]
        rows = [_row(watch, full=given.no_trunc) for watch in alive]
        if given.no_stream:
            print_rows(rows, _COLUMNS, given.format)
            return 0
        _draw(rows, given)
        if fixed and all(watch.ended.is_set() for watch in shown):
            return 0
        time.sleep(_INTERVAL_S)


def _raise_first(watches: list[_Watch], *, strict: bool) -> None:
    """A container that nobody named may go at any time; one that was named must exist."""
    for watch in watches:
        if watch.error and (strict or not isinstance(watch.error, ApiError)):
            raise watch.error


def _draw(rows: list[dict[str, Any]], given: Arguments) -> None:
    if not sys.stdout.isatty():
        print_rows(rows, _COLUMNS, given.format)
        sys.stdout.flush()
        return
    import io

    screen, sys.stdout = sys.stdout, io.StringIO()
    try:
        print_rows(rows, _COLUMNS, given.format)
        text = sys.stdout.getvalue()
    finally:
        sys.stdout = screen
    lines = "".join(f"{line}{_CLEAR_LINE}\n" for line in text.splitlines())
    screen.write(f"{_HOME}{lines}{_CLEAR_BELOW}")
    screen.flush()


def _row(watch: _Watch, *, full: bool) -> dict[str, Any]:
    view = watch.sample
    memory = view.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit", 0)
    networks = (view.get("networks") or {}).values()
    received = sum(network["rx_bytes"] for network in networks)
    sent = sum(network["tx_bytes"] for network in networks)
    read, written = _block_io(view)
    identifier = view.get("id") or watch.name
    return {
        "ID": identifier if full else identifier[:12],
        "Container": watch.name if full or watch.named else identifier[:12],
        "Name": view.get("name", "").lstrip("/") or "--",
        "CPUPerc": f"{cpu_percent(view):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}",
        "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}",
        "PIDs": str((view.get("pids_stats") or {}).get("current", 0)),
    }


def _block_io(view: dict[str, Any]) -> tuple[int, int]:
    totals = {"r": 0, "w": 0}
    for entry in (view.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = entry["op"][:1].lower()
        if operation in totals:
            totals[operation] += entry["value"]
    return totals["r"], totals["w"]


def memory_used(memory: dict[str, Any]) -> int:
    """Without the page cache that the kernel can take back: version 1's name of it, then 2's."""
    details = memory.get("stats") or {}
    usage = int(memory.get("usage", 0))
    for name in ("total_inactive_file", "inactive_file"):
        if name in details:
            cache = int(details[name])
            return usage - cache if cache < usage else usage
    return usage


def cpu_percent(view: dict[str, Any]) -> float:
    """Of one CPU: 200 % is two of them busy."""
    now, before = view.get("cpu_stats") or {}, view.get("precpu_stats") or {}

    def usage(stats: dict[str, Any]) -> int:
        return int((stats.get("cpu_usage") or {}).get("total_usage", 0))

    used = usage(now) - usage(before)
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or system <= 0:
        return 0.0
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or [1])
    return float(used / system * cpus * 100)
