"""The request body that the flags of run and create make."""

from __future__ import annotations

import os

from estiba.cli.deviceflags import devices, rated, weighted
from estiba.cli.mountflags import parse_expose, parse_publish, parse_volume, split_mounts
from estiba.cli.netflags import dns_server, extra_host, mac_address, network_options, networking
from estiba.cli.networkpolicy import egress_of
from estiba.cli.output import labels_of, pairs
from estiba.cli.parse import Arguments, FlagError
from estiba.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STREAMS = ("stdin", "stdout", "stderr")


def build(given: Arguments) -> dict[str, Any]:
    """The body of POST /containers/create.

    Raises FlagError for a value that cannot be read, ClientError for values that exclude others.
    """
    image, *command = given.words
    if not image:
        raise ClientError("invalid reference format: the image's name is empty")
    exposed, bindings = ports(given)
    binds, volumes = split_volumes(given.volume)
    attached = attachments(given)
    body: dict[str, Any] = {
        "Image": image,
        "Cmd": command or None,
        "Hostname": given.hostname,
        "Domainname": given.domainname,
        "User": given.user,
        "Tty": given.tty,
        "OpenStdin": given.interactive,
        "StdinOnce": given.interactive and "stdin" in attached,
        **{f"Attach{name.capitalize()}": name in attached for name in _STREAMS},
        "Env": environment(given),
        "Labels": labels_of([*lines_of(given.label_file), *given.label]),
        "WorkingDir": given.workdir,
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "StopSignal": given.stop_signal,
        "StopTimeout": given.stop_timeout,
        "Healthcheck": health(given),
        "MacAddress": mac_address(given.mac_address),
        "Entrypoint": [given.entrypoint] if given.given("entrypoint") else None,
        "HostConfig": host_config(given, binds, bindings),
        "NetworkingConfig": networking(given),
    }
    return {key: value for key, value in body.items() if value is not None}


def ports(given: Arguments) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """What is exposed, and what is published where."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in given.publish:
        for port, binding in parse_publish(text):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    for text in given.expose:
        exposed.update((port, {}) for port in parse_expose(text))
    return exposed, bindings


def split_volumes(texts: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Binds, and anonymous volumes."""
    parsed = [(text, parse_volume(text)) for text in texts]
    binds = [bind for _, bind in parsed if bind is not None]
    return binds, {text: {} for text, bind in parsed if bind is None}


def attachments(given: Arguments) -> set[str]:
    """Which of stdin, stdout and stderr the user's terminal is attached to."""
    for text in given.attach:
        if text.lower() not in _STREAMS:
            raise FlagError(
                f'invalid argument "{text}" for "-a, --attach" flag: '
                "valid streams are STDIN, STDOUT and STDERR"
            )
    if given.get("detach"):
        return set()
    if given.attach:
        return {name.lower() for name in given.attach}
    return {"stdout", "stderr", *(["stdin"] if given.interactive else [])}


def host_config(
    given: Arguments, binds: list[str], bindings: dict[str, list[dict[str, str]]]
) -> dict[str, Any]:
    if given.rm and given.restart not in ("", "no"):
        raise ClientError("conflicting options: cannot specify both --restart and --rm")
    networks = given.network
    annotations = labels_of(given.annotation) | egress_of(given.egress)
    mounts, annotations = split_mounts(given.mount, annotations)
    host: dict[str, Any] = {
        "Binds": binds or None,
        "ContainerIDFile": given.cidfile,
        "PortBindings": bindings,
        "PublishAllPorts": given.publish_all,
        "NetworkMode": network_options(networks[0])["name"] if networks else "default",
        "AutoRemove": given.rm,
        "Privileged": given.privileged,
        "ReadonlyRootfs": given.read_only,
        "CapAdd": given.cap_add or None,
        "CapDrop": given.cap_drop or None,
        "Dns": [dns_server(text) for text in given.dns],
        "DnsOptions": given.dns_option,
        "DnsSearch": given.dns_search,
        "ExtraHosts": [extra_host(text) for text in given.add_host] or None,
        "GroupAdd": given.group_add or None,
        "Links": given.link or None,
        "IpcMode": given.ipc,
        "CgroupParent": given.cgroup_parent,
        "Runtime": given.runtime,
        "Isolation": given.isolation,
        "VolumeDriver": given.volume_driver,
        "VolumesFrom": given.volumes_from or None,
        **security(given.security_opt),
        "Mounts": mounts or None,
        "Tmpfs": dict(text.partition(":")[::2] for text in given.tmpfs) or None,
        "Sysctls": pairs(given.sysctl, "--sysctl") or None,
        "Annotations": annotations or None,
        "StorageOpt": pairs(given.storage_opt, "--storage-opt") or None,
        "LogConfig": log_config(given),
        "RestartPolicy": restart_policy(given.restart),
        "Init": given.init if given.given("init") else None,
        **devices(given),
        **limits(given),
        **_modes(given),
    }
    return {key: value for key, value in host.items() if value is not None}


