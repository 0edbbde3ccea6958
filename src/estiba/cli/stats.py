"""stats: live resource usage."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

from estiba.cli.output import binary_size, human_size, print_rows, print_table
from estiba.cli.parse import Arguments
from estiba.client.errors import ClientError
from estiba.client.http import Client

Json = dict[str, Any]
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
_CLEAR = "\033[H\033[J"


def stats(client: Client, given: Arguments) -> int:
    names = given.words or [
        view["Id"] for view in client.get("/containers/json", {"all": given.all})
    ]
    if given.no_stream:
        rows = [row for row in _sample_all(client, names) if row]
        print_rows([_shown(row, given) for row in rows], _COLUMNS, given.format)
        return 0
    while names:
        rows = [_shown(row, given) for row in _sample_all(client, names) if row]
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        if given.format:
            print_rows(rows, _COLUMNS, given.format)
        else:
            print_table(
                [title for title, _ in _COLUMNS],
                [[str(row[key]) for _, key in _COLUMNS] for row in rows],
            )
        sys.stdout.flush()
        if not rows:
            return 0
    return 0


def _sample_all(client: Client, names: Sequence[str]) -> list[Json]:
    """One sample of each, taken at the same time: each takes a second."""
    _ = client.version
    rows: list[Json] = [{} for _ in names]
    errors: list[ClientError] = []

    def sample(index: int, name: str) -> None:
        try:
            rows[index] = client.get(f"/containers/{name}/stats", {"stream": "0"})
        except ClientError as error:
            errors.append(error)

    threads = [
        threading.Thread(target=sample, args=(index, name)) for index, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors and not any(rows):
        raise errors[0]
    return rows


def _shown(view: Json, given: Arguments) -> Json:
    memory = view.get("memory_stats") or {}
    used = memory_used(memory)
    limit = memory.get("limit", 0)
    networks = (view.get("networks") or {}).values()
    received = sum(network["rx_bytes"] for network in networks)
    sent = sum(network["tx_bytes"] for network in networks)
    entries = (view.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(entry["value"] for entry in entries if entry["op"].lower() == "read")
    written = sum(entry["value"] for entry in entries if entry["op"].lower() == "write")
    identifier = view.get("id", "")
    return {
        "ID": identifier if given.no_trunc else identifier[:12],
        "Container": identifier[:12],
        "Name": view.get("name", "").lstrip("/"),
        "CPUPerc": f"{cpu_percent(view):.2f}%",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{human_size(received, digits=3)} / {human_size(sent, digits=3)}",
        "BlockIO": f"{human_size(read, digits=3)} / {human_size(written, digits=3)}",
        "PIDs": str((view.get("pids_stats") or {}).get("current", 0)),
    }


def memory_used(memory: Json) -> int:
    """Without the page cache that the kernel can take back, as docker counts."""
    details = memory.get("stats") or {}
    usage = int(memory.get("usage", 0))
    for name in ("total_inactive_file", "inactive_file"):
        if details.get(name, 0) < usage and name in details:
            return usage - int(details[name])
    return usage


def cpu_percent(view: Json) -> float:
    """Of one CPU: 200 % is two of them busy."""
    now, before = view.get("cpu_stats") or {}, view.get("precpu_stats") or {}
    used = now.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get(
        "total_usage", 0
    )
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or system <= 0:
        return 0.0
    return float(used / system * now.get("online_cpus", 1) * 100)
