"""Who may talk to whom: `network policy`, `network explain`, `network graph`, and `--egress`."""

from __future__ import annotations

import sys

from estiba.cli.output import align, shown_on
from estiba.cli.parse import Arguments, UsageError
from estiba.client.http import Client, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMATS = ("text", "dot", "svg", "json")
_MAX_FILE = 1 << 20


def policy(client: Client, given: Arguments) -> int:
    verb, network, *files = given.words
    url = f"/networks/{part(network)}/policy"
    if verb == "show" and not files:
        return _show(client.get(url), given.format)
    if verb == "rm" and not files:
        client.delete(url)
        return 0
    if verb == "set" and len(files) < 2:
        client.call("PUT", url, None, {"Text": _text(given, files)}).read()
        return 0
    raise UsageError("network policy: set NETWORK [FILE], show NETWORK or rm NETWORK")


def _text(given: Arguments, files: list[str]) -> str:
    """The policy from a file, standard input, or flags."""
    flags = [f"default {given.default}"] if given.default else []
    flags += [*given.rule, *(f"egress {text}" for text in given.egress)]
    if flags and files:
        raise UsageError("network policy set: give a file, or --default, --rule and --egress")
    if flags:
        return "\n".join(flags)
    name = files[0] if files else "-"
    if name == "-":
        return sys.stdin.read(_MAX_FILE)
    try:
        with open(name, encoding="utf-8") as file:
            return file.read(_MAX_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the policy {name}: {error}") from error


def _show(view: dict[str, Any], form: str) -> int:
    if form == "json":
        _print_json(view)
        return 0
    if form:
        raise UsageError("network policy show: --format takes json")
    for line in view["Text"].splitlines():
        print(shown_on(sys.stdout, line))
    rows = [
        (
            count["Container"],
            count["Direction"],
            "deny" if count["Denies"] else "allow",
            str(count["Packets"]),
            str(count["Bytes"]),
            count["Rule"],
        )
        for count in view["Counters"]
    ]
    if rows:
        print()
        align([("CONTAINER", "DIRECTION", "VERDICT", "PACKETS", "BYTES", "RULE"), *rows])
    return 0


def explain(client: Client, given: Arguments) -> int:
    """Exit code 0 when the packet passes, 1 when it does not; 2 when it cannot be said."""
    source, target = given.words
    if given.format not in ("", "json"):
        raise UsageError("network explain: --format takes json", exit_code=2)
    view = client.get("/networks/explain", {"from": source, "to": target})
    if given.format == "json":
        _print_json(view)
    else:
        for step in view["Steps"]:
            mark = {True: "pass", False: "DENY", None: "    "}[step["Passes"]]
            print(shown_on(sys.stdout, f"{mark}  {step['At']}: {step['Text']}"))
        verdict = "passes" if view["Passes"] else "is denied"
        what = f"{view['Port']}/{view['Protocol']}" if view["Port"] else "ping"
        text = f"{source} → {target} ({what}) {verdict}: {view['Rule']}"
        print(shown_on(sys.stdout, text))
    return 0 if view["Passes"] else 1


def graph(client: Client, given: Arguments) -> int:
    form = given.format or "text"
    if form not in _FORMATS:
        raise UsageError(f"network graph: --format takes {', '.join(_FORMATS)}")
    response = client.call("GET", "/networks/graph", {"format": form})
    if form == "json":
        _print_json(response.json())
        return 0
    print(response.read().decode(), end="")
    return 0


def egress_of(lists: list[str]) -> dict[str, str]:
    """Several `--egress` as the one option of a network, or annotation of a container."""
    return {"estiba.egress": ",".join(lists)} if lists else {}


def set_egress(client: Client, container: str, lists: list[str]) -> list[str]:
    body = {"Egress": ",".join(lists)}
    answer = client.call("PUT", f"/containers/{part(container)}/egress", None, body).json()
    return answer.get("Warnings") or []


def _print_json(view: Any) -> None:
    import json

    print(json.dumps(view, indent=4, ensure_ascii=False))
