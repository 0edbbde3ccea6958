"""What the networks of an engine are told: its settings, and what policies ask of containers."""

from __future__ import annotations

from ipaddress import ip_network

from estiba.containers.engine import Engine
from estiba.daemon.config import DaemonConfig
from estiba.daemon.identity import engine_id
from estiba.network.ipam import AddressPool
from estiba.network.plan import NetworkConfig
from estiba.network.policy.egress import OPTION as EGRESS
from estiba.network.policy.members import Facts


def network_settings(config: DaemonConfig) -> NetworkConfig:
    """The daemon's settings, as the network package has them."""
    pools = tuple(AddressPool(ip_network(base), size) for base, size in config.address_pools)
    return NetworkConfig(
        netns_root=config.exec_root / "netns",
        bridge=config.bridge,
        bip=config.bip,
        bip6=config.bip6,
        fixed_cidr=config.fixed_cidr,
        fixed_cidr_v6=config.fixed_cidr_v6,
        ipv6=config.ipv6,
        ip_forward=config.ip_forward,
        pools=pools,
        engine_id=engine_id(config.data_root),
        mtu=config.mtu,
        icc=config.icc,
        masquerade=config.ip_masquerade,
        host_ip=config.host_binding_ip,
        publish_policy=config.publish_policy,
    )


def policy_facts(engine: Engine, container_id: str) -> Facts:
    """What policies ask of a container; steps of builds are none."""
    actor = engine.actors.get(container_id)
    if actor is None:
        return Facts()
    record = actor.record
    egress = record.host_config.annotations.get(EGRESS, "")
    return Facts(record.config.labels, egress, runs=record.state.is_up)
