"""ps, images, network ls, volume ls: the API's views as docker's rows."""

from __future__ import annotations

import sys

from estiba.cli.output import (
    ago,
    filters_of,
    go_time,
    human_size,
    key_values,
    local_time,
    print_rows,
    short_id,
    shorten,
)
from estiba.cli.parse import Arguments
from estiba.client.host import read_config
from estiba.client.http import Client
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
_NETWORKS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
_VOLUMES = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
_PS_RAW = (
    "container_id=ID image=Image command=Command created_at=CreatedAt state=State status=Status "
    "names=Names labels=Labels ports=Ports"
)
_IMAGES_RAW = "repository=Repository tag=Tag image_id=ID created_at=CreatedAt virtual_size=Size"
_NETWORKS_RAW = "network_id=ID name=Name driver=Driver scope=Scope"
_VOLUMES_RAW = "name=Name driver=Driver"


def _format(given: Arguments, setting: str) -> str:
    """The flag, or the user's setting of config.json (`psFormat` and its like)."""
    return str(given.format or ("" if given.quiet else read_config().get(setting, "")))


# -- containers ----------------------------------------------------------------------------


def ps(client: Client, given: Arguments) -> int:
    form = _format(given, "psFormat")
    if given.quiet and form:
        print("WARNING: Ignoring custom format, because both --format and --quiet are set.",
              file=sys.stderr)  # fmt: skip
        form = ""
    last = 1 if given.latest else given.last
    query = {
        "all": given.all,
        "limit": last if last and last > 0 else None,
        "size": given.size or ".Size" in form or "json ." in form,
        "filters": filters_of(given.filter),
    }
    views = client.get("/containers/json", query)
    rows = [container_row(view, full=given.no_trunc) for view in views]
    columns = [*_PS, ("SIZE", "Size")] if given.size else _PS
    print_rows(
        rows,
        columns,
        form,
        quiet_key="ID" if given.quiet else "",
        titles={"Size": "SIZE", "CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES"},
        raw=_PS_RAW + (" size=Size" if given.size else ""),
    )
    return 0  # fmt: skip


def container_row(view: dict[str, Any], *, full: bool) -> dict[str, Any]:
    labels = view.get("Labels") or {}
    mounts = view.get("Mounts") or []
    names = [mount.get("Name") or mount.get("Source", "") for mount in mounts]
    size = human_size(view.get("SizeRw", 0), 3)
    if view.get("SizeRootFs"):
        size += f" (virtual {human_size(view['SizeRootFs'], 3)})"
    return {
        "ID": view["Id"] if full else view["Id"][:12],
        "Image": _image_name(view, full=full),
        "Command": dumps(view["Command"] if full else shorten(view["Command"], 20)),
        "CreatedAt": local_time(view["Created"]),
        "RunningFor": ago(view["Created"]),
        "Status": view["Status"],
        "State": view["State"],
        "Ports": ports_text(view.get("Ports") or []),
        "Names": ",".join(_own_names(view["Names"] or [], full=full)),
        "Labels": key_values(labels),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": ",".join(names if full else [shorten(name, 15) for name in names]),
        "Networks": ",".join(sorted((view.get("NetworkSettings") or {}).get("Networks") or {})),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in mounts)),
        "Size": size,
        "Platform": None,
    }


def _own_names(names: list[str], *, full: bool) -> list[str]:
    """Without those that links of other containers gave it."""
    return [name.lstrip("/") for name in names if full or name.count("/") < 2]


def _image_name(view: dict[str, Any], *, full: bool) -> str:
    image = str(view["Image"])
    if full or not image:
        return image or "<no image>"
    if short_id(image) == short_id(view.get("ImageID", "")):
        return short_id(image)
    name, at, _ = image.partition("@")
    return name if at and ":" in name.rpartition("/")[2] else image


