"""Every command of `estiba`, as data. Nothing is imported until a command is used."""

from __future__ import annotations

from estiba.cli.parse import Command, Flag

_FILTER = Flag("-f --filter LIST…", "filter the output (key=value)")
_FORMAT = Flag("--format TEMPLATE", "a Go template, `table TEMPLATE` or json")
_QUIET = Flag("-q --quiet", "only ids")
_NO_TRUNC = Flag("--no-trunc", "do not shorten the output")
_FORCE = Flag("-f --force", "without asking")
_KEYS = Flag("--detach-keys KEYS", "key sequence to detach")


def _run(name: str) -> Command:
    from estiba.cli.runflags import FLAGS, RUN_ONLY

    flags = (*FLAGS, *RUN_ONLY) if name == "run" else FLAGS
    what = "Create and run a new container" if name == "run" else "Create a new container"
    usage = f"{name} [OPTIONS] IMAGE [COMMAND] [ARG...]"
    return Command(usage, what, flags, f"run:{name}", least=1, interspersed=False)


def _one(usage: str, help: str, function: str, *flags: Flag) -> Command:
    return Command(usage, help, flags, function, least=1, most=1)


def _many(usage: str, help: str, function: str, *flags: Flag) -> Command:
    return Command(usage, help, flags, function, least=1)


def _none(usage: str, help: str, function: str, *flags: Flag) -> Command:
    return Command(usage, help, flags, function, most=0)


_LOGS = (
    Flag("--details", "show extra details"),
    Flag("-f --follow", "follow the output"),
    Flag("--since TIME", "since a time (2013-01-02T13:23:37Z) or a duration (42m)"),
    Flag("-n --tail N", "lines from the end"),
    Flag("-t --timestamps", "show timestamps"),
    Flag("--until TIME", "before a time or duration"),
    Flag("--truncate", "throw away what has been logged so far"),
)
_EXEC = (
    Flag("-d --detach", "run in the background"),
    _KEYS,
    Flag("-e --env LIST…", "environment variables"),
    Flag("--env-file LIST…", "files of environment variables"),
    Flag("-i --interactive", "keep STDIN open"),
    Flag("--privileged", "all privileges"),
    Flag("-t --tty", "allocate a terminal"),
    Flag("-u --user NAME", "name or uid[:group or gid]"),
    Flag("-w --workdir PATH", "working directory"),
)
_UPDATE = (
    Flag("--blkio-weight N", "block IO weight"),
    Flag("--cpu-period N", "CPU CFS period, microseconds"),
    Flag("--cpu-quota N", "CPU CFS quota, microseconds"),
    Flag("-c --cpu-shares N", "CPU shares"),
    Flag("--cpus N", "number of CPUs"),
    Flag("--cpuset-cpus LIST", "CPUs to run on"),
    Flag("--cpuset-mems LIST", "memory nodes to use"),
    Flag("-m --memory BYTES", "memory limit"),
    Flag("--memory-reservation BYTES", "memory soft limit"),
    Flag("--memory-swap BYTES", "memory and swap"),
    Flag("--pids-limit N", "limit of processes"),
    Flag("--restart POLICY", "restart policy"),
)
_STOP = (
    Flag("-s --signal SIGNAL", "signal to send"),
    Flag("-t --timeout --time SECONDS", "seconds to wait before killing; -1 waits forever"),
)
_LS = (
    Flag("-a --all", "not only those that run"),
    _FILTER,
    _FORMAT,
    Flag("-n --last N", "the last N created"),
    Flag("-l --latest", "the latest created"),
    _NO_TRUNC,
    _QUIET,
    Flag("-s --size", "total sizes"),
)
_INSPECT = (Flag("-f --format TEMPLATE", "a Go template or json"), Flag("-s --size", "sizes too"))

