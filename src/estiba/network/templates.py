"""Configuration networks: templates that networks are made from. Pure."""

from __future__ import annotations

import msgspec

from estiba.model.errors import Forbidden
from estiba.network.record import NetworkRecord, NetworkSpec


def check_template(spec: NetworkSpec) -> None:
    """Raises Forbidden, in Docker's words, for what a template or its user may not say."""
    if spec.config_only:
        if spec.internal or spec.attachable:
            raise Forbidden(
                "configuration network can only contain network specific fields. Network operator "
                "fields like [ ingress | internal | attachable | scope ] are not supported."
            )
        if spec.config_from:
            raise Forbidden(
                "a configuration network cannot depend on another configuration network"
            )
    if not spec.config_from:
        return
    chosen = spec.enable_ipv6 or spec.labels or spec.pools or spec.ipam_options
    if chosen or spec.ipam_driver != "default":
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    if spec.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a configuration "
            "network"
        )


def check_no_template(network: NetworkRecord) -> None:
    """Raises Forbidden, in Docker's words, where a container is to join a template."""
    if network.config_only:
        raise Forbidden("cannot create endpoint on configuration-only network")


def plan_template(network_id: str, spec: NetworkSpec, created_ns: int) -> NetworkRecord:
    return NetworkRecord(
        id=network_id,
        name=spec.name,
        driver="null",
        created_ns=created_ns,
        ipv4=spec.enable_ipv4,
        ipv6=spec.enable_ipv6,
        ipam_driver=spec.ipam_driver,
        ipam_options=spec.ipam_options,
        pools=spec.pools,
        asked_pools=spec.pools,
        options=spec.options,
        labels=spec.labels,
        config_only=True,
    )


def from_template(spec: NetworkSpec, template: NetworkRecord) -> NetworkSpec:
    """What is asked for, with the settings of the template."""
    return msgspec.structs.replace(
        spec,
        config_from=template.name,
        enable_ipv4=template.ipv4,
        enable_ipv6=template.ipv6,
        ipam_driver=template.ipam_driver,
        ipam_options=template.ipam_options,
        pools=template.pools,
        options=template.options,
        labels=template.labels,
    )