def ports_text(ports: list[dict[str, Any]]) -> str:
    """`0.0.0.0:80-81->80-81/tcp, 443/tcp`: neighbours are one range, moved ports come last."""

    def order(port: dict[str, Any]) -> tuple[Any, ...]:
        return (port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"])

    texts, moved = [], []
    open_ranges: dict[tuple[str, str], tuple[int, int]] = {}
    for port in sorted(ports, key=order):
        number, address, kind = port["PrivatePort"], port.get("IP", ""), port["Type"]
        if address and port.get("PublicPort", 0) != number:
            moved.append(f"{_host(address)}:{port['PublicPort']}->{number}/{kind}")
            continue
        first, last = open_ranges.get((address, kind), (number, number - 1))
        if number != last + 1:
            texts.append(_range_text(address, kind, first, last))
            first = number
        open_ranges[address, kind] = (first, number)
    texts += [_range_text(*key, *span) for key, span in open_ranges.items()]
    return ", ".join(texts + moved)


def _range_text(address: str, kind: str, first: int, last: int) -> str:
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{span}->{span}/{kind}" if address else f"{span}/{kind}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# -- images --------------------------------------------------------------------------------


def images(client: Client, given: Arguments) -> int:
    if given.tree:
        from estiba.cli.tree import tree

        return tree(client, given)
    filters = filters_of(given.filter) or {}
    if given.words:
        filters.setdefault("reference", {})[given.words[0]] = True
    form = _format(given, "imagesFormat")
    rows = []
    for view in client.get("/images/json", {"all": given.all, "filters": filters or None}):
        rows += image_rows(view, full=given.no_trunc, digests=given.digests or "Digest" in form)
    columns = list(_IMAGES)
    if given.digests:
        columns.insert(2, ("DIGEST", "Digest"))
    print_rows(rows, columns, form, quiet_key="ID" if given.quiet else "",
               titles={"Digest": "DIGEST", "CreatedAt": "CREATED AT", "VirtualSize": "SIZE"},
               raw=_IMAGES_RAW)  # fmt: skip
    return 0


def image_rows(view: dict[str, Any], *, full: bool, digests: bool) -> list[dict[str, Any]]:
    """A row a name; with `digests` a row a name and digest."""
    tags = [text for text in view.get("RepoTags") or [] if text != "<none>:<none>"]
    known: dict[str, list[str]] = {}
    for text in view.get("RepoDigests") or []:
        repository, _, digest = text.partition("@")
        if repository != "<none>":
            known.setdefault(repository, []).append(digest)
    names = []
    for text in tags:
        repository, _, tag = text.rpartition(":")
        for digest in (known.get(repository) or ["<none>"]) if digests else ["<none>"]:
            names.append((repository, tag, digest))
    if not tags:
        for repository, found in known.items():
            names += [(repository, "<none>", digest) for digest in found]
    return [_image_row(view, name, full=full) for name in names or [("<none>", "<none>", "<none>")]]


def _image_row(view: dict[str, Any], name: tuple[str, str, str], *, full: bool) -> dict[str, Any]:
    containers, shared = view.get("Containers", -1), view.get("SharedSize", -1)
    virtual = view.get("VirtualSize", view["Size"])
    row = {
        "ID": view["Id"] if full else short_id(view["Id"]),
        "Repository": name[0],
        "Tag": name[1],
        "Digest": name[2],
        "CreatedSince": ago(view["Created"]) if view["Created"] > 0 else "N/A",
        "CreatedAt": local_time(view["Created"]),
        "Size": human_size(view["Size"], 3),
        "Containers": "N/A" if containers == -1 else str(containers),
        "VirtualSize": human_size(virtual),
        "SharedSize": "N/A" if shared == -1 else human_size(shared),
        "UniqueSize": "N/A" if shared == -1 else human_size(virtual - shared),
    }
    if "LastUsedAt" in view:
        # The daemon's own; docker's rows have no such key.
        row["LastUsed"] = _last_used(view["LastUsedAt"])
    return row


def _last_used(moment: str) -> str:
    """Rough, as docker shows when something was made."""
    from estiba.cli.quantities import timestamp

    seconds = float(timestamp(moment)) if moment else 0.0
    return ago(seconds) if seconds > 0 else "never"


# -- networks and volumes ------------------------------------------------------------------


def networks(client: Client, given: Arguments) -> int:
    rows = []
    for view in client.get("/networks", {"filters": filters_of(given.filter)}):
        labels = view.get("Labels") or {}
        rows.append({
            "ID": view["Id"] if given.no_trunc else view["Id"][:12],
            "Name": view["Name"],
            "Driver": view["Driver"],
            "Scope": view["Scope"],
            "IPv4": str(view.get("EnableIPv4", False)).lower(),
            "IPv6": str(view.get("EnableIPv6", False)).lower(),
            "Internal": str(view["Internal"]).lower(),
            "CreatedAt": go_time(view["Created"]),
            "Labels": key_values(labels),
            "Label": lambda name, labels=labels: labels.get(name, ""),
        })  # fmt: skip
    rows.sort(key=lambda row: str(row["Name"]))
    quiet = "ID" if given.quiet else ""
    print_rows(rows, _NETWORKS, _format(given, "networksFormat"), quiet_key=quiet,
               titles={"IPv4": "IPV4", "IPv6": "IPV6"}, raw=_NETWORKS_RAW)  # fmt: skip
    return 0


def volumes(client: Client, given: Arguments) -> int:
    answer = client.get("/volumes", {"filters": filters_of(given.filter)})
    rows = [volume_row(view) for view in answer["Volumes"] or []]
    rows.sort(key=lambda row: str(row["Name"]))
    quiet = "Name" if given.quiet else ""
    print_rows(rows, _VOLUMES, _format(given, "volumesFormat"), quiet_key=quiet, raw=_VOLUMES_RAW)
    return 0


def volume_row(view: dict[str, Any]) -> dict[str, Any]:
    usage = view.get("UsageData") or {}
    labels = view.get("Labels") or {}
    unknown = "N/A"
    return {
        "Name": view["Name"],
        "Driver": view["Driver"],
        "Mountpoint": view["Mountpoint"],
        "Scope": view["Scope"],
        "Labels": key_values(labels),
        "Label": lambda name: labels.get(name, ""),
        "Links": str(usage["RefCount"]) if usage else unknown,
        "Size": human_size(usage["Size"]) if usage else unknown,
        "Availability": unknown,
        "Group": unknown,
        "Status": unknown,
    }
