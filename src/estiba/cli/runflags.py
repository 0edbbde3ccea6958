"""The flags of `run` and `create`, and the request body that they make."""

from __future__ import annotations

import json
import os
from typing import Any

from estiba.cli.mountflags import parse_mount, parse_publish, parse_volume
from estiba.cli.parse import Arguments, Flag, UsageError
from estiba.cli.quantities import cpus_to_nano, duration_ns, size_bytes
from estiba.client.errors import ClientError

Json = dict[str, Any]

FLAGS = (
    Flag("--add-host LIST…", "add a custom host-to-IP mapping (host:ip)"),
    Flag("--annotation MAP…", "add an annotation to the container"),
    Flag("-a --attach LIST…", "attach to STDIN, STDOUT or STDERR"),
    Flag("--blkio-weight N", "block IO weight, 10 to 1000"),
    Flag("--cap-add LIST…", "add Linux capabilities"),
    Flag("--cap-drop LIST…", "drop Linux capabilities"),
    Flag("--cgroup-parent NAME", "parent cgroup"),
    Flag("--cgroupns MODE", "cgroup namespace: host or private"),
    Flag("--cidfile FILE", "write the container's id to the file"),
    Flag("--cpu-period N", "CPU CFS period, microseconds"),
    Flag("--cpu-quota N", "CPU CFS quota, microseconds"),
    Flag("-c --cpu-shares N", "CPU shares (relative weight)"),
    Flag("--cpus N", "number of CPUs"),
    Flag("--cpuset-cpus LIST", "CPUs to run on (0-3, 0,1)"),
    Flag("--cpuset-mems LIST", "memory nodes to use"),
    Flag("--device LIST…", "add a host device"),
    Flag("--device-cgroup-rule LIST…", "add a rule to the allowed devices"),
    Flag("--device-read-bps LIST…", "limit read rate (path:bytes)"),
    Flag("--device-read-iops LIST…", "limit read operations (path:n)"),
    Flag("--device-write-bps LIST…", "limit write rate (path:bytes)"),
    Flag("--device-write-iops LIST…", "limit write operations (path:n)"),
    Flag("--dns LIST…", "DNS servers"),
    Flag("--dns-option LIST…", "DNS options"),
    Flag("--dns-search LIST…", "DNS search domains"),
    Flag("--domainname NAME", "the container's NIS domain name"),
    Flag("--entrypoint COMMAND", "instead of the image's entrypoint"),
    Flag("-e --env LIST…", "environment variables"),
    Flag("--env-file LIST…", "files of environment variables"),
    Flag("--expose LIST…", "expose a port or a range"),
    Flag("--group-add LIST…", "additional groups"),
    Flag("--health-cmd COMMAND", "command to check health"),
    Flag("--health-interval TIME", "time between checks"),
    Flag("--health-retries N", "consecutive failures to be unhealthy"),
    Flag("--health-start-interval TIME", "time between checks during the start period"),
    Flag("--health-start-period TIME", "time to start before failures count"),
    Flag("--health-timeout TIME", "the longest a check may take"),
    Flag("-h --hostname NAME", "the container's host name"),
    Flag("--init", "run an init that forwards signals and reaps"),
    Flag("-i --interactive", "keep STDIN open"),
    Flag("--ip ADDRESS", "IPv4 address"),
    Flag("--ipc MODE", "IPC mode"),
    Flag("-l --label LIST…", "metadata"),
    Flag("--label-file LIST…", "files of labels"),
    Flag("--log-driver NAME", "log driver"),
    Flag("--log-opt LIST…", "options of the log driver"),
    Flag("--mac-address MAC", "MAC address"),
    Flag("-m --memory BYTES", "memory limit"),
    Flag("--memory-reservation BYTES", "memory soft limit"),
    Flag("--memory-swap BYTES", "memory and swap; -1 is unlimited swap"),
    Flag("--memory-swappiness N", "0 to 100"),
    Flag("--mount SPEC…", "attach a filesystem mount"),
    Flag("--name NAME", "the container's name"),
    Flag("--network NAME…", "connect to a network"),
    Flag("--net NAME…", "the same as --network"),
    Flag("--network-alias LIST…", "network-scoped alias"),
    Flag("--no-healthcheck", "no health check, whatever the image says"),
    Flag("--oom-kill-disable", "disable the OOM killer"),
    Flag("--oom-score-adj N", "-1000 to 1000"),
    Flag("--pid MODE", "PID namespace"),
    Flag("--pids-limit N", "limit of processes; -1 is none"),
    Flag("--platform NAME", "os/arch[/variant]"),
    Flag("--privileged", "all privileges"),
    Flag("-p --publish LIST…", "publish ports to the host"),
    Flag("-P --publish-all", "publish all exposed ports to free ones"),
    Flag("--pull POLICY", "always, missing or never"),
    Flag("-q --quiet", "no progress output"),
    Flag("--read-only", "mount the root file system read-only"),
    Flag("--restart POLICY", "no, always, unless-stopped, on-failure[:N], on-unhealthy[:N]"),
    Flag("--rm", "remove the container when it ends"),
    Flag("--runtime NAME", "OCI runtime"),
    Flag("--security-opt LIST…", "security options"),
    Flag("--shm-size BYTES", "size of /dev/shm"),
    Flag("--stop-signal SIGNAL", "signal to stop the container"),
    Flag("--stop-timeout SECONDS", "time to stop before it is killed"),
    Flag("--storage-opt LIST…", "storage options"),
    Flag("--sysctl MAP…", "kernel parameters of the namespaces"),
    Flag("--tmpfs LIST…", "mount a tmpfs"),
    Flag("-t --tty", "allocate a terminal"),
    Flag("--ulimit LIST…", "ulimits"),
    Flag("-u --user NAME", "name or uid[:group or gid]"),
    Flag("--userns MODE", "user namespace"),
    Flag("--uts MODE", "UTS namespace"),
    Flag("-v --volume LIST…", "bind mount a volume"),
    Flag("--volume-driver NAME", "driver of volumes"),
    Flag("--volumes-from LIST…", "mounts of other containers"),
    Flag("-w --workdir PATH", "working directory"),
)
RUN_ONLY = (
    Flag("-d --detach", "run in the background and print the id"),
    Flag("--detach-keys KEYS", "key sequence to detach"),
    Flag("--sig-proxy BOOL", "pass signals on to the program"),
)


