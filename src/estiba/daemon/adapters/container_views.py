"""A container's record as the Engine API shows it: inspect, list, port and mount views. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from estiba.containers.ports import Paths
from estiba.containers.record import AttachedNetwork, ContainerRecord, Health, MountPlan
from estiba.daemon.adapters.config_views import config_view
from estiba.model.state import ContainerState

ZERO_TIME = "0001-01-01T00:00:00Z"
Json = dict[str, Any]


def timestamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds; zero is Go's zero time."""
    if not time_ns:
        return ZERO_TIME
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanoseconds:09d}Z"


def inspect_view(
    record: ContainerRecord, paths: Paths, *, driver: str, exec_ids: list[str], host_config: Json
) -> Json:
    """The body of `GET /containers/{id}/json`, without sizes."""
    state = paths.state(record.id)
    argv = record.argv
    return {
        "Id": record.id,
        "Created": timestamp(record.created_ns),
        "Path": record.path,
        "Args": argv[1:],
        "State": state_view(record),
        "Image": record.image_id,
        "ResolvConfPath": str(state / "resolv.conf"),
        "HostnamePath": str(state / "hostname"),
        "HostsPath": str(state / "hosts"),
        "LogPath": ""
        if record.host_config.log_config.type == "none"
        else str(paths.log(record.id)),
        "Name": f"/{record.name}",
        "RestartCount": record.restart_count,
        "Driver": driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": host_config,
        "GraphDriver": {
            "Name": driver,
            "Data": {"MergedDir": str(paths.rootfs(record.id))},
        },
        "Mounts": [mount_view(plan, paths) for plan in record.mounts],
        "Config": {**config_view(record), **_old_mac(record)},
        "NetworkSettings": network_settings_view(record),
    }


def _old_mac(record: ContainerRecord) -> Json:
    """The address that was asked for on the main network, where clients looked for it once."""
    mode = record.host_config.network_mode
    main = next((net.requested for net in record.networks if net.network == mode), None)
    return {"MacAddress": main.mac_address} if main is not None and main.mac_address else {}


def state_view(record: ContainerRecord) -> Json:
    state = record.state
    view: Json = {
        "Status": state.value,
        "Running": state.is_up or state == ContainerState.RESTARTING,
        "Paused": state == ContainerState.PAUSED,
        "Restarting": state == ContainerState.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": state == ContainerState.DEAD,
        "Pid": record.container.pid if record.container and state.is_up else 0,
        "ExitCode": record.exit_code,
        "Error": record.error,
        "StartedAt": timestamp(record.started_ns),
        "FinishedAt": timestamp(record.finished_ns),
    }
    if record.health is not None:
        view["Health"] = health_view(record.health)
    return view


def health_view(health: Health) -> Json:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": timestamp(result.started_ns),
                "End": timestamp(result.ended_ns),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in health.log
        ],
    }


def mount_view(plan: MountPlan, paths: Paths) -> Json:
    """OpenAPI MountPoint."""
    view: Json = {
        "Type": plan.type,
        "Source": plan.source,
        "Destination": plan.destination,
        "Mode": plan.mode,
        "RW": plan.rw,
        "Propagation": plan.propagation,
    }
    if plan.type == "image":
        view["Name"] = plan.name
    if plan.type == "volume":
        view["Name"] = plan.name
        if plan.driver == "local":
            view["Source"] = str(paths.data_root / "volumes" / plan.name / "_data")
        view["Driver"] = plan.driver
    return view


