"""What a user asks a container to be: Config, HostConfig and NetworkingConfig.

The structs carry the Engine API's field names (OpenAPI 1.51 ContainerConfig, HostConfig,
EndpointSettings), so that one vocabulary serves the request, the stored record and inspect.
An absent field and a JSON null are the zero value; `None` stands only where the API tells
"not given" from "zero" or "empty".
"""

from __future__ import annotations

import msgspec

OF_CONTAINER = "container:"
"""Begins a network, IPC or PID mode that is another container's; its id or name follows."""


class _Api(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base of all API-shaped records."""


class HealthConfig(_Api, frozen=True, kw_only=True, omit_defaults=True):
    """Durations in nanoseconds; zero means inherit, then the engine's default."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class Config(_Api, frozen=True, kw_only=True):
    """The portable part: what an image may also say (OpenAPI ContainerConfig)."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, object]] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, object]] = {}
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class PortBinding(_Api, frozen=True, kw_only=True):
    """`host_port` is a number, a range `a-b`, or empty for an ephemeral port."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(_Api, frozen=True, kw_only=True):
    """`name` is "", no, always, unless-stopped, on-failure or on-unhealthy."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(_Api, frozen=True, kw_only=True):
    type: str = ""
    config: dict[str, str] = {}


class WeightDevice(_Api, frozen=True, kw_only=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(_Api, frozen=True, kw_only=True):
    """`rate` is bytes or operations a second."""

    path: str = ""
    rate: int = 0


class DeviceMapping(_Api, frozen=True, kw_only=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class DeviceRequest(_Api, frozen=True, kw_only=True):
    driver: str = ""
    count: int = 0
    device_ids: list[str] = msgspec.field(default_factory=list, name="DeviceIDs")
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class Ulimit(_Api, frozen=True, kw_only=True):
    name: str = ""
    soft: int = 0
    hard: int = 0


class BindOptions(_Api, frozen=True, kw_only=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(_Api, frozen=True, kw_only=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(_Api, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


class ImageOptions(_Api, frozen=True, kw_only=True):
    subpath: str = ""


class TmpfsOptions(_Api, frozen=True, kw_only=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class Mount(_Api, frozen=True, kw_only=True):
    """One entry of HostConfig.Mounts (`--mount`); `type` is bind, volume, tmpfs or image."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Resources(_Api, frozen=True, kw_only=True):
    """Limits; memory in bytes (-1 is no limit), CPU period and quota in microseconds."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = msgspec.field(
        default_factory=list, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] = msgspec.field(
        default_factory=list, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[DeviceRequest] = []
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")


class HostConfig(Resources, frozen=True, kw_only=True):
    """The part that depends on the host (OpenAPI HostConfig)."""

    binds: list[str] = []
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] = []
    mounts: list[Mount] = []
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] = {}
    cap_add: list[str] = []
    cap_drop: list[str] = []
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] = []
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = []
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    init: bool | None = None
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class EndpointIpamConfig(_Api, frozen=True, kw_only=True):
    ipv4_address: str = msgspec.field(default="", name="IPv4Address")
    ipv6_address: str = msgspec.field(default="", name="IPv6Address")
    link_local_ips: list[str] = msgspec.field(default_factory=list, name="LinkLocalIPs")


class EndpointSettings(_Api, frozen=True, kw_only=True):
    """One attachment to a network: first what was asked for, then what was given."""

    ipam_config: EndpointIpamConfig | None = msgspec.field(default=None, name="IPAMConfig")
    links: list[str] = []
    mac_address: str = ""
    aliases: list[str] = []
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    network_id: str = msgspec.field(default="", name="NetworkID")
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    gateway: str = ""
    ip_address: str = msgspec.field(default="", name="IPAddress")
    ip_prefix_len: int = msgspec.field(default=0, name="IPPrefixLen")
    ipv6_gateway: str = msgspec.field(default="", name="IPv6Gateway")
    global_ipv6_address: str = msgspec.field(default="", name="GlobalIPv6Address")
    global_ipv6_prefix_len: int = msgspec.field(default=0, name="GlobalIPv6PrefixLen")
    dns_names: list[str] = msgspec.field(default_factory=list, name="DNSNames")


class NetworkingConfig(_Api, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings] = {}


class ProcessSpec(_Api, frozen=True, kw_only=True):
    """One more program in a running container (OpenAPI ExecConfig)."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    detach_keys: str = ""
    tty: bool = False
    env: list[str] = []
    cmd: list[str] = []
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class MountPoint(_Api, frozen=True, kw_only=True):
    """One mount as inspect shows it, and as the engine performs it."""

    type: str
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(default=True, name="RW")
    propagation: str = ""