def build(given: Arguments) -> Json:
    """The body of POST /containers/create. Raises UsageError naming the flag."""
    image, *command = given.words
    exposed: dict[str, Json] = {}
    bindings: dict[str, list[Json]] = {}
    for text in given.publish:
        for port, binding in parse_publish(text):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    for text in given.expose:
        exposed[text if "/" in text else f"{text}/tcp"] = {}
    binds, volumes = parse_volumes(given.volume)
    networks = [*given.network, *given.net]
    body: Json = {
        "Image": image,
        "Cmd": command or None,
        "Hostname": given.hostname,
        "Domainname": given.domainname,
        "User": given.user,
        "Tty": given.tty,
        "OpenStdin": given.interactive,
        "StdinOnce": given.interactive and not getattr(given, "detach", False),
        "Env": environment(given),
        "Labels": labels(given),
        "WorkingDir": given.workdir,
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "StopSignal": given.stop_signal,
        "Healthcheck": health(given),
        "HostConfig": host_config(given, binds, bindings, networks),
        "NetworkingConfig": networking(given, networks),
    }
    attached = attachments(given)
    for stream in ("Stdin", "Stdout", "Stderr"):
        body[f"Attach{stream}"] = stream.lower() in attached
    if given.given("entrypoint"):
        body["Entrypoint"] = [given.entrypoint]
    if given.stop_timeout:
        body["StopTimeout"] = number(given.stop_timeout, "--stop-timeout")
    if given.mac_address:
        body["MacAddress"] = given.mac_address
    return {key: value for key, value in body.items() if value is not None}


def attachments(given: Arguments) -> set[str]:
    """Which of stdin, stdout and stderr the user's terminal is attached to."""
    if getattr(given, "detach", False):
        return set()
    if given.attach:
        return {name.lower() for name in given.attach}
    return {"stdout", "stderr", *(["stdin"] if given.interactive else [])}


