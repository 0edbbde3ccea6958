"""The daemon's settings: dockerd's words on the command line and in daemon.json.

A setting may stand in one of the two places; given in both, the daemon refuses to start, as
dockerd does, because nobody could say which was meant.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from estiba.containers.validate import check_log
from estiba.daemon.flags import DEFAULT_CONFIG_FILE, LOG_LEVELS, WITHOUT_EFFECT, parser
from estiba.daemon.registry_config import registry_settings
from estiba.distribution.settings import RegistrySettings
from estiba.model.container import HostConfig, LogConfig, Ulimit
from estiba.model.errors import InvalidArgument
from estiba.model.sizes import parse_bytes
from estiba.plugins.places import Places

_log = logging.getLogger(__name__)

DEFAULT_HOST = "unix:///run/estiba/estiba.sock"
PUBLISH_POLICIES = ("host", "open")
DEFAULT_LOG_OPTIONS = {"max-size": "100m", "max-file": "3"}

_NAMES_IN_FILE = {
    "hosts": "host",
    "insecure-registries": "insecure-registry",
    "registry-mirrors": "registry-mirror",
    "default-address-pools": "default-address-pool",
    "default-ulimits": "default-ulimit",
    "log-opts": "log-opt",
    "runtimes": "add-runtime",
    "authorization-plugins": "authorization-plugin",
    "labels": "label",
    "dns-opts": "dns-opt",
    "exec-opts": "exec-opt",
    "storage-opts": "storage-opt",
}
_POOL = re.compile(r"base=([^,]+),size=(\d+)")


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Paths of PEM files; `verify` asks clients for a certificate of `ca`."""

    ca: Path
    certificate: Path
    key: Path
    verify: bool


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything the wiring needs, checked."""

    hosts: list[str] = field(default_factory=lambda: [DEFAULT_HOST])
    data_root: Path = Path("/var/lib/estiba")
    exec_root: Path = Path("/run/estiba")
    pidfile: Path = Path("/run/estiba/estibad.pid")
    socket_group: str = ""
    bridge: str = "estiba0"
    bip: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    bip6: str = ""
    ipv6: bool = False
    ip_forward: bool = True
    mtu: int = 1500
    icc: bool = True
    ip_masquerade: bool = True
    host_binding_ip: str = "0.0.0.0"
    publish_policy: str = "host"
    address_pools: list[tuple[str, int]] = field(default_factory=list)
    runtimes: dict[str, Path] = field(default_factory=dict)
    default_runtime: str = "crun"
    default_ulimits: list[Ulimit] = field(default_factory=list)
    log: LogConfig = field(
        default_factory=lambda: LogConfig(type="json-file", config=DEFAULT_LOG_OPTIONS)
    )
    tls: TlsConfig | None = None
    allow_insecure_tcp: bool = False
    registries: RegistrySettings = field(default_factory=RegistrySettings)
    plugin_places: Places = field(default_factory=Places)
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    labels: list[str] = field(default_factory=list)
    host_gateway: str = ""
    dns: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    init: bool = False
    init_path: Path = Path("/usr/bin/tini-static")
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    experimental: bool = False
    cgroup_parent: str = "/estiba"
    default_shm_bytes: int = 64 << 20
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    """Empty is `private`, but for privileged containers on cgroup v1 `host`."""

    log_level: str = "info"
    allowed_hosts: list[str] = field(default_factory=list)
    build_cache_bytes: int | None = 0
    """What the build cache may take: 0 a share of the disk, None all of it."""


def load(arguments: argparse.Namespace) -> DaemonConfig:
    """The settings of the command line and of the configuration file together.

    Raises InvalidArgument naming the setting that is wrong.
    """
    flags = dict(vars(arguments))
    explicit = "config_file" in flags
    path = flags.pop("config_file", DEFAULT_CONFIG_FILE)
    content = _read_file(path, required=explicit)
    try:
        merged = _merge(flags, content)
        for name in ("userns-remap", "metrics-addr", "authorization-plugin"):
            if merged.get(name):
                raise InvalidArgument(f"--{name} is not built yet: start without it")
        config = _build(merged)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"a setting has a value of the wrong kind: {error}") from error
    if config.log_level not in LOG_LEVELS:
        raise InvalidArgument(
            f"invalid log-level {config.log_level!r}: use one of {', '.join(LOG_LEVELS)}"
        )
    check_log(HostConfig(log_config=config.log))
    return config


def _read_file(path: Path, *, required: bool) -> dict[str, object]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise InvalidArgument(f"the configuration file {path} does not exist") from None
        return {}
    if not text.strip():
        # `--config-file /dev/null` is a usual way to have none.
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"the configuration file {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"the configuration file {path} must hold one JSON object")
    return content


def _merge(flags: dict[str, object], content: dict[str, object]) -> dict[str, object]:
    known = {
        option.removeprefix("--")
        for action in parser()._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    merged = {name.replace("_", "-"): value for name, value in flags.items()}
    for name in WITHOUT_EFFECT & merged.keys():
        _log.warning("the setting --%s has no effect here", name)
        del merged[name]
    proxies = content.get("proxies")
    if isinstance(proxies, dict):
        content = {**content, **proxies}
        del content["proxies"]
    for key, value in content.items():
        name = _NAMES_IN_FILE.get(key, key)
        if name in WITHOUT_EFFECT:
            _log.warning("the setting %s has no effect here", name)
            continue
        if name == "builder":
            merged[name] = value
            continue
        if name not in known:
            raise InvalidArgument(f"the configuration file has an unknown setting: {key}")
        if name in merged:
            raise InvalidArgument(
                f"{name} is given as a flag and in the configuration file: use one of them"
            )
        merged[name] = _from_json(name, value)
    return merged


def _from_json(name: str, value: object) -> object:
    if name in ("data-root", "exec-root", "pidfile", "tlscacert", "tlscert", "tlskey", "init-path"):
        return Path(str(value))
    if name == "log-opt" and isinstance(value, dict):
        return [f"{key}={item}" for key, item in value.items()]
    if name == "default-address-pool" and isinstance(value, list):
        return [f"base={pool['base']},size={pool['size']}" for pool in value]
    if name == "default-ulimit" and isinstance(value, dict):
        return [f"{key}={item['Soft']}:{item['Hard']}" for key, item in value.items()]
    if name == "add-runtime" and isinstance(value, dict):
        return [f"{key}={item['path']}" for key, item in value.items()]
    return value


def _build(merged: dict[str, object]) -> DaemonConfig:
    def text(name: str, default: str) -> str:
        return str(merged.get(name, default))

    def many(name: str) -> list[str]:
        value = merged.get(name, [])
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    def path(name: str, default: str) -> Path:
        return Path(text(name, default)).absolute()

    def flag(name: str, default: bool) -> bool:
        return bool(merged.get(name, default))

    def one_of(name: str, *values: str) -> str:
        value = text(name, values[0])
        if value not in values:
            known = " or ".join(filter(None, values))
            raise InvalidArgument(f"invalid {name} {value[:32]!r}: use {known}")
        return value

    options = dict(_pair(item, "log-opt") for item in many("log-opt"))
    driver = text("log-driver", "json-file")
    if driver in ("json-file", "local"):
        options = {**DEFAULT_LOG_OPTIONS, **options}
    bip = text("bip", "")
    _check_interface(bip, "bip")
    _check_interface(text("bip6", ""), "bip6")
    runtimes = {
        name: Path(item) for name, item in (_pair(r, "runtime") for r in many("add-runtime"))
    }
    exec_root = path("exec-root", "/run/estiba")
    return DaemonConfig(
        hosts=many("host") or [DEFAULT_HOST],
        data_root=path("data-root", "/var/lib/estiba"),
        exec_root=exec_root,
        pidfile=path("pidfile", "") if "pidfile" in merged else exec_root / "estibad.pid",
        socket_group=text("group", ""),
        bridge=text("bridge", "estiba0"),
        bip=bip,
        fixed_cidr=text("fixed-cidr", ""),
        fixed_cidr_v6=text("fixed-cidr-v6", ""),
        bip6=text("bip6", ""),
        ipv6=flag("ipv6", False),
        ip_forward=flag("ip-forward", True),
        mtu=int(text("mtu", "1500")),
        icc=flag("icc", True),
        ip_masquerade=flag("ip-masq", True),
        host_binding_ip=text("ip", "0.0.0.0"),
        publish_policy=one_of("publish-policy", *PUBLISH_POLICIES),
        address_pools=[_pool(item) for item in many("default-address-pool")],
        runtimes=runtimes,
        default_runtime=text("default-runtime", "crun"),
        default_ulimits=[_ulimit(item) for item in many("default-ulimit")],
        log=LogConfig(type=driver, config=options),
        tls=_tls(merged),
        allow_insecure_tcp=flag("allow-insecure-tcp", False),
        registries=registry_settings(merged),
        plugin_places=_plugin_places(many("plugin-socket-dir"), many("plugin-spec-dir")),
        max_concurrent_downloads=max(1, int(text("max-concurrent-downloads", "3"))),
        max_concurrent_uploads=max(1, int(text("max-concurrent-uploads", "5"))),
        labels=many("label"),
        host_gateway=_address(text("host-gateway-ip", "")),
        dns=many("dns"),
        dns_options=many("dns-opt"),
        dns_search=many("dns-search"),
        init=flag("init", False),
        init_path=path("init-path", "/usr/bin/tini-static"),
        seccomp_profile=text("seccomp-profile", ""),
        no_new_privileges=flag("no-new-privileges", False),
        experimental=flag("experimental", False),
        cgroup_parent=text("cgroup-parent", "/estiba"),
        default_shm_bytes=int(text("default-shm-size", str(64 << 20))),
        default_ipc_mode=one_of("default-ipc-mode", "private", "shareable"),
        default_cgroupns_mode=one_of("default-cgroupns-mode", "", "private", "host"),
        log_level="debug" if merged.get("debug") else text("log-level", "info"),
        allowed_hosts=many("allow-host"),
        build_cache_bytes=_build_cache_bytes(merged.get("builder")),
    )


def _plugin_places(sockets: list[str], specs: list[str]) -> Places:
    """Folders that are given stand instead of the usual ones of their kind."""
    usual = Places()
    return Places(
        sockets=tuple(map(Path, sockets)) or usual.sockets,
        specs=tuple(map(Path, specs)) or usual.specs,
    )


def _build_cache_bytes(builder: object) -> int | None:
    """`{"gc": {"enabled": true, "defaultKeepStorage": "20GB"}}`. Raises InvalidArgument."""
    gc = builder.get("gc", {}) if isinstance(builder, dict) else {}
    if not isinstance(gc, dict):
        raise InvalidArgument("the setting builder.gc must be an object")
    if gc.get("enabled") is False:
        return None
    kept = gc.get("defaultReservedSpace", gc.get("defaultKeepStorage", 0))
    return kept if isinstance(kept, int) else parse_bytes(str(kept))


def _tls(merged: dict[str, object]) -> TlsConfig | None:
    verify = bool(merged.get("tlsverify"))
    if not verify and not merged.get("tls"):
        return None
    home = Path("/etc/estiba")
    return TlsConfig(
        ca=Path(str(merged.get("tlscacert", home / "ca.pem"))),
        certificate=Path(str(merged.get("tlscert", home / "cert.pem"))),
        key=Path(str(merged.get("tlskey", home / "key.pem"))),
        verify=verify,
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError as error:
        raise InvalidArgument(f"invalid host-gateway-ip: {error}") from None


def _pair(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidArgument(f"invalid {what} {text!r}: expected NAME=VALUE")
    return name, value


def _pool(text: str) -> tuple[str, int]:
    match = _POOL.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid address pool {text!r}: expected base=10.0.0.0/8,size=24")
    size = int(match[2])
    try:
        base = ipaddress.ip_network(match[1])
    except ValueError as error:
        raise InvalidArgument(f"invalid address pool {text!r}: {error}") from None
    if not base.prefixlen <= size <= base.max_prefixlen - 2:
        raise InvalidArgument(
            f"invalid address pool {text!r}: the size is the prefix of each network, "
            f"from {base.prefixlen} to {base.max_prefixlen - 2} here"
        )
    return match[1], size


def _ulimit(text: str) -> Ulimit:
    name, value = _pair(text, "ulimit")
    soft, _, hard = value.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidArgument(f"invalid ulimit {text!r}: expected NAME=SOFT[:HARD]") from None


def _check_interface(text: str, what: str) -> None:
    if not text:
        return
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what} {text!r}: expected an address and prefix") from None
