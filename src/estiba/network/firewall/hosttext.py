"""The chain `host`: what the host's own firewall says about a port, as text. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostText:
    """Sets and chains by name, each with its body; all names begin with `host`.

    The chain `host` is where a packet begins; what it does not refuse, it lets pass.
    """

    sets: dict[str, str] = field(default_factory=dict)
    """Bodies begin with `set`, `map`, `limit` or `quota`: see `declare`."""

    chains: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"  {head(name, body)} {{\n{rest(body)}\n  }}" for name, body in self.sets.items()]
        chains = self.chains or {"host": ""}
        parts += [f"  chain {name} {{\n{body}\n  }}" for name, body in chains.items()]
        return "\n".join(parts)

    def replace(self, table: str, new: HostText) -> str:
        """The commands that lead from this to `new`, in one transaction."""
        chains = list(self.chains or {"host": ""})
        lines = [f"flush chain inet {table} {name}" for name in chains]
        lines += [
            f"delete {body.partition(chr(10))[0]} inet {table} {name}"
            for name, body in self.sets.items()
        ]
        # The chain `host` is jumped to from outside, and the others only from here.
        lines += [f"delete chain inet {table} {name}" for name in chains if name != "host"]
        return "\n".join([*lines, f"table inet {table} {{", str(new), "}"])


def head(name: str, body: str) -> str:
    return f"{body.partition(chr(10))[0]} {name}"


def rest(body: str) -> str:
    return body.partition("\n")[2]