def parse_volumes(texts: list[str]) -> tuple[list[str], dict[str, Json]]:
    """Binds, and anonymous volumes."""
    binds, volumes = [], {}
    for text in texts:
        bind = parse_volume(text)
        if bind is None:
            volumes[text] = dict[str, Any]()
        else:
            binds.append(bind)
    return binds, volumes


def host_config(given: Arguments, binds: list[str], bindings: Json, networks: list[str]) -> Json:
    first = networks[0] if networks else "default"
    host: Json = {
        "Binds": binds or None,
        "PortBindings": bindings,
        "PublishAllPorts": given.publish_all,
        "NetworkMode": network_name(first),
        "AutoRemove": given.rm,
        "Privileged": given.privileged,
        "ReadonlyRootfs": given.read_only,
        "CapAdd": given.cap_add or None,
        "CapDrop": given.cap_drop or None,
        "Dns": given.dns,
        "DnsOptions": given.dns_option,
        "DnsSearch": given.dns_search,
        "ExtraHosts": [text.replace("=", ":", 1) for text in given.add_host] or None,
        "GroupAdd": given.group_add or None,
        "IpcMode": given.ipc,
        "PidMode": given.pid,
        "UTSMode": given.uts,
        "UsernsMode": given.userns,
        "CgroupnsMode": given.cgroupns,
        "CgroupParent": given.cgroup_parent,
        "Runtime": given.runtime,
        "VolumeDriver": given.volume_driver,
        "VolumesFrom": given.volumes_from or None,
        "SecurityOpt": security_options(given.security_opt),
        "Mounts": [parse_mount(text) for text in given.mount] or None,
        "Tmpfs": dict(text.partition(":")[::2] for text in given.tmpfs) or None,
        "Sysctls": pairs(given.sysctl, "--sysctl") or None,
        "Annotations": pairs(given.annotation, "--annotation") or None,
        "StorageOpt": pairs(given.storage_opt, "--storage-opt") or None,
        "LogConfig": {"Type": given.log_driver, "Config": pairs(given.log_opt, "--log-opt")},
        "RestartPolicy": restart_policy(given.restart),
        "Ulimits": [ulimit(text) for text in given.ulimit] or None,
        "Devices": [device(text) for text in given.device],
        "DeviceCgroupRules": given.device_cgroup_rule or None,
        "ContainerIDFile": given.cidfile,
        "OomKillDisable": given.oom_kill_disable,
        **limits(given),
    }
    if given.given("init"):
        host["Init"] = given.init
    return {key: value for key, value in host.items() if value is not None}


def limits(given: Arguments) -> Json:
    """Resources, shared with `update`."""
    found: Json = {}
    for key, name in (
        ("Memory", "memory"),
        ("MemoryReservation", "memory_reservation"),
        ("MemorySwap", "memory_swap"),
        ("ShmSize", "shm_size"),
    ):
        if text := getattr(given, name, ""):
            found[key] = -1 if text == "-1" else size_bytes(text)
    for key, name in (
        ("CpuShares", "cpu_shares"),
        ("CpuPeriod", "cpu_period"),
        ("CpuQuota", "cpu_quota"),
        ("PidsLimit", "pids_limit"),
        ("BlkioWeight", "blkio_weight"),
        ("MemorySwappiness", "memory_swappiness"),
        ("OomScoreAdj", "oom_score_adj"),
    ):
        if text := getattr(given, name, ""):
            found[key] = number(text, f"--{name.replace('_', '-')}")
    if given.cpus:
        found["NanoCpus"] = cpus_to_nano(given.cpus)
    for key, name in (("CpusetCpus", "cpuset_cpus"), ("CpusetMems", "cpuset_mems")):
        if text := getattr(given, name, ""):
            found[key] = text
    for key, name in (
        ("BlkioDeviceReadBps", "device_read_bps"),
        ("BlkioDeviceWriteBps", "device_write_bps"),
        ("BlkioDeviceReadIOps", "device_read_iops"),
        ("BlkioDeviceWriteIOps", "device_write_iops"),
    ):
        if texts := getattr(given, name, []):
            found[key] = [throttle(text) for text in texts]
    return found


