"""Connections under way that a policy denies by now. Pure.

The gates of the inet family see the first packet of a connection alone: when less is allowed
than before, what has begun must be looked at. Who is forgotten begins anew, and is judged.
"""

from __future__ import annotations

from ipaddress import ip_address

from estiba.kernel.conntrack import Flow
from estiba.network.policy import decide
from estiba.network.policy.decide import Destination, Known, Source
from estiba.network.policy.egress import Address
from estiba.network.policy.members import Member, State

_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}


class Flows:
    """Judges flows by one state."""

    def __init__(self, state: State, known: Known) -> None:
        self._state = state
        self._known = known
        self._by_address: dict[Address, Member] = {
            address: member for member in state.members for address in member.addresses
        }
        self._gateways = {a for view in state.networks.values() for a in view.gateways}

    def is_denied(self, flow: Flow) -> bool:
        protocol = _NAMES.get(flow.protocol, str(flow.protocol))
        member = self._by_address.get(flow.source)
        if member is not None and self._may_not_leave(member, flow, protocol):
            return True
        target = self._by_address.get(flow.answers)
        if target is None:
            return False
        local = flow.source in self._gateways or flow.source.is_loopback
        source = Source(member, is_host=local, address=flow.source)
        view = self._state.networks[target.network_id]
        verdict = decide.ingress(view, target, source, protocol, flow.answering_port)
        return verdict is not None and not verdict.passes

    def _may_not_leave(self, member: Member, flow: Flow, protocol: str) -> bool:
        view = self._state.networks[member.network_id]
        if view.is_neighbour(flow.asked) or flow.asked.is_multicast:
            return False
        if flow.asked == ip_address("255.255.255.255"):
            return False
        where = Destination(flow.asked)
        verdicts = decide.egress(view, member, where, protocol, flow.asked_port, self._known)
        return any(not verdict.passes for verdict in verdicts)
