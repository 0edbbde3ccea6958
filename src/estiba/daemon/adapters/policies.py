"""Policies of networks for the API: what is said, what it has met, and what would pass."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

import msgspec

from estiba.containers.engine import Engine
from estiba.containers.validate import check_egress
from estiba.kernel import rtroutes
from estiba.kernel.blocking import run_blocking
from estiba.kernel.netlink import NetlinkSocket
from estiba.network.networks import Networks
from estiba.network.policy import drawing
from estiba.network.policy.egress import OPTION, Address, parse_egress
from estiba.network.policy.explain import Explanation, explain
from estiba.network.policy.graph import build_graph
from estiba.network.policy.hostgate import HostGate
from estiba.network.policy.policies import Policies
from estiba.network.policy.rules import OPEN, parse_policy
from estiba.network.policy.world import World, resolve, split_target

Json = dict[str, Any]
_DRAWN = {"text": drawing.to_text, "dot": drawing.to_dot, "svg": drawing.to_svg}


@dataclass(slots=True)
class PolicyAdapter:
    """`api.ports.Policies`."""

    policies: Policies
    networks: Networks
    engine: Engine

    async def explain(self, source: str, target: str) -> Json:
        return await run_blocking(self._explain, source, target)

    def _explain(self, source: str, target: str) -> Json:
        """Asks the host's firewall by a packet, which takes its time."""
        who, service = split_target(target)
        world = self._world()
        return _explanation(explain(world, resolve(world, source), resolve(world, who), service))

    async def graph(self, form: str) -> Json | str:
        return await run_blocking(self._graph, form)

    def _graph(self, form: str) -> Json | str:
        graph = build_graph(self._world())
        draw = _DRAWN.get(form)
        if draw is not None:
            return draw(graph)
        view: Json = msgspec.to_builtins(graph)
        return view

    def _world(self) -> World:
        records = self.networks.networks()
        endpoints = [one for record in records for one in self.networks.endpoints(record.id)]
        return World(
            networks={record.id: record for record in records},
            endpoints=endpoints,
            state=self.policies.overview(records, endpoints),
            host_addresses=_host_addresses(),
            links=self.networks.firewall.links(),
            user_rules=len(self.networks.firewall.user_rules("user-forward")),
            known=self.policies.known,
            host_verdict=HostGate(self.networks.firewall),
        )

    async def show(self, ref: str) -> Json:
        network = self.networks.network(ref)
        policy = self.policies.policy(network.id)
        view = self.policies.view(network)
        counts = await run_blocking(self.policies.counts)
        return {
            "Network": network.name,
            "Id": network.id,
            "Text": "\n".join(policy.lines()) + "\n",
            "Default": "closed" if policy.closed else "open",
            "Rules": [str(rule) for rule in policy.rules],
            "Egress": "open" if view.egress is None else str(view.egress),
            "Counters": [
                {
                    "Container": count.point.member.name,
                    "ContainerId": count.point.member.container_id,
                    "Direction": count.point.direction,
                    "Rule": count.point.rule,
                    "Denies": count.point.denies,
                    "Packets": count.packets,
                    "Bytes": count.size_bytes,
                }
                for count in counts
                if count.point.member.network_id == network.id
            ],
        }

    async def set(self, ref: str, text: str) -> None:
        network = self.networks.network(ref)
        await run_blocking(self.policies.set_policy, network, parse_policy(text))

    async def remove(self, ref: str) -> None:
        network = self.networks.network(ref)
        await run_blocking(self.policies.set_policy, network, OPEN)

    async def set_egress(self, container: str, text: str) -> list[str]:
        """The record first, so that a crash in between leaves what was asked for."""
        actor = self.engine.find(container)
        egress = parse_egress(text)
        check_egress(text, actor.record.host_config.network_mode)
        before = actor.record.host_config.annotations.get(OPTION, "")
        await actor.annotate(OPTION, "" if egress is None else str(egress))
        try:
            await run_blocking(self.policies.refresh, actor.record.id)
        except BaseException:
            await actor.annotate(OPTION, before)
            raise
        return self._warnings(actor.record.id) if egress and egress.has_names else []

    def _warnings(self, container_id: str) -> list[str]:
        records = {record.id: record for record in self.networks.networks()}
        return [
            f"network {records[endpoint.network_id].name} has no name service: the container's "
            "names are seen from its next start on"
            for network_id in records
            for endpoint in self.networks.endpoints(network_id)
            if endpoint.container_id == container_id and not records[network_id].has_names
        ]


def _host_addresses() -> list[Address]:
    with NetlinkSocket() as handle:
        found = rtroutes.list_addresses(handle)
    return [ip_interface(address).ip for _, address in found]


def _explanation(found: Explanation) -> Json:
    return {
        "From": found.source,
        "To": found.target,
        "Protocol": found.service.protocol,
        "Port": found.service.low,
        "Passes": found.passes,
        "Rule": found.rule,
        "Steps": [{"At": s.at, "Text": s.text, "Passes": s.passes} for s in found.steps],
    }