def _modes(given: Arguments) -> dict[str, str]:
    """Namespaces. Raises ClientError in docker's words."""
    found = {}
    for name, key, kind, known in (
        ("pid", "PidMode", "PID", ("", "host")),
        ("uts", "UTSMode", "UTS", ("", "host")),
        ("userns", "UsernsMode", "USER", ("", "host")),
        ("cgroupns", "CgroupnsMode", "CGROUP", ("", "host", "private")),
    ):
        mode = getattr(given, name)
        if mode not in known and not (name == "pid" and mode.startswith("container:")):
            raise ClientError(
                f"--{name}: invalid {kind} mode: {mode}: one of "
                f"{', '.join(['container:NAME'] * (name == 'pid') + [m for m in known if m])}"
            )
        found[key] = mode
    return found


_LIMITS = {
    "BlkioWeight": "blkio_weight",
    "CpuCount": "cpu_count",
    "CpuPercent": "cpu_percent",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpuRealtimePeriod": "cpu_rt_period",
    "CpuRealtimeRuntime": "cpu_rt_runtime",
    "CpuShares": "cpu_shares",
    "CpusetCpus": "cpuset_cpus",
    "CpusetMems": "cpuset_mems",
    "IOMaximumBandwidth": "io_maxbandwidth",
    "IOMaximumIOps": "io_maxiops",
    "KernelMemory": "kernel_memory",
    "Memory": "memory",
    "MemoryReservation": "memory_reservation",
    "MemorySwap": "memory_swap",
    "MemorySwappiness": "memory_swappiness",
    "NanoCpus": "cpus",
    "OomKillDisable": "oom_kill_disable",
    "OomScoreAdj": "oom_score_adj",
    "PidsLimit": "pids_limit",
    "ShmSize": "shm_size",
}
_RATES = {
    "BlkioDeviceReadBps": "device_read_bps",
    "BlkioDeviceWriteBps": "device_write_bps",
    "BlkioDeviceReadIOps": "device_read_iops",
    "BlkioDeviceWriteIOps": "device_write_iops",
}


def limits(given: Arguments) -> dict[str, Any]:
    """Resources, shared with `update`: those that the user gave."""
    found = {key: given.get(name) for key, name in _LIMITS.items() if given.given(name)}
    swappiness = found.get("MemorySwappiness", -1)
    if not -1 <= swappiness <= 100:
        raise ClientError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    for key, name in _RATES.items():
        if texts := given.get(name, []):
            found[key] = [rated(text, name) for text in texts]
    if weights := given.get("blkio_weight_device", []):
        found["BlkioWeightDevice"] = [weighted(text) for text in weights]
    return found


