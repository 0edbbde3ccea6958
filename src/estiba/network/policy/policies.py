"""The policies in force: who is connected, what is said of them, and the ruleset made of both.

Memory is the truth. Every change computes the whole content and writes the difference in one
transaction; when the firewall writes its table anew it asks for all of it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from estiba.kernel import conntrack, failpoint
from estiba.kernel.nflog import PacketLog
from estiba.kernel.nft import Nft
from estiba.model.errors import Conflict, EstibaError, FailedPrecondition
from estiba.model.event import Event
from estiba.network.firewall.policy import PolicyText
from estiba.network.firewall.table import Firewall
from estiba.network.plan import OPTION_ANTI_SPOOFING, parse_truth
from estiba.network.policy import carried, stored
from estiba.network.policy.compile import Compiled, Count, Point, compile_state
from estiba.network.policy.denials import Denials, open_log
from estiba.network.policy.egress import OPTION, Address, parse_egress
from estiba.network.policy.flows import Flows
from estiba.network.policy.members import (
    Facts,
    Member,
    NetworkView,
    State,
    member_of,
    view_of,
)
from estiba.network.policy.names import Names
from estiba.network.policy.roll import Roll
from estiba.network.policy.rules import OPEN, NetworkPolicy
from estiba.network.policy.ruleset import difference, render
from estiba.network.record import Endpoint, NetworkRecord
from estiba.store import Store

_log = logging.getLogger(__name__)


class Policies:
    """Observer of endpoints, source of the firewall's chains, judge of names.

    `bind` it to the firewall before that starts. All methods may be called from any thread.
    """

    def __init__(
        self,
        store: Store,
        facts: Callable[[str], Facts] = lambda container_id: Facts(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._facts = facts
        self._nft = Nft()
        self._log: PacketLog | None = None
        self._policies: dict[str, NetworkPolicy] = {}
        self._names = Names(clock)
        self._roll = Roll(self._names.forget)
        self._counts: dict[str, tuple[int, int]] = {}
        self._compiled = Compiled()
        self._is_swept = False

    # -- life --------------------------------------------------------------------------------

    def bind(self, firewall: Firewall) -> None:
        """Reads what is stored, and becomes the firewall's source of policies.

        A record that cannot be read closes its network.
        """
        self._firewall = firewall
        self._names.table = firewall.table
        self._policies = stored.load(self._store)
        denials = Denials(self.point, self._roll.name_of, self._emit)
        self._log = open_log(firewall.table, denials)
        self._compiled = self._compile(State())
        firewall.set_policy(self)

    def close(self) -> None:
        """Lets go of the ruleset and leaves it in force."""
        if self._log is not None:
            self._log.close()
            self._log = None
        self._nft.close()

    # -- endpoints ---------------------------------------------------------------------------

    def joining(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """The rules are there before the link: the container's program may be running already."""
        self.joined(network, endpoint)
        self._disinherit(endpoint)

    def _disinherit(self, endpoint: Endpoint) -> None:
        """What goes on of who had an address before is nothing that a container with rules may
        go on with.
        """
        with self._firewall.lock:
            member = self._roll.get((endpoint.container_id, endpoint.network_id))
            if member is None:
                return
            strange = self._roll.own(member)
            has_rules = _has_rules(self.view(self._roll.network(member.network_id)), member)
        if strange and has_rules:
            try:
                conntrack.forget_flows_of(strange)
            except OSError as error:
                _log.warning("connections of who had %s before may go on: %s", strange, error)

    def joined(self, network: NetworkRecord, endpoint: Endpoint) -> None:
        """Raises FailedPrecondition where a policy could not be kept."""
        with self._firewall.lock:
            changed = self._note(network, endpoint) and self._apply()
        failpoint.hit("network.policy-applied")
        if changed and self._facts(endpoint.container_id).runs:
            # What it may not go on with: it has another name perhaps, or another's address.
            self._cut()

    def left(self, endpoint: Endpoint) -> None:
        """It stays guarded: its link is there, and a renamed one comes back at once."""
        with self._firewall.lock:
            if self._roll.leave((endpoint.container_id, endpoint.network_id)):
                self._apply()

    def adopted(self, endpoints: Sequence[tuple[NetworkRecord, Endpoint]]) -> None:
        """Before the firewall writes its table anew; what an earlier engine's knows is kept."""
        with self._firewall.lock:
            for network, endpoint in endpoints:
                try:
                    self._note(network, endpoint)
                except EstibaError as error:
                    _log.error("container %s: %s", endpoint.container_name, error)
            state = self.state()
            for member in state.members:
                self._roll.own(member)
            self._compiled = self._compile(state)
            self._names.settle(state)
            self._names.recall(state, self._nft)

    def removed(self, network: NetworkRecord) -> None:
        with self._firewall.lock:
            if self._roll.remove_network(self.view(network)):
                self._apply()
            known = self._policies.pop(network.id, None)
        if known is not None:
            self._store.commit_blocking(partial(stored.forget, network_id=network.id), durable=True)

    def sweep(self, networks: Collection[str]) -> None:
        """Forgets policies of networks that are no more: an engine died between the two."""
        with self._firewall.lock:
            gone = [each for each in self._policies if each not in networks]
            for each in gone:
                del self._policies[each]
        for each in gone:
            self._store.commit_blocking(partial(stored.forget, network_id=each), durable=True)

    def _note(self, network: NetworkRecord, endpoint: Endpoint) -> bool:
        """Whether that is news."""
        if network.driver == "null":
            return False
        facts = self._facts(endpoint.container_id)
        member = member_of(network, endpoint, facts.labels, parse_egress(facts.egress))
        self._check(network, member)
        return bool(member.link) and self._roll.enter(network, member)

    def _check(self, network: NetworkRecord, member: Member) -> None:
        """Raises FailedPrecondition or Conflict where a policy could not be kept."""
        view = self.view(network)
        if not _has_rules(view, member):
            return
        if not (member.link and network.bridge):
            raise FailedPrecondition(
                f"network {network.name} ({network.driver}) does not pass the engine's firewall, "
                f"so that the policy of {member.name} could not be kept: use a bridge network"
            )
        if not parse_truth(network.options, OPTION_ANTI_SPOOFING, default=True):
            raise FailedPrecondition(
                f"containers of network {network.name} may pretend to be others "
                f"({OPTION_ANTI_SPOOFING}=false), so that no policy could be kept there"
            )
        twin = self._roll.twin(member)
        if twin is not None:
            raise Conflict(
                f"container {twin.name} has the MAC address {member.mac} too, so that the "
                f"policy of {member.name} could not be kept: give it another"
            )

    # -- what is said ------------------------------------------------------------------------

    def policy(self, network_id: str) -> NetworkPolicy:
        return self._policies.get(network_id, OPEN)

    def set_policy(self, network: NetworkRecord, policy: NetworkPolicy) -> None:
        """In force, and kept, when this returns; OPEN takes it away.

        Raises FailedPrecondition for a network that does not pass the firewall.
        """
        if policy != OPEN and not network.bridge:
            raise FailedPrecondition(
                f"network {network.name} ({network.driver}) does not pass the engine's firewall: "
                "policies need a bridge network"
            )
        with self._firewall.lock:
            before = self.policy(network.id)
            self._put(network.id, policy)
            try:
                self._apply()
                failpoint.hit("network.policy-set")
                self._store.commit_blocking(
                    lambda tx: stored.write(tx, network, policy), durable=True
                )
            except BaseException:
                self._put(network.id, before)
                with contextlib.suppress(EstibaError):
                    self._apply()
                raise
        self._cut()

    def _put(self, network_id: str, policy: NetworkPolicy) -> None:
        if policy == OPEN:
            self._policies.pop(network_id, None)
        else:
            self._policies[network_id] = policy

    def refresh(self, container_id: str) -> None:
        """The container's labels or its list have changed. Raises as `joined` does."""
        facts = self._facts(container_id)
        egress = parse_egress(facts.egress)
        with self._firewall.lock:
            before = self._roll.relabel(container_id, facts.labels, egress)
            try:
                self._apply()
            except BaseException:
                self._roll.put(before)
                raise
        self._cut()

    def _cut(self) -> None:
        """Ends what goes on although it may not any more. What names were learnt is kept: a
        connection outlives the time of its name's answer.
        """
        flows = Flows(self.state(), self._names.ever)
        try:
            conntrack.forget_flows(flows.is_denied)
        except OSError as error:
            _log.warning("connections that policies deny by now may go on: %s", error)

    def state(self) -> State:
        with self._firewall.lock:
            views = {network.id: self.view(network) for network in self._roll.networks()}
            return State(views, self._roll.members())

    def overview(self, networks: Sequence[NetworkRecord], endpoints: Sequence[Endpoint]) -> State:
        """All of them, guarded or not: what `explain` looks at."""
        records = {network.id: network for network in networks}
        members = []
        for endpoint in endpoints:
            if not endpoint.host_interface or endpoint.network_id not in records:
                continue
            facts = self._facts(endpoint.container_id)
            egress = parse_egress(facts.egress)
            network = records[endpoint.network_id]
            members.append(member_of(network, endpoint, facts.labels, egress))
        with self._firewall.lock:
            return State({n.id: self.view(n) for n in networks}, tuple(members))

    def view(self, network: NetworkRecord) -> NetworkView:
        """The network with what is said of it."""
        policy = self.policy(network.id)
        text = network.options.get(OPTION, "") if policy.egress is None else policy.egress
        return view_of(network, policy, parse_egress(text))

    # -- names -------------------------------------------------------------------------------

    def watches(self, container_id: str) -> bool:
        """Its list, or its networks': its questions must be seen."""
        if parse_egress(self._facts(container_id).egress) is not None:
            return True
        return self._names.is_watched(container_id)

    def allows(self, container_id: str, name: str) -> bool:
        """A name outside may be asked for if the container's list and its networks' have it."""
        return self._names.allows(container_id, name)

    def answered(
        self, container_id: str, name: str, addresses: Sequence[Address], ttl_s: int
    ) -> None:
        """Lets the addresses through before the container hears of them. Raises Internal."""
        if not self._names.is_watched(container_id):
            return
        with self._firewall.lock:
            commands = self._names.learn(
                self.state(), self._compiled, container_id, name, addresses, ttl_s
            )
            if commands:
                self._firewall.change("\n".join(commands))

    def known(self, container_id: str, host: str) -> Collection[Address]:
        """Addresses that the container was told for a name or a pattern of its list."""
        with self._firewall.lock:
            return self._names.known(container_id, host)

    # -- the ruleset -------------------------------------------------------------------------

    def _compile(self, state: State) -> Compiled:
        return compile_state(state, self._log.group if self._log is not None else 0)

    def _apply(self) -> bool:
        """Writes what differs; returns whether anything does. Call it with the lock held."""
        state = self.state()
        before, now = self._compiled, self._compile(state)
        table = self._firewall.table
        commands = difference(before.inet, now.inet, f"inet {table}")
        commands += difference(before.bridge, now.bridge, f"bridge {table}")
        self._compiled = now
        self._names.settle(state)
        commands += self._names.fill(state, before, now)
        commands += self._litter()
        if not commands:
            return False
        try:
            self._firewall.change("\n".join(commands))
        except BaseException:
            self._compiled = before
            raise
        return True

    def _litter(self) -> list[str]:
        """Counters of containers that left while no engine ran; looked for once."""
        if self._is_swept:
            return []
        self._is_swept = True
        known = {point.counter for point in self._compiled.points.values()}
        return [
            f"delete counter {family} {self._firewall.table} {name}"
            for family in carried.FAMILIES
            for name in carried.counters(self._nft, self._firewall.table, (family,))
            if name.startswith("policy_x_") and name not in known
        ]

    def render(self) -> PolicyText:
        """All of it, with counters as they stood and answers that are awaited."""
        table = self._firewall.table
        self._counts.update(carried.counters(self._nft, table))
        known = {point.counter for point in self._compiled.points.values()}
        self._counts = {name: count for name, count in self._counts.items() if name in known}
        flows = carried.flows(self._nft, table)
        sets, chains = render(self._compiled.inet, self._counts, self._names.elements(self.state()))
        bridge_sets, bridge_chains = render(self._compiled.bridge, {}, flows)
        return PolicyText(sets, chains, bridge_sets, bridge_chains)

    # -- what was met ------------------------------------------------------------------------

    def counts(self) -> list[Count]:
        """All rules that are in force, and what they have met since the container joined."""
        with self._firewall.lock:
            points = [
                point
                for point in self._compiled.points.values()
                if not self._roll.is_leaving(point.member)
            ]
            found = carried.counters(self._nft, self._firewall.table)
        zero = (0, 0)
        return [Count(point, *found.get(point.counter, zero)) for point in points]

    def point(self, tag: str) -> Point | None:
        """The rule that a logged packet names."""
        return self._compiled.points.get(tag)

    def _emit(self, event: Event) -> None:
        with contextlib.suppress(EstibaError):
            self._store.commit_blocking(lambda tx: tx.add_event(event))


def _has_rules(view: NetworkView, member: Member) -> bool:
    return view.policy.guards or view.egress is not None or member.egress is not None
