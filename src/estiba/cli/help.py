"""The overviews that `estiba --help` and `estiba GROUP --help` print."""

from __future__ import annotations

from estiba.cli import commands
from estiba.cli.parse import Flag, flag_lines

_COMMON = (
    "run", "exec", "ps", "images", "pull", "push", "logs", "stop", "rm", "login", "version", "info",
)  # fmt: skip
_GROUPS = {"builder": "Build images, manage the build cache"}


def overview(flags: list[Flag]) -> str:
    short = {name: commands.find([name])[0] for name in (*commands.SHORT, *commands.TOP)}
    lines = ["Usage:  estiba [OPTIONS] COMMAND", "", "Containers, images, networks and volumes."]

    def listed(title: str, names: list[str]) -> None:
        lines.extend(["", f"{title}:"])
        for name in names:
            command = short[name]
            lines.append(f"  {name:<12}{command.help if command else ''}")

    listed("Common Commands", list(_COMMON))
    lines += ["", "Management Commands:"]
    lines += [
        f"  {name:<12}{_GROUPS.get(name, f'Manage {name}s')}"
        for name in commands.GROUPS
        if name not in ("system", "buildx")
    ]
    lines.append("  system      Manage the engine")
    listed("Commands", sorted(set(short) - set(_COMMON)))
    lines += ["", "Global Options:", *flag_lines(flags)]
    lines += ["", "Run 'estiba COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def group_overview(name: str) -> str:
    group = commands.GROUPS[name]
    lines = [f"Usage:  estiba {name} COMMAND", "", "Commands:"]
    lines += [f"  {key:<12}{group[key].help}" for key in sorted(group)]
    lines += ["", f"Run 'estiba {name} COMMAND --help' for more information on a command."]
    return "\n".join(lines)