def health(given: Arguments) -> dict[str, Any] | None:
    times = {
        "Interval": given.health_interval,
        "Timeout": given.health_timeout,
        "StartPeriod": given.health_start_period,
        "StartInterval": given.health_start_interval,
    }
    check: dict[str, Any] = {key: value for key, value in times.items() if value}
    if given.health_cmd:
        check["Test"] = ["CMD-SHELL", given.health_cmd]
    if given.health_retries:
        check["Retries"] = given.health_retries
    if given.no_healthcheck:
        if check:
            raise ClientError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    for key, value in check.items():
        if isinstance(value, int) and value < 0:
            name = "".join(f"-{c.lower()}" if c.isupper() else c for c in key)
            raise ClientError(f"--health{name} cannot be negative")
    return check or None


def environment(given: Arguments) -> list[str]:
    """Files first, then flags. A bare NAME takes the user's own value; one that the user has
    not either means: not even the image's.
    """
    found = []
    for path in given.env_file:
        for line in lines_of([path]):
            name, equals, _ = line.partition("=")
            if not name:
                raise ClientError(f"invalid env file ({path}): no variable name on line '{line}'")
            if len(name.split()) != 1 or name != name.rstrip():
                raise ClientError(
                    f"invalid env file ({path}): variable '{name}' contains whitespaces"
                )
            if equals:
                found.append(line)
            elif name in os.environ:
                found.append(f"{name}={os.environ[name]}")
    for entry in given.env:
        name, equals, _ = entry.partition("=")
        if not name:
            raise FlagError(
                f'invalid argument "{entry}" for "-e, --env" flag: '
                f"invalid environment variable: {entry}"
            )
        known = not equals and name in os.environ
        found.append(f"{name}={os.environ[name]}" if known else entry)
    return found


def lines_of(paths: list[str]) -> list[str]:
    """Lines of files of variables or labels, without comments. Raises ClientError."""
    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise ClientError(f"open {path}: {str(error.strerror).lower()}") from None
        except UnicodeDecodeError as error:
            line = 1 + error.object.count(b"\n", 0, error.start)
            raise ClientError(
                f"invalid env file ({path}): invalid utf8 bytes at line {line}"
            ) from None
        stripped = (line.lstrip() for line in lines)
        found += [line for line in stripped if line and not line.startswith("#")]
    return found


def security(texts: list[str]) -> dict[str, Any]:
    """`systempaths=unconfined` is two empty lists in the API."""
    options = [text for text in texts if text != "systempaths=unconfined"]
    found: dict[str, Any] = {"SecurityOpt": security_options(options) or None}
    if len(options) != len(texts):
        found.update(MaskedPaths=[], ReadonlyPaths=[])
    return found


def security_options(texts: list[str]) -> list[str]:
    """`seccomp=FILE` becomes the file's content: the daemon may be elsewhere."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals and text != "no-new-privileges":
            key, equals, value = text.partition(":")
            if not equals:
                raise ClientError(f'Invalid --security-opt: "{text}"')
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            text = f"seccomp={_compact_file(value)}"
        found.append(text)
    return found


def _compact_file(path: str) -> str:
    from estiba.client.jsonlite import dumps, loads

    try:
        with open(path, "rb") as file:
            return dumps(loads(file.read()))
    except OSError as error:
        reason = f"open {path}: {str(error.strerror).lower()}"
        raise ClientError(f"opening seccomp profile ({path}) failed: {reason}") from None
    except ValueError as error:
        raise ClientError(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def restart_policy(text: str) -> dict[str, Any]:
    """`always`, `on-failure:3`, `on-unhealthy:2`. The daemon judges the name."""
    name, colon, count = text.partition(":")
    policy: dict[str, Any] = {"Name": name or "no", "MaximumRetryCount": 0}
    if colon and not name:
        raise ClientError("invalid restart policy format: no policy provided before colon")
    if colon:
        if not count.removeprefix("-").isdecimal():
            raise ClientError(
                "invalid restart policy format: maximum retry count must be an integer"
            )
        policy["MaximumRetryCount"] = int(count)
    return policy


def log_config(given: Arguments) -> dict[str, Any]:
    options = labels_of(given.log_opt)
    if given.log_driver == "none" and options:
        raise ClientError("invalid logging opts for driver none")
    return {"Type": given.log_driver, "Config": options}
