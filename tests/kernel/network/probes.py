"""What a container's namespace shows, and engines that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from estiba.kernel import rtnetlink, rtroutes
from estiba.kernel.netlink import NetlinkSocket
from estiba.kernel.netns import run_in_netns
from estiba.model.container import EndpointIpamConfig, EndpointSettings


def ping(sandbox: Path, address: str, wait_s: float = 5) -> bool:
    command = ["nsenter", f"--net={sandbox}", "busybox", "ping", "-c1", f"-W{wait_s}", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def links(sandbox: Path) -> dict[str, rtnetlink.Link]:
    def inside() -> list[rtnetlink.Link]:
        with NetlinkSocket() as handle:
            return rtnetlink.list_links(handle)

    return {link.name: link for link in run_in_netns(sandbox, inside)}


def gateways(sandbox: Path) -> str:
    command = ["nsenter", f"--net={sandbox}", "ip", "-4", "route", "show", "default"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def addresses(sandbox: Path, interface: str) -> list[str]:
    def inside() -> list[str]:
        with NetlinkSocket() as handle:
            index = rtnetlink.get_link(handle, interface).index
            return [str(a) for i, a in rtroutes.list_addresses(handle) if i == index]

    return run_in_netns(sandbox, inside)


def default_route(sandbox: Path, version: int) -> str:
    command = ["nsenter", f"--net={sandbox}", "ip", f"-{version}", "route", "show", "default"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_child(script: str, root: Path, failpoints: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env={**os.environ, "ESTIBA_FAILPOINTS": failpoints},
        capture_output=True,
        text=True,
        check=False,
    )


def fixed(address: str, **more: object) -> EndpointSettings:
    return EndpointSettings(ipam_config=EndpointIpamConfig(ipv4_address=address), **more)  # type: ignore[arg-type]