CONTAINER: dict[str, Command] = {
    "attach": _one(
        "attach [OPTIONS] CONTAINER", "Attach to a running container", "run:attach",
        _KEYS, Flag("--no-stdin", "do not attach STDIN"), Flag("--sig-proxy BOOL", "pass signals"),
    ),
    "commit": Command(
        "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Make an image of a container's changes",
        (Flag("-a --author NAME", "author"), Flag("-c --change LIST…", "Dockerfile instruction"),
         Flag("-m --message TEXT", "message"), Flag("-p --pause BOOL", "pause meanwhile"),
         Flag("--no-pause", "do not pause meanwhile")),
        "containers:commit", 1, 2,
    ),
    "cp": Command(
        "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy between a container and the local file system",
        (Flag("-a --archive", "keep uid and gid"), Flag("-L --follow-link", "follow symlinks"),
         Flag("-q --quiet", "no progress")),
        "cp:copy", 2, 2,
    ),
    "diff": _one("diff CONTAINER", "Changes of a container's file system", "containers:diff"),
    "exec": Command(
        "exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a running container",
        _EXEC, "run:exec_", 2, None, False,
    ),
    "export": _one(
        "export [OPTIONS] CONTAINER", "A container's file system as a tar", "containers:export",
        Flag("-o --output FILE", "write to a file"),
    ),
    "inspect": _many("inspect [OPTIONS] CONTAINER...", "Details", "inspect:containers", *_INSPECT),
    "kill": _many(
        "kill [OPTIONS] CONTAINER...", "Signal containers", "containers:kill",
        Flag("-s --signal SIGNAL", "signal to send"),
    ),
    "logs": _one("logs [OPTIONS] CONTAINER", "A container's log", "containers:logs", *_LOGS),
    "ls": _none("ps [OPTIONS]", "List containers", "lists:ps", *_LS),
    "pause": _many("pause CONTAINER...", "Freeze containers", "containers:pause"),
    "port": Command("port CONTAINER [PORT[/PROTO]]", "Published ports", (), "containers:port", 1, 2),
    "prune": _none(
        "container prune [OPTIONS]", "Remove stopped containers", "containers:prune",
        _FORCE, Flag("--filter LIST…", "until=…, label=…"),
    ),
    "rename": Command("rename CONTAINER NEW_NAME", "Rename", (), "containers:rename", 2, 2),
    "restart": _many("restart [OPTIONS] CONTAINER...", "Restart", "containers:restart", *_STOP),
    "rm": _many(
        "rm [OPTIONS] CONTAINER...", "Remove containers", "containers:rm",
        Flag("-f --force", "kill it first"), Flag("-l --link", "remove a link"),
        Flag("-v --volumes", "remove its anonymous volumes"),
    ),
    "start": _many(
        "start [OPTIONS] CONTAINER...", "Start containers", "run:start",
        Flag("-a --attach", "attach STDOUT and STDERR, pass signals"), _KEYS,
        Flag("-i --interactive", "attach STDIN"),
    ),
    "stats": Command(
        "stats [OPTIONS] [CONTAINER...]", "Live resource usage",
        (Flag("-a --all", "not only those that run"), _FORMAT,
         Flag("--no-stream", "only the first result"), _NO_TRUNC),
        "stats:stats",
    ),
    "stop": _many("stop [OPTIONS] CONTAINER...", "Stop containers", "containers:stop", *_STOP),
    "top": Command(
        "top CONTAINER [ps OPTIONS]", "Processes of a container", (), "containers:top", 1, None, False
    ),
    "unpause": _many("unpause CONTAINER...", "Unfreeze containers", "containers:unpause"),
    "update": _many("update [OPTIONS] CONTAINER...", "Change limits", "containers:update", *_UPDATE),
    "wait": _many("wait CONTAINER...", "Wait for the end, print exit codes", "containers:wait"),
}  # fmt: skip

