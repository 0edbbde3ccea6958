"""ps, images, network ls, volume ls."""

from __future__ import annotations

from typing import Any

from estiba.cli.output import ago, filters_of, human_size, print_rows, shorten
from estiba.cli.parse import Arguments
from estiba.client.http import Client

Json = dict[str, Any]

_PS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_IMAGES = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)


def ps(client: Client, given: Arguments) -> int:
    last = 1 if given.latest else int(given.last or 0)
    query = {
        "all": given.all,
        "limit": last or None,
        "size": given.size,
        "filters": filters_of(given.filter),
    }
    rows = [_container(view, full=given.no_trunc) for view in client.get("/containers/json", query)]
    columns = [*_PS, ("SIZE", "Size")] if given.size else list(_PS)
    print_rows(rows, columns, given.format, quiet_key="ID" if given.quiet else "")
    return 0


def _container(view: Json, *, full: bool) -> Json:
    command = view["Command"] if full else shorten(view["Command"], 20)
    names = [name.lstrip("/") for name in view["Names"]]
    labels = view.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in view.get("Mounts", [])]
    image = view["Image"].removeprefix("sha256:")
    size = human_size(view.get("SizeRw", 0), digits=3)
    if "SizeRootFs" in view:
        size += f" (virtual {human_size(view['SizeRootFs'], digits=3)})"
    return {
        "ID": view["Id"] if full else view["Id"][:12],
        "Image": image if full or image == view["Image"] else image[:12],
        "Command": f'"{command}"',
        "CreatedAt": view["Created"],
        "RunningFor": ago(view["Created"]),
        "Status": view["Status"],
        "State": view["State"],
        "Ports": ports_text(view.get("Ports") or []),
        "Names": ",".join(names),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Mounts": ",".join(mounts if full else [shorten(mount, 15) for mount in mounts]),
        "Networks": ",".join((view.get("NetworkSettings") or {}).get("Networks") or {}),
        "LocalVolumes": str(sum(m.get("Type") == "volume" for m in view.get("Mounts", []))),
        "Size": size,
    }


def ports_text(ports: list[Json]) -> str:
    """`0.0.0.0:80->80/tcp, 443/tcp`."""
    texts = []
    for port in sorted(ports, key=lambda port: (port["PrivatePort"], port.get("PublicPort", 0))):
        inside = f"{port['PrivatePort']}/{port['Type']}"
        if port.get("PublicPort"):
            address = port.get("IP", "")
            host = f"[{address}]" if ":" in address else address
            texts.append(f"{host}:{port['PublicPort']}->{inside}")
        else:
            texts.append(inside)
    return ", ".join(dict.fromkeys(texts))


def images(client: Client, given: Arguments) -> int:
    filters = filters_of(given.filter) or {}
    if given.words:
        filters.setdefault("reference", {})[given.words[0]] = True
    query = {"all": given.all, "filters": filters or None, "digests": given.digests}
    rows = []
    for view in client.get("/images/json", query):
        rows += _image_rows(view, full=given.no_trunc)
    columns = list(_IMAGES)
    if given.digests:
        columns.insert(2, ("DIGEST", "Digest"))
    print_rows(rows, columns, given.format, quiet_key="ID" if given.quiet else "")
    return 0


def _image_rows(view: Json, *, full: bool) -> list[Json]:
    digests = {text.partition("@")[0]: text.partition("@")[2] for text in view["RepoDigests"] or []}
    rows = []
    for reference in view["RepoTags"] or ["<none>:<none>"]:
        repository, _, tag = reference.rpartition(":")
        rows.append(
            {
                "ID": view["Id"] if full else view["Id"].partition(":")[2][:12],
                "Repository": repository,
                "Tag": tag,
                "Digest": digests.get(repository, "<none>"),
                "CreatedSince": ago(view["Created"]),
                "CreatedAt": view["Created"],
                "Size": human_size(view["Size"], digits=3),
                "Containers": str(view.get("Containers", -1)),
                "Labels": view.get("Labels") or {},
            }
        )
    return rows


def networks(client: Client, given: Arguments) -> int:
    rows = [
        {
            "ID": view["Id"] if given.no_trunc else view["Id"][:12],
            "Name": view["Name"],
            "Driver": view["Driver"],
            "Scope": view["Scope"],
            "Internal": str(view["Internal"]).lower(),
            "CreatedAt": view["Created"],
            "Labels": ",".join(f"{k}={v}" for k, v in (view.get("Labels") or {}).items()),
        }
        for view in client.get("/networks", {"filters": filters_of(given.filter)})
    ]
    columns = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
    print_rows(
        sorted(rows, key=lambda row: row["Name"]),
        columns,
        given.format,
        quiet_key="ID" if given.quiet else "",
    )
    return 0


def volumes(client: Client, given: Arguments) -> int:
    answer = client.get("/volumes", {"filters": filters_of(given.filter)})
    rows = [
        {
            "Name": view["Name"],
            "Driver": view["Driver"],
            "Mountpoint": view["Mountpoint"],
            "Scope": view["Scope"],
            "Labels": ",".join(f"{k}={v}" for k, v in (view.get("Labels") or {}).items()),
        }
        for view in answer["Volumes"] or []
    ]
    columns = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
    print_rows(rows, columns, given.format, quiet_key="Name" if given.quiet else "")
    return 0