def network_settings_view(record: ContainerRecord) -> Json:
    networks = endpoint_views(record)
    first = networks.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": record.id if record.state.is_up else "",
        "SandboxKey": f"/proc/{record.container.pid}/ns/net" if record.container else "",
        "Ports": ports_view(record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.get("EndpointID", ""),
        "Gateway": first.get("Gateway", ""),
        "GlobalIPv6Address": first.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "IPv6Gateway": first.get("IPv6Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }


def endpoint_views(record: ContainerRecord) -> dict[str, Json]:
    """The container's networks by name."""
    return {net.network: endpoint_view(net, is_up=record.state.is_up) for net in record.networks}


def endpoint_view(net: AttachedNetwork, *, is_up: bool) -> Json:
    """What was asked for, with what the endpoint has while the container is up.

    Of one that is not up the network that it was on, and its names there.
    """
    settings, before = net.requested, net.before or net.endpoint
    if net.endpoint is not None and is_up:
        settings = msgspec.structs.replace(net.endpoint.settings, ipam_config=settings.ipam_config)
    elif before is not None:
        settings = msgspec.structs.replace(
            settings, network_id=before.network_id, dns_names=before.dns_names
        )
    view: Json = msgspec.to_builtins(settings)
    # Null in Docker's answers as long as there are none; clients compare with that.
    for name in ("Links", "Aliases", "DriverOpts", "DNSNames"):
        view[name] = view[name] or None
    if net.requested.ipam_config is not None:
        view["IPAMConfig"] = {key: value for key, value in view["IPAMConfig"].items() if value}
    return view


def ports_view(record: ContainerRecord) -> dict[str, list[dict[str, str]] | None]:
    """OpenAPI PortMap: every exposed port, null where it is not published."""
    if not record.state.is_up:
        return {}
    view: dict[str, list[dict[str, str]] | None] = {
        (port if "/" in port else f"{port}/tcp"): None for port in record.config.exposed_ports
    }
    for port, bindings in record.ports.items():
        view[port] = [
            {"HostIp": binding.host_ip, "HostPort": binding.host_port} for binding in bindings
        ]
    return view


def summary_view(
    record: ContainerRecord, paths: Paths, now_ns: int, aliases: Sequence[str] = ()
) -> Json:
    """One entry of `GET /containers/json`; `aliases` are the names that links give."""
    return {
        "Id": record.id,
        "Names": [f"/{record.name}", *aliases],
        "Image": record.image_name,
        "ImageID": record.image_id,
        "Command": " ".join(_quoted(word) for word in record.argv),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": _port_summaries(record),
        "Labels": record.config.labels,
        "State": record.state.value,
        "Status": status_text(record, now_ns),
        "HostConfig": _host_summary(record),
        "NetworkSettings": {"Networks": endpoint_views(record)},
        "Mounts": [mount_view(plan, paths) for plan in record.mounts],
    }


def _host_summary(record: ContainerRecord) -> Json:
    host = record.host_config
    annotations = {"Annotations": host.annotations} if host.annotations else {}
    return {"NetworkMode": host.network_mode, **annotations}


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _port_summaries(record: ContainerRecord) -> list[Json]:
    found: list[Json] = []
    for port, bindings in ports_view(record).items():
        number, _, protocol = port.partition("/")
        if "-" in number:
            continue
        entry = {"PrivatePort": int(number), "Type": protocol}
        if not bindings:
            found.append(entry)
        for binding in bindings or []:
            public = {"IP": binding["HostIp"], "PublicPort": int(binding["HostPort"])}
            found.append({**entry, **public})
    return found


def status_text(record: ContainerRecord, now_ns: int) -> str:
    """The human state of `docker ps`, for example `Up 2 minutes (healthy)`."""
    state = record.state
    if state.is_up:
        since = human_duration((now_ns - record.started_ns) / 1e9)
        if state == ContainerState.PAUSED:
            return f"Up {since} (Paused)"
        if record.health is not None:
            status = record.health.status
            return f"Up {since} ({'health: starting' if status == 'starting' else status})"
        return f"Up {since}"
    ago = human_duration((now_ns - record.finished_ns) / 1e9)
    if state == ContainerState.RESTARTING:
        return f"Restarting ({record.exit_code}) {ago} ago"
    if state == ContainerState.REMOVING:
        return "Removal In Progress"
    if state == ContainerState.DEAD:
        return "Dead"
    if state == ContainerState.CREATED or not record.finished_ns:
        return "Created"
    return f"Exited ({record.exit_code}) {ago} ago"


def human_duration(seconds: float) -> str:
    """Docker's rough durations: `Less than a second`, `5 minutes`, `About an hour`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, length in ((48, "hours", 1), (336, "days", 24), (1440, "weeks", 168)):
        if hours < limit:
            return f"{hours // length} {unit}"
    months = hours // 720
    return f"{months} months" if hours < 17520 else f"{hours // 8760} years"