IMAGE: dict[str, Command] = {
    "bootstrap": _one(
        "image bootstrap busybox|debian[:SUITE]",
        "Make a base image from the distribution's packages, without a registry",
        "image_bootstrap:bootstrap",
    ),
    "history": _one(
        "history [OPTIONS] IMAGE", "An image's layers", "images:history",
        _FORMAT, Flag("-H --human BOOL", "human sizes and dates"), _NO_TRUNC, _QUIET,
    ),
    "import": Command(
        "import [OPTIONS] FILE|- [REPOSITORY[:TAG]]", "An image from a file system's tar",
        (Flag("-c --change LIST…", "Dockerfile instruction"), Flag("-m --message TEXT", "message"),
         Flag("--platform NAME", "platform")),
        "images:import_", 1, 2,
    ),
    "inspect": _many("image inspect [OPTIONS] IMAGE...", "Details", "inspect:images", *_INSPECT),
    "load": _none(
        "load [OPTIONS]", "Images from an archive", "images:load",
        Flag("-i --input FILE", "read from a file"), Flag("-q --quiet", "no output"),
        Flag("--platform NAME", "platform"),
    ),
    "ls": Command(
        "images [OPTIONS] [REPOSITORY[:TAG]]", "List images",
        (Flag("-a --all", "intermediate ones too"), Flag("--digests", "show digests"),
         _FILTER, _FORMAT, _NO_TRUNC, _QUIET),
        "lists:images", 0, 1,
    ),
    "prune": _none(
        "image prune [OPTIONS]", "Remove unused images", "images:prune",
        Flag("-a --all", "all unused, not only untagged"), _FORCE, Flag("--filter LIST…", "filters"),
    ),
    "rm": _many(
        "rmi [OPTIONS] IMAGE...", "Remove images", "images:rm",
        Flag("-f --force", "force"), Flag("--no-prune", "keep untagged parents"),
    ),
    "save": _many(
        "save [OPTIONS] IMAGE...", "Images as an archive", "images:save",
        Flag("-o --output FILE", "write to a file"), Flag("--platform NAME", "platform"),
    ),
    "tag": Command("tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Name an image", (), "images:tag", 2, 2),
}  # fmt: skip

NETWORK: dict[str, Command] = {
    "create": _one(
        "network create [OPTIONS] NETWORK", "Make a network", "networks:create",
        Flag("-d --driver NAME", "driver"), Flag("--subnet LIST…", "subnet"),
        Flag("--gateway LIST…", "gateway"), Flag("--ip-range LIST…", "range for containers"),
        Flag("--internal", "no way out"), Flag("--ipv6", "IPv6"), Flag("--attachable", "attachable"),
        Flag("--label LIST…", "metadata"), Flag("-o --opt LIST…", "driver options"),
    ),
    "inspect": _many("network inspect [OPTIONS] NETWORK...", "Details", "inspect:networks", *_INSPECT),
    "ls": _none("network ls", "List networks", "lists:networks", _FILTER, _FORMAT, _NO_TRUNC, _QUIET),
    "prune": _none("network prune", "Remove unused networks", "networks:prune_networks", _FORCE,
                   Flag("--filter LIST…", "filters")),
    "rm": _many("network rm NETWORK...", "Remove networks", "networks:rm", _FORCE),
}  # fmt: skip

VOLUME: dict[str, Command] = {
    "create": Command(
        "volume create [OPTIONS] [VOLUME]", "Make a volume",
        (Flag("-d --driver NAME", "driver"), Flag("--label LIST…", "metadata"),
         Flag("-o --opt LIST…", "driver options")),
        "networks:create_volume", 0, 1,
    ),
    "inspect": _many("volume inspect [OPTIONS] VOLUME...", "Details", "inspect:volumes", *_INSPECT),
    "ls": _none("volume ls", "List volumes", "lists:volumes", _FILTER, _FORMAT, _QUIET),
    "prune": _none("volume prune", "Remove unused volumes", "networks:prune_volumes", _FORCE,
                   Flag("-a --all", "named ones too"), Flag("--filter LIST…", "filters")),
    "rm": _many("volume rm VOLUME...", "Remove volumes", "networks:rm_volumes", _FORCE),
}  # fmt: skip

SYSTEM: dict[str, Command] = {
    "df": _none("system df", "Disk usage", "system:df", _FORMAT, Flag("-v --verbose", "details")),
    "events": _none(
        "events [OPTIONS]", "What happens, as it happens", "system:events",
        _FILTER, _FORMAT, Flag("--since TIME", "since"), Flag("--until TIME", "until"),
    ),
    "info": _none("info", "About the daemon and its host", "system:info",
                  Flag("-f --format TEMPLATE", "a Go template or json")),
    "prune": _none("system prune", "Remove what is unused", "system:prune", _FORCE,
                   Flag("-a --all", "all unused images"), Flag("--volumes", "volumes too"),
                   Flag("--filter LIST…", "filters")),
}  # fmt: skip

