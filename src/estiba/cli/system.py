"""version, info, events, system df, system prune."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from estiba.cli.containers import confirm
from estiba.cli.output import filters_of, human_size, print_rows
from estiba.cli.parse import Arguments
from estiba.client.http import NEWEST, Client

Json = dict[str, Any]


def version(client: Client, given: Arguments) -> int:
    from estiba import __version__

    server = client.get("/version")
    value = {
        "Client": {
            "Version": __version__,
            "ApiVersion": client.version,
            "DefaultAPIVersion": NEWEST,
            "Os": "linux",
        },
        "Server": server,
    }
    if _formatted(value, given.format):
        return 0
    print(f"Client: estiba\n Version:      {__version__}\n API version:  {client.version}")
    print(f"\nServer: {(server.get('Platform') or {}).get('Name') or 'engine'}")
    print(f" Version:      {server['Version']}")
    print(f" API version:  {server['ApiVersion']} (minimum {server.get('MinAPIVersion', '')})")
    print(f" OS/Arch:      {server['Os']}/{server['Arch']}")
    print(f" Kernel:       {server.get('KernelVersion', '')}")
    for component in server.get("Components") or []:
        if component["Name"] != "Engine":
            print(f" {component['Name'] + ':':<13} {component['Version']}")
    return 0


def _formatted(value: Json, form: str) -> bool:
    if not form:
        return False
    if form == "json":
        print(json.dumps(value, separators=(",", ":")))
    else:
        from estiba.cli.template import render

        print(render(form, value))
    return True


def info(client: Client, given: Arguments) -> int:
    view = client.get("/info")
    if _formatted(view, given.format):
        return 0
    rows = (
        ("Containers", f"{view['Containers']} ({view['ContainersRunning']} running, "
                       f"{view['ContainersPaused']} paused, {view['ContainersStopped']} stopped)"),
        ("Images", view["Images"]),
        ("Server Version", view["ServerVersion"]),
        ("Storage Driver", view["Driver"]),
        ("Logging Driver", view["LoggingDriver"]),
        ("Cgroup Version", view.get("CgroupVersion", "")),
        ("Runtimes", " ".join(sorted(view.get("Runtimes") or {}))),
        ("Default Runtime", view.get("DefaultRuntime", "")),
        ("Security Options", ", ".join(view.get("SecurityOptions") or [])),
        ("Kernel Version", view["KernelVersion"]),
        ("Operating System", view["OperatingSystem"]),
        ("Architecture", view["Architecture"]),
        ("CPUs", view["NCPU"]),
        ("Total Memory", human_size(view["MemTotal"])),
        ("Name", view["Name"]),
        ("ID", view["ID"]),
        ("Root Dir", view["DockerRootDir"]),
    )  # fmt: skip
    for title, value in rows:
        print(f"{title}: {value}")
    for warning in view.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


def events(client: Client, given: Arguments) -> int:
    query = {
        "since": given.since or None,
        "until": given.until or None,
        "filters": filters_of(given.filter),
    }
    run = None
    if given.format and given.format != "json":
        from estiba.cli.template import compile_template

        run = compile_template(given.format)
    for event in client.call("GET", "/events", query).lines():
        if given.format == "json":
            print(json.dumps(event, separators=(",", ":")), flush=True)
        elif run is not None:
            print(run(event), flush=True)
        else:
            print(_event_text(event), flush=True)
    return 0


def _event_text(event: Json) -> str:
    seconds, nanoseconds = divmod(event["timeNano"], 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    offset = "Z" if zone in ("", "+0000") else f"{zone[:3]}:{zone[3:]}"
    attributes = event["Actor"].get("Attributes") or {}
    facts = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    text = f"{stamp}.{nanoseconds:09d}{offset} {event['Type']} {event['Action']}"
    return f"{text} {event['Actor']['ID']} ({facts})"


def df(client: Client, given: Arguments) -> int:
    view = client.get("/system/df")
    images, containers = view.get("Images") or [], view.get("Containers") or []
    volumes = view.get("Volumes") or []
    unused = sum(image["Size"] for image in images if not image["Containers"])
    stopped = sum(c.get("SizeRw", 0) for c in containers if c["State"] != "running")
    free = [v["UsageData"]["Size"] for v in volumes if not v["UsageData"]["RefCount"]]
    rows = [
        _usage("Images", len(images), sum(bool(i["Containers"]) for i in images),
               view.get("LayersSize", 0), unused),
        _usage("Containers", len(containers), sum(c["State"] == "running" for c in containers),
               sum(c.get("SizeRw", 0) for c in containers), stopped),
        _usage("Local Volumes", len(volumes), len(volumes) - len(free),
               sum(v["UsageData"]["Size"] for v in volumes), sum(free)),
        _usage("Build Cache", len(view.get("BuildCache") or []), 0, 0, 0),
    ]  # fmt: skip
    columns = (
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    )
    print_rows(rows, columns, given.format)
    return 0


def _usage(kind: str, total: int, active: int, size: int, reclaimable: int) -> Json:
    share = f" ({100 * reclaimable // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": f"{human_size(reclaimable)}{share}",
    }


def prune(client: Client, given: Arguments) -> int:
    what = "all stopped containers, unused networks and "
    what += "unused images" if given.all else "dangling images"
    if not given.force and not confirm(f"This will remove {what}."):
        return 1
    filters = filters_of(given.filter)
    freed = 0
    for path, extra in (
        ("/containers/prune", {}),
        ("/networks/prune", {}),
        *([("/volumes/prune", {})] if given.volumes else []),
        ("/images/prune", {"dangling": {"false": True}} if given.all else {}),
    ):
        answer = client.post(path, {"filters": {**(filters or {}), **extra} or None})
        freed += answer.get("SpaceReclaimed", 0)
        for names in (value for value in answer.values() if isinstance(value, list)):
            for name in names:
                print("deleted:", name if isinstance(name, str) else " ".join(name.values()))
    print(f"Total reclaimed space: {human_size(freed)}")
    return 0
