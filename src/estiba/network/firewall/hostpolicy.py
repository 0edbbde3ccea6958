"""stub"""

from __future__ import annotations

from estiba.network.firewall.hosttext import HostText


class HostPolicy:
    def __init__(self, table: str, *, obey: bool) -> None:
        self.text = HostText()

    def read(self) -> None: ...
    def reread(self) -> str:
        return ""

    def tick_s(self) -> float | None:
        return None

    def close(self) -> None: ...