CONTEXT: dict[str, Command] = {
    "ls": _none("context ls", "List contexts", "contexts:ls", _FORMAT, _QUIET),
    "show": _none("context show", "The current context", "contexts:show"),
    "use": _one("context use CONTEXT", "Choose a context", "contexts:use"),
}

GROUPS = {
    "container": CONTAINER,
    "image": IMAGE,
    "network": NETWORK,
    "volume": VOLUME,
    "system": SYSTEM,
    "context": CONTEXT,
}
ALIASES = {
    ("container", "list"): "ls",
    ("container", "ps"): "ls",
    ("container", "remove"): "rm",
    ("image", "list"): "ls",
    ("image", "remove"): "rm",
    ("network", "list"): "ls",
    ("network", "remove"): "rm",
    ("volume", "list"): "ls",
    ("volume", "remove"): "rm",
    ("context", "list"): "ls",
}
SHORT: dict[str, tuple[str, str]] = {
    **{name: ("container", name) for name in CONTAINER if name not in ("ls", "prune", "inspect")},
    **{name: ("image", name) for name in ("history", "import", "load", "save", "tag")},
    "ps": ("container", "ls"),
    "images": ("image", "ls"),
    "rmi": ("image", "rm"),
    "events": ("system", "events"),
    "info": ("system", "info"),
}
TOP: dict[str, Command] = {
    "inspect": _many("inspect [OPTIONS] NAME|ID...", "Details of anything", "inspect:anything",
                     *_INSPECT, Flag("--type TYPE", "container, image, network or volume")),
    "version": _none("version", "Versions of client and daemon", "system:version",
                     Flag("-f --format TEMPLATE", "a Go template or json")),
    "completion": _one("completion bash|zsh|fish", "Shell completion", "completion:completion"),
}  # fmt: skip
NOT_BUILT = ("pull", "push", "login", "logout", "search", "build", "builder", "compose", "swarm",
             "service", "stack", "node", "secret", "config", "plugin", "manifest", "trust",
             "checkpoint")  # fmt: skip


def find(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command that `words` begin with, and its own words; None for an unknown one."""
    name, *rest = words
    if name in ("run", "create"):
        return _run(name), rest
    if name in TOP:
        return TOP[name], rest
    if name in SHORT:
        group, inner = SHORT[name]
        return GROUPS[group][inner], rest
    if name in GROUPS and rest:
        if name == "container" and rest[0] in ("run", "create"):
            return _run(rest[0]), rest[1:]
        inner = ALIASES.get((name, rest[0]), rest[0])
        return GROUPS[name].get(inner), rest[1:]
    return None, rest


def overview() -> str:
    """What `estiba --help` prints."""
    lines = [
        "Usage:  estiba [OPTIONS] COMMAND",
        "",
        "Containers, images, networks and volumes.",
        "",
    ]
    lines += ["Options:"]
    from estiba.cli.main import GLOBAL_FLAGS

    for flag in GLOBAL_FLAGS:
        names = ", ".join(flag.names)
        lines.append(f"  {names + ' ' + flag.value.rstrip('…').lower():<28}{flag.help}")
    lines += ["", "Commands:"]
    shown = {"run": _run("run"), "create": _run("create"), **TOP}
    shown.update({name: GROUPS[group][inner] for name, (group, inner) in SHORT.items()})
    lines += [f"  {name:<12}{shown[name].help}" for name in sorted(shown)]
    lines += ["", "Groups:  " + ", ".join(GROUPS) + "   (estiba GROUP --help)"]
    return "\n".join(lines)


def group_overview(name: str) -> str:
    commands = dict(GROUPS[name])
    if name == "container":
        commands |= {"run": _run("run"), "create": _run("create")}
    lines = [f"Usage:  estiba {name} COMMAND", "", "Commands:"]
    return "\n".join(lines + [f"  {key:<12}{commands[key].help}" for key in sorted(commands)])
