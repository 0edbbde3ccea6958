"""The flags of `estibad`: dockerd's words, and a few of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DEFAULT_CONFIG_FILE = Path("/etc/estiba/daemon.json")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

WITHOUT_EFFECT = frozenset(
    """
    api-cors-header bridge-accept-fwmark cgroup-parent-mode containerd containerd-namespace
    containerd-plugins-namespace exec-opt features ip6tables iptables live-restore
    oom-score-adjust selinux-enabled shutdown-timeout storage-driver storage-opt userland-proxy
    userland-proxy-path
    """.split()
)
"""Settings of dockerd's that mean nothing here: read, and named in the log."""

Add = Callable[..., argparse.Action]


def parser() -> argparse.ArgumentParser:
    """The command line; every flag is named in docs/daemon.md."""
    cli = argparse.ArgumentParser(
        prog="estibad",
        description="The estiba daemon: serves the Docker Engine API.",
        argument_default=argparse.SUPPRESS,
    )
    for group in (_places, _networks, _containers, _clients, _registries, _others):
        group(cli.add_argument)
    for name in sorted(WITHOUT_EFFECT):
        cli.add_argument(f"--{name}", nargs="?", action="append", help=argparse.SUPPRESS)
    return cli


def _places(add: Add) -> None:
    add("-H", "--host", action="append", metavar="URL", help="unix://PATH, tcp://HOST:PORT, fd://")
    add("--config-file", type=Path, help=f"settings as JSON (default {DEFAULT_CONFIG_FILE})")
    add("--data-root", type=Path, help="what outlives a reboot (default /var/lib/estiba)")
    add("--exec-root", type=Path, help="what does not (default /run/estiba)")
    add("-p", "--pidfile", type=Path, help="where to write the daemon's pid")
    add("-G", "--group", metavar="NAME", help="group of the UNIX socket")
    add("--plugin-socket-dir", action="append", type=Path, metavar="DIR")
    add("--plugin-spec-dir", action="append", type=Path, metavar="DIR")


def _networks(add: Add) -> None:
    add("-b", "--bridge", metavar="NAME", help="the default bridge, made if absent")
    add("--bip", metavar="CIDR", help="address and subnet of the default bridge")
    add("--fixed-cidr", metavar="CIDR", help="part of the subnet that containers get")
    add(
        "--ipv6",
        type=_boolean,
        metavar="BOOL",
        nargs="?",
        const=True,
        help="the default bridge has IPv6",
    )
    add("--bip6", metavar="CIDR", help="IPv6 address and subnet of the default bridge")
    add("--fixed-cidr-v6", metavar="CIDR", help="IPv6 subnet, or its part that containers get")
    add("--ip-forward", type=_boolean, metavar="BOOL", help="let the host forward packets")
    add("--mtu", type=int, help="MTU of the default bridge")
    add("--default-address-pool", action="append", metavar="base=CIDR,size=N")
    add("--icc", type=_boolean, metavar="BOOL", help="containers may talk to one another")
    add("--ip-masq", type=_boolean, metavar="BOOL", help="NAT for outgoing traffic")
    add("--ip", metavar="IP", help="default host address of published ports")
    add(
        "--publish-policy",
        metavar="POLICY",
        help="host: the host's firewall decides about published ports; open: they are open",
    )
    add("--host-gateway-ip", metavar="IP", help="what host-gateway stands for in extra hosts")
    add("--dns", action="append", metavar="IP")
    add("--dns-opt", action="append", metavar="OPTION")
    add("--dns-search", action="append", metavar="DOMAIN")


def _containers(add: Add) -> None:
    add("--default-runtime", metavar="NAME")
    add("--add-runtime", action="append", metavar="NAME=PATH", help="another OCI runtime")
    add("--default-ulimit", action="append", metavar="NAME=SOFT[:HARD]")
    add("--log-driver", metavar="NAME", help="json-file, local, journald, syslog, none")
    add("--log-opt", action="append", metavar="NAME=VALUE")
    add("--log-level", choices=LOG_LEVELS)
    add("-D", "--debug", action="store_true", help="the same as --log-level debug")
    add("--init", action="store_true", help="run an init in every container")
    add("--init-path", type=Path)
    add("--seccomp-profile", metavar="FILE", help="default profile, builtin or unconfined")
    add("--no-new-privileges", action="store_true")
    add("--cgroup-parent", metavar="PATH")
    add("--default-ipc-mode", metavar="MODE", help="private or shareable")
    add("--default-cgroupns-mode", metavar="MODE", help="private or host")
    add("--default-shm-size", type=int, metavar="BYTES")
    add("--label", action="append", metavar="KEY=VALUE")
    add(
        "--experimental",
        type=_boolean,
        metavar="BOOL",
        nargs="?",
        const=True,
        help="say so to clients: docker's then sends build --squash",
    )


def _clients(add: Add) -> None:
    add("--tls", action="store_true", help="TLS; implied by --tlsverify")
    add("--tlsverify", action="store_true", help="TLS, and clients need a certificate")
    add("--tlscacert", type=Path, metavar="FILE")
    add("--tlscert", type=Path, metavar="FILE")
    add("--tlskey", type=Path, metavar="FILE")
    add(
        "--allow-insecure-tcp",
        action="store_true",
        help="serve TCP without client certificates: whoever reaches the port is root here",
    )
    add("--allow-host", action="append", metavar="NAME", help="Host header accepted on TCP")


def _registries(add: Add) -> None:
    add("--insecure-registry", action="append", metavar="HOST")
    add(
        "--registry-mirror",
        action="append",
        metavar="[HOST=]URL",
        help="asked before the registry HOST (default docker.io, * for all) in pulls",
    )
    add("--registry-certs-dir", action="append", type=Path, metavar="DIR")
    add("--max-concurrent-downloads", type=int, metavar="N", help="layers of pulls (default 3)")
    add("--max-concurrent-uploads", type=int, metavar="N", help="layers of pushes (default 5)")
    add("--max-download-attempts", type=int, metavar="N", help="of one request (default 5)")
    add("--http-proxy", metavar="URL", help="to registries; otherwise HTTP_PROXY")
    add("--https-proxy", metavar="URL")
    add("--no-proxy", metavar="HOSTS")


def _others(add: Add) -> None:
    add("--userns-remap", metavar="USER", help="not built yet: refused unless empty")
    add("--metrics-addr", metavar="ADDRESS", help="not built yet: refused unless empty")
    add("--authorization-plugin", action="append", help="not built yet: refused unless empty")
    add(
        "--remove-firewall",
        action="store_true",
        help="take away all firewall rules that the engine left, and end",
    )
    add("--api-coverage", action="store_true", help="print which API operations are served")
    add("-v", "--version", action="store_true")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() in ("true", "1")
