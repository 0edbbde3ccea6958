"""A private host whose networks have policies, and what its tests ask of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kernel.network.private_host import Host

from estiba.kernel.netns import run_in_netns
from estiba.network.networks import Networks
from estiba.network.policy.policies import Facts, Policies
from estiba.network.policy.rules import parse_policy
from estiba.network.record import Endpoint, NetworkRecord, NetworkSpec

QUIET_S = 0.4
"""A packet that has not been answered by then was dropped."""


@dataclass
class GuardedHost(Host):
    """`facts` are what the engine would know of containers."""

    policies: Policies = field(kw_only=True)
    facts: dict[str, Facts] = field(default_factory=dict)

    def make(self, name: str, **options: object) -> NetworkRecord:
        return self.networks.create(NetworkSpec(name=name, **options))  # type: ignore[arg-type]

    def allow(self, network: str, text: str) -> None:
        self.policies.set_policy(self.networks.network(network), parse_policy(text))

    def join(self, name: str, network: str, **wanted: object) -> Endpoint:
        return self.attach(name, network, **wanted)

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
        """Whether a server at `address` answers."""
        try:
            self.ask(where, address, port, kind, timeout_s=wait_s)
        except OSError:
            return False
        return True

    def refusal(self, where: Path | None, address: str, port: int) -> str:
        """How a connection fails."""

        def call() -> str:
            with socket.socket() as client:
                client.settimeout(QUIET_S)
                try:
                    client.connect((address, port))
                except OSError as error:
                    return type(error).__name__ + ": " + str(error)
            return ""

        return call() if where is None else run_in_netns(where, call)
