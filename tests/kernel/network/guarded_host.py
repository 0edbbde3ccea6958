"""A private host whose networks have policies, and what its tests ask of it."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from tests.kernel.network.private_host import HOST_ADDRESS, Host

from estiba.kernel.netns import run_in_netns
from estiba.network.dns.upstream import Wishes
from estiba.network.networks import Networks
from estiba.network.policy.hostgate import HostGate
from estiba.network.policy.members import Facts
from estiba.network.policy.policies import Policies
from estiba.network.policy.rules import parse_policy
from estiba.network.policy.world import World
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec

PATIENT_S = 5.0
TALK_S = 2.0
QUIET_S = 0.4
"""A packet that has not been answered by then was dropped."""


@dataclass
class GuardedHost(Host):
    """`facts` are what the engine would know of containers, `wishes` what their names are asked
    of where there is a name service.
    """

    policies: Policies = field(kw_only=True)
    facts: dict[str, Facts] = field(default_factory=dict)
    wishes: dict[str, Wishes] = field(default_factory=dict)
    joined: list[Endpoint] = field(default_factory=list)

    def make(self, name: str, **options: object) -> NetworkRecord:
        return self.networks.create(NetworkSpec(name=name, **options))  # type: ignore[arg-type]

    def allow(self, network: str, text: str) -> None:
        self.policies.set_policy(self.networks.network(network), parse_policy(text))

    def join(self, name: str, network: str, **wanted: object) -> Endpoint:
        endpoint = self.attach(name, network, **wanted)
        self.joined.append(endpoint)
        return endpoint

    def confine(self, name: str, egress: str) -> None:
        known = self.facts.get(name, Facts())
        self.facts[name] = replace(known, egress=egress)
        self.policies.refresh(name)

    def again(self, **changes: object) -> Networks:
        self.networks.stop()
        self.policies.close()
        self.policies = Policies(self.store, lambda name: self.facts.get(name, Facts()))
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        self.networks = Networks(config, self.store, (self.policies,))
        self.policies.bind(self.networks.firewall)
        self.networks.start()
        return self.networks

    def box(self, name: str) -> Path:
        return self.networks.sandbox_path(name)

    def listen(self, where: Path | None, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Both families; answers with the address that the packet came from."""
        self.serve(where, port, kind)

    def passes(
        self,
        where: Path | None,
        address: str,
        port: int,
        kind: int = socket.SOCK_STREAM,
        wait_s: float = QUIET_S,
    ) -> bool:
        """Whether a server at `address` answers at once; see `reaches`."""
        try:
            self.ask(where, address, port, kind, timeout_s=wait_s)
        except OSError:
            return False
        return True

    def refusal(self, where: Path | None, address: str, port: int) -> str:
        """How a connection fails that is to be refused: by a timeout if nobody does."""

        def call() -> str:
            with socket.socket() as client:
                client.settimeout(PATIENT_S)
                try:
                    client.connect((address, port))
                except OSError as error:
                    return type(error).__name__ + ": " + str(error)
            return ""

        return call() if where is None else run_in_netns(where, call)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Of live containers, as the engine's records would have them after a restart."""
        return [one for one in self.joined if self.box(one.container_id).exists()]

    def counts(self) -> bool:
        """Whether the ruleset has the rules' counters."""
        listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True)
        return "counter name" in listed.stdout

    def world(self) -> World:
        records = self.networks.networks()
        endpoints = [one for record in records for one in self.networks.endpoints(record.id)]
        return World(
            networks={record.id: record for record in records},
            endpoints=endpoints,
            state=self.policies.overview(records, endpoints),
            host_addresses=[ip_address(HOST_ADDRESS)],
            links=self.networks.firewall.links(),
            known=self.policies.known,
            host_verdict=HostGate(self.networks.firewall),
        )


class Conversation:
    """A TCP connection between two namespaces that stays open."""

    def __init__(self, client: Path, server: Path, address: str) -> None:
        self._client, self._server, self._address = client, server, address

    def __enter__(self) -> Self:
        listener = run_in_netns(self._server, lambda: socket.create_server(("0.0.0.0", 7777)))
        with listener:
            self._near = run_in_netns(
                self._client, lambda: socket.create_connection((self._address, 7777), PATIENT_S)
            )
            self._far, _ = listener.accept()
        self._wait_at_most(PATIENT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._near.close()
        self._far.close()

    def _wait_at_most(self, seconds: float) -> None:
        for each in (self._near, self._far):
            each.settimeout(seconds)

    def is_cut(self) -> bool:
        """Nothing comes any more."""
        self._wait_at_most(TALK_S)
        return not self.goes_on()

    def goes_on(self) -> bool:
        """A question, and an answer that is long in coming."""
        try:
            self._near.sendall(b"?")
            self._far.recv(1)
        except OSError:
            return False
        return self.is_answered()

    def is_answered(self) -> bool:
        try:
            self._far.sendall(b"!" * 100_000)
            left = 100_000
            while left:
                left -= len(self._near.recv(left))
        except OSError:
            return False
        return True
