"""A private host with a name service, and who asks it."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.network.askers import Outsider, says, told
from tests.kernel.network.private_host import OUTSIDE_ADDRESS, Host

from estiba.network.dns.service import NameService
from estiba.network.dns.upstream import HostResolver, Wishes
from estiba.network.record import Endpoint, NetworkSpec


class Policy:
    def __init__(self) -> None:
        self.watched: set[str] = set()
        self.denied: set[str] = set()
        self.heard: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    def watches(self, container_id: str) -> bool:
        return container_id in self.watched

    def allows(self, container_id: str, name: str) -> bool:
        return name not in self.denied

    def answered(self, container_id: str, name: str, addresses: object, ttl_s: int) -> None:
        self.heard.append((container_id, name, addresses, ttl_s))
        if self.error is not None:
            raise self.error


class Named:
    """The private host with a name service; `again` is another engine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.resolv_conf = host.root / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {OUTSIDE_ADDRESS}\n")
        self.wishes: dict[str, Wishes] = {}
        self.policy = Policy()
        self.names = self._start()
        self.endpoints: dict[tuple[str, str], Endpoint] = {}
        host.networks.create(NetworkSpec(name="net"))

    def _start(self) -> NameService:
        names = NameService(
            lambda owner: self.host.config.netns_root / owner,
            lambda owner: self.wishes.get(owner, Wishes()),
            policy=self.policy,
            host=HostResolver(self.resolv_conf),
        )
        self.host.observers[:] = [names]
        self.host.again()
        return names

    def again(self) -> None:
        """Another engine, to which the containers are handed over."""
        self.names.close()
        self.names = self._start()
        self.host.networks.restore(self.endpoints.values())

    def join(self, container_id: str, network: str = "net", **wanted: object) -> Endpoint:
        endpoint = self.host.attach(container_id, network, **wanted)
        self.endpoints[container_id, network] = endpoint
        return endpoint

    def leave(self, container_id: str, network: str = "net") -> None:
        self.host.networks.disconnect(container_id, self.endpoints.pop((container_id, network)))

    def outsider(self, *lines: str, address: str = OUTSIDE_ADDRESS, **more: str) -> Outsider:
        return self.serve(says(*lines, **more), address)

    def serve(self, answer: object, address: str = OUTSIDE_ADDRESS, where: object = "") -> Outsider:
        place = self.host.outside if where == "" else where
        made = Outsider(place, address, answer)  # type: ignore[arg-type]
        self.host.stack.callback(made.close)
        return made

    def told(self, container_id: str, name: str, kind: str = "A", **more: object) -> str:
        return told(self.sandbox(container_id), name, kind, **more)

    def sandbox(self, container_id: str) -> Path:
        return self.host.networks.sandbox_path(container_id)

    def close(self) -> None:
        self.names.close()
