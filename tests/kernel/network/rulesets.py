"""Rulesets as other firewalls load them, and the engine's copy of them."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.network.private_host import (
    run,
)
from tests.support.daemon import wait_until

CORPUS = Path(__file__).parents[2] / "support" / "firewalls"
TABLE = "estiba_estiba9"


def mirrored(*words: str) -> None:
    """Waits until the copy holds all these words."""

    def is_there() -> bool:
        text = run("nft", "list", "table", "inet", TABLE)
        return all(word in text for word in words)

    wait_until(is_there, what=f"the copy to hold {words}")


def load(name: str, mark: str) -> None:
    run("nft", "-f", str(CORPUS / name))
    mirrored(mark)


def load_ufw(place: Path, allow: tuple[int, ...], *, anew: bool = True) -> None:
    """As ufw-init does: its chains, its files, and what `ufw allow` writes."""
    for digit, program in ("", "iptables-nft-restore"), ("6", "ip6tables-nft-restore"):
        name = f"ufw{digit}"
        user = ["*filter", f":{name}-user-input -"]
        user += [f"-A {name}-user-input -p tcp --dport {port} -j ACCEPT" for port in allow]
        if anew:
            restore(place, program, ufw_chains(name))
            run(program, "-n", str(CORPUS / f"ufw-before{digit}.rules"))
            user.append(f"-A {name}-before-input -j {name}-user-input")
        restore(place, program, [*user, "COMMIT"])


def ufw_chains(name: str) -> list[str]:
    steps = ("before-logging", "before", "after", "after-logging", "reject", "track")
    chains = [f"{name}-{step}-input" for step in steps]
    log = "-m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix"
    return [
        "*filter",
        ":INPUT DROP",
        *(f":{chain} -" for chain in (*chains, f"{name}-logging-deny", f"{name}-user-input")),
        *(f"-A INPUT -j {chain}" for chain in chains),
        f'-A {name}-after-logging-input {log} "[UFW BLOCK] "',
        f'-A {name}-logging-deny {log} "[UFW BLOCK] "',
        "COMMIT",
    ]


def restore(place: Path, program: str, lines: list[str]) -> None:
    rules = place / "rules"
    rules.write_text("\n".join([*lines, ""]))
    run(program, "-n", str(rules))