def throttle(text: str) -> Json:
    path, colon, rate = text.rpartition(":")
    if not colon:
        raise UsageError(f"bad format: {text}: expected DEVICE:RATE")
    return {"Path": path, "Rate": size_bytes(rate)}


def health(given: Arguments) -> Json | None:
    if given.no_healthcheck:
        return {"Test": ["NONE"]}
    check: Json = {}
    if given.health_cmd:
        check["Test"] = ["CMD-SHELL", given.health_cmd]
    for key, name in (
        ("Interval", "health_interval"),
        ("Timeout", "health_timeout"),
        ("StartPeriod", "health_start_period"),
        ("StartInterval", "health_start_interval"),
    ):
        if text := getattr(given, name):
            check[key] = duration_ns(text)
    if given.health_retries:
        check["Retries"] = number(given.health_retries, "--health-retries")
    return check or None


def environment(given: Arguments) -> list[str]:
    """Files first, then flags; a bare NAME takes the user's own value."""
    entries = [line for path in given.env_file for line in _file_lines(path)] + given.env
    found = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if equals:
            found.append(entry)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found


def labels(given: Arguments) -> dict[str, str]:
    entries = [line for path in given.label_file for line in _file_lines(path)] + given.label
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}


def _file_lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from error
    return [line for line in lines if line and not line.startswith("#")]


def security_options(texts: list[str]) -> list[str] | None:
    """`seccomp=FILE` becomes the file's content: the daemon may be elsewhere."""
    found = []
    for text in texts:
        key, _, value = (
            text.replace(":", "=", 1).partition("=") if "=" not in text else text.partition("=")
        )
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            try:
                with open(value) as file:
                    text = f"seccomp={json.dumps(json.load(file))}"
            except (OSError, ValueError) as error:
                raise UsageError(f"opening seccomp profile ({value}) failed: {error}") from error
        found.append(text)
    return found or None


def restart_policy(text: str) -> Json:
    name, _, count = text.partition(":")
    policy: Json = {"Name": name or "no"}
    if count:
        policy["MaximumRetryCount"] = number(count, "--restart")
    return policy


def ulimit(text: str) -> Json:
    name, equals, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if not equals:
        raise UsageError(f"invalid ulimit argument: {text}")
    return {
        "Name": name,
        "Soft": number(soft, "--ulimit"),
        "Hard": number(hard or soft, "--ulimit"),
    }


def device(text: str) -> Json:
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm"):
        permissions = parts.pop()
    return {
        "PathOnHost": parts[0],
        "PathInContainer": parts[1] if len(parts) > 1 else parts[0],
        "CgroupPermissions": permissions,
    }


def network_name(text: str) -> str:
    """The name in `--network NAME` or `--network name=NAME,alias=…`."""
    if "=" not in text:
        return text
    return dict(part.partition("=")[::2] for part in text.split(",")).get("name", text)


def networking(given: Arguments, networks: list[str]) -> Json | None:
    """EndpointsConfig for what goes beyond a plain name."""
    endpoints: dict[str, Json] = {}
    for index, text in enumerate(networks or ["default"]):
        options = [part.partition("=") for part in text.split(",")] if "=" in text else []
        endpoint: Json = {}
        address = next((value for key, _, value in options if key == "ip"), "")
        if index == 0:
            address = given.ip or address
        if address:
            endpoint["IPAMConfig"] = {"IPv4Address": address}
        aliases = [value for key, _, value in options if key == "alias"]
        if index == 0:
            aliases += given.network_alias
        if aliases:
            endpoint["Aliases"] = aliases
        for key, _, value in options:
            if key == "mac-address":
                endpoint["MacAddress"] = value
        if endpoint or len(networks) > 1:
            endpoints[network_name(text)] = endpoint
    return {"EndpointsConfig": endpoints} if endpoints else None


def pairs(texts: list[str], flag: str) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"invalid argument {text!r} for {flag}: expected KEY=VALUE")
        found[key] = value
    return found


def number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for {flag}: a number is needed') from None


def write_cidfile(path: str, container_id: str) -> None:
    if not path:
        return
    try:
        with open(path, "x") as file:
            file.write(container_id)
    except OSError as error:
        raise ClientError(
            f"failed to create the container ID file: {path}: {error.strerror}"
        ) from error
