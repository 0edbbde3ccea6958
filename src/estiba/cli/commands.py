"""Every command of `estiba`, as data. Nothing else is imported until a command is used.

The short form of a command (`estiba ps`) and its long one (`estiba container ls`) are one entry.
"""

from __future__ import annotations

from estiba.cli.imagecommands import (
    FILTER,
    FORMAT,
    IMAGE,
    INSPECT,
    MANIFEST,
    NO_TRUNC,
    PRUNED,
    QUIET,
)
from estiba.cli.parse import Command
from estiba.cli.plugincommands import PLUGIN
from estiba.cli.volumecommands import VOLUME

_KEYS = "--detach-keys KEYS  key sequence that detaches (default ctrl-p,ctrl-q)\n"
_STOP = """\
-s --signal SIGNAL  signal to send
-t --timeout --time N  seconds to wait before killing; -1 waits forever
"""
_CONTAINERS = "CONTAINER [CONTAINER...]"

CONTAINER = {
    "attach": Command(
        "[OPTIONS] CONTAINER", "Attach to a running container", "run:attach",
        _KEYS + """\
        --no-stdin  do not attach STDIN
        --sig-proxy=true  pass signals on to the program
        """, least=1, most=1),
    "commit": Command(
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Make an image of a container's changes",
        "containers:commit", """\
        -a --author NAME  author
        -c --change LIST…  apply a Dockerfile instruction
        -m --message TEXT  message
        -p --pause=true  pause the container meanwhile
        --no-pause  do not pause the container meanwhile
        """, least=1, most=2),
    "cp": Command(
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- or [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy between a container and the local file system; - is a tar stream", "cp:copy", """\
        -a --archive  keep uid, gid and set-id bits
        -L --follow-link  follow a symlink in SRC_PATH
        -q --quiet  no message
        """, least=2, most=2),
    "create": Command(
        "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", "run:create",
        "@runflags:CREATE", least=1, interspersed=False),
    "diff": Command(
        "CONTAINER", "Changes of a container's file system", "containers:diff", least=1, most=1),
    "exec": Command(
        "[OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a running container",
        "run:exec_", _KEYS + """\
        -d --detach  run in the background
        -e --env LIST…  environment variables
        --env-file LIST…  files of environment variables
        -i --interactive  keep STDIN open
        --privileged  all privileges
        -t --tty  allocate a terminal
        -u --user NAME  name or uid[:group or gid]
        -w --workdir PATH  working directory
        """, least=2, interspersed=False),
    "export": Command(
        "[OPTIONS] CONTAINER", "A container's file system as a tar", "containers:export",
        "-o --output FILE  write to a file instead of STDOUT", least=1, most=1),
    "inspect": Command(
        f"[OPTIONS] {_CONTAINERS}", "Details of containers", "inspect:containers",
        INSPECT + "-s --size  sizes too", least=1),
    "kill": Command(
        f"[OPTIONS] {_CONTAINERS}", "Send containers a signal", "containers:kill",
        "-s --signal SIGNAL  signal to send (default KILL)", least=1),
    "logs": Command(
        "[OPTIONS] CONTAINER", "A container's log", "containers:logs", """\
        --details  show extra details
        -f --follow  follow the log
        --since TIME-OR-DURATION  since 2013-01-02T13:23:37Z or the last 42m
        -n --tail NUMBER  lines from the end (default all)
        -t --timestamps  show timestamps
        --until TIME-OR-DURATION  before a time or a duration ago
        --truncate  throw away what has been logged so far
        """, least=1, most=1),
    "ls": Command(
        "[OPTIONS]", "List containers", "lists:ps", FILTER + FORMAT + NO_TRUNC + QUIET + """\
        -a --all  not only those that run
        -n --last N  the last N created, in any state
        -l --latest  the latest created, in any state
        -s --size  total file sizes
        """, most=0),
    "pause": Command(_CONTAINERS, "Freeze containers", "containers:pause", least=1),
    "port": Command(
        "CONTAINER [PRIVATE_PORT[/PROTO]]", "Published ports", "containers:port", least=1, most=2),
    "prune": Command(
        "[OPTIONS]", "Remove all stopped containers", "prune:containers", PRUNED, most=0),
    "rename": Command(
        "CONTAINER NEW_NAME", "Rename a container", "containers:rename", least=2, most=2),
    "restart": Command(
        f"[OPTIONS] {_CONTAINERS}", "Restart containers", "containers:restart", _STOP, least=1),
    "rm": Command(
        f"[OPTIONS] {_CONTAINERS}", "Remove containers", "containers:rm", """\
        -f --force  kill a running one first
        -l --link  remove the link
        -v --volumes  remove its anonymous volumes
        """, least=1),
    "run": Command(
        "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container", "run:run",
        "@runflags:RUN", least=1, interspersed=False),
    "start": Command(
        f"[OPTIONS] {_CONTAINERS}", "Start containers", "run:start", _KEYS + """\
        -a --attach  attach STDOUT and STDERR, pass signals on
        --checkpoint NAME  begin there (to come: checkpoints)
        --checkpoint-dir PATH  where it is kept (to come: checkpoints)
        -i --interactive  attach STDIN
        """, least=1),
    "stats": Command(
        "[OPTIONS] [CONTAINER...]", "Live resource usage", "stats:stats",
        FORMAT + NO_TRUNC + """\
        -a --all  not only those that run
        --no-stream  only the first result
        """),
    "stop": Command(
        f"[OPTIONS] {_CONTAINERS}", "Stop containers", "containers:stop", _STOP, least=1),
    "top": Command(
        "CONTAINER [ps OPTIONS]", "Processes of a container", "containers:top",
        least=1, interspersed=False),
    "unpause": Command(_CONTAINERS, "Unfreeze containers", "containers:unpause", least=1),
    "update": Command(
        f"[OPTIONS] {_CONTAINERS}", "Change limits of containers", "containers:update", "@runflags:UPDATE",
        least=1),
    "wait": Command(
        _CONTAINERS, "Wait until containers stop, then print their exit codes", "containers:wait",
        least=1),
}  # fmt: skip

NETWORK = {
    "connect": Command(
        "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", "networks:connect", """\
        --alias LIST…  name of the container in the network
        --driver-opt LIST…  driver options
        --gw-priority N  the highest gives the default gateway
        --ip ADDRESS  IPv4 address
        --ip6 ADDRESS  IPv6 address
        --link LIST…  link to another container
        --link-local-ip LIST…  link-local address
        """, least=2, most=2),
    "create": Command("[OPTIONS] NETWORK", "Make a network", "networks:create", """\
        --attachable  containers may be attached by hand
        --aux-address LIST…  addresses that the driver uses (name=address)
        --config-from NETWORK  network to copy the configuration from
        --config-only  only a configuration
        -d --driver NAME  driver (default bridge)
        --dns-record LIST…  NAME=ADDRESS, NAME=OTHER.NAME, NAME=TXT:TEXT; *.NAME for all below
        --egress LIST…  what its containers reach outside: none or allow=HOST[:PORT]
        --gateway LIST…  gateway of a subnet
        --ingress  the swarm's routing mesh
        --internal  no way out
        --ip-range LIST…  range that containers get addresses of
        --ipam-driver NAME  address driver
        --ipam-opt LIST…  options of the address driver
        --ipv4=true  IPv4 addresses
        --ipv6  IPv6 addresses
        --label LIST…  metadata
        -o --opt LIST…  driver options
        --scope SCOPE  scope
        --subnet LIST…  subnet
        """, least=1, most=1),
    "disconnect": Command(
        "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network",
        "networks:disconnect", "-f --force  force", least=2, most=2),
    "explain": Command(
        "[OPTIONS] FROM TO[:PORT[/PROTOCOL]]",
        "Say whether a packet passes, and by which rule", "networkpolicy:explain",
        "--format FORMAT  json", least=2, most=2),
    "graph": Command(
        "[OPTIONS]", "Draw who can reach whom", "networkpolicy:graph",
        "--format FORMAT  text, dot, svg or json", most=0),
    "inspect": Command(
        "[OPTIONS] NETWORK [NETWORK...]", "Details of networks", "inspect:networks",
        INSPECT + "-v --verbose  for diagnostics", least=1),
    "ls": Command(
        "[OPTIONS]", "List networks", "lists:networks", FILTER + FORMAT + NO_TRUNC + QUIET,
        most=0),
    "policy": Command(
        "set|show|rm [OPTIONS] NETWORK [FILE]", "Who may talk to whom on a network",
        "networkpolicy:policy", """\
        --default DEFAULT  open or closed, with set
        --egress LIST…  none or allow=HOST[:PORT], with set
        --format FORMAT  json, with show
        --rule LIST…  a line of the policy, with set
        """, least=2, most=3),
    "prune": Command("[OPTIONS]", "Remove unused networks", "prune:networks", PRUNED, most=0),
    "rm": Command(
        "NETWORK [NETWORK...]", "Remove networks", "networks:rm",
        "-f --force  no error for one that does not exist", least=1),
}  # fmt: skip

SYSTEM = {
    "df": Command("[OPTIONS]", "Disk usage", "usage:df", FORMAT + "-v --verbose  details", most=0),
    "dial-stdio": Command(
        "", "Join STDIN and STDOUT to the daemon's socket, for ssh://", "system:dial_stdio", most=0),
    "events": Command("[OPTIONS]", "What happens, as it happens", "system:events",
        FILTER + FORMAT + """\
        --since TIME-OR-DURATION  since
        --until TIME-OR-DURATION  until
        """, most=0),
    "info": Command("[OPTIONS]", "The daemon and its host", "system:info", INSPECT, most=0),
    "prune": Command("[OPTIONS]", "Remove what is unused", "prune:system", PRUNED + """\
        -a --all  all unused images, not only those without a name
        --volumes  anonymous volumes too
        """, most=0),
}  # fmt: skip

CONTEXT = {
    "create": Command("[OPTIONS] CONTEXT", "Make a context", "contexts:create", """\
        --description TEXT  description
        --docker LIST  host=URL,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL
        --from CONTEXT  copy of another
        """, least=1, most=1),
    "export": Command(
        "CONTEXT [FILE|-]", "Write a context to an archive", "contexts:export", least=1, most=2),
    "import": Command(
        "CONTEXT FILE|-", "Make a context of an archive", "contexts:import_", least=2, most=2),
    "inspect": Command(
        "[OPTIONS] [CONTEXT] [CONTEXT...]", "Details of contexts", "contexts:inspect", INSPECT),
    "ls": Command("[OPTIONS]", "List contexts", "contexts:ls", FORMAT + QUIET, most=0),
    "rm": Command(
        "CONTEXT [CONTEXT...]", "Remove contexts", "contexts:rm",
        "-f --force  even the current one", least=1),
    "show": Command("", "The name of the current context", "contexts:show", most=0),
    "update": Command("[OPTIONS] CONTEXT", "Change a context", "contexts:update", """\
        --description TEXT  description
        --docker LIST  host=URL,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=BOOL
        """, least=1, most=1),
    "use": Command("CONTEXT", "Choose the current context", "contexts:use", least=1, most=1),
}  # fmt: skip

BUILDER = {
    "build": Command(
        "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:build",
        "@buildflags:BUILD", least=1, most=1),
    "du": Command(
        "[OPTIONS]", "What the build cache holds", "builder:usage", "@buildflags:USAGE", most=0),
    "prune": Command(
        "[OPTIONS]", "Remove build cache", "builder:prune", "@buildflags:PRUNE", most=0),
}  # fmt: skip

GROUPS = {
    "builder": BUILDER,
    "buildx": BUILDER,
    "container": CONTAINER,
    "context": CONTEXT,
    "image": {"build": BUILDER["build"], **IMAGE},
    "manifest": MANIFEST,
    "network": NETWORK,
    "plugin": PLUGIN,
    "system": SYSTEM,
    "volume": VOLUME,
}
_SHORT_IMAGE = ("history", "import", "load", "pull", "push", "save", "tag")
ALIASES = {"list": "ls", "remove": "rm"}
SHORT = {
    **{name: ("container", name) for name in CONTAINER if name not in ("ls", "prune", "inspect")},
    **{name: ("image", name) for name in _SHORT_IMAGE},
    "build": ("image", "build"),
    "ps": ("container", "ls"),
    "images": ("image", "ls"),
    "rmi": ("image", "rm"),
    "events": ("system", "events"),
    "info": ("system", "info"),
}
TOP = {
    "completion": Command(
        "bash|zsh|fish", "Print a shell's completion script", "completion:completion",
        least=1, most=1),
    "inspect": Command(
        "[OPTIONS] NAME|ID [NAME|ID...]", "Details of any object", "inspect:anything",
        INSPECT + """\
        -s --size  sizes of containers too
        --type TYPE  container, image, network or volume
        """, least=1),
    "login": Command(
        "[OPTIONS] [SERVER]", "Log in to a registry, Docker Hub by default", "login:login", """\
        -p --password TEXT  password or token; others can see it: --password-stdin is better
        --password-stdin  take the password or token from STDIN
        -u --username NAME  user name
        """, most=1),
    "logout": Command("[SERVER]", "Log out of a registry", "login:logout", most=1),
    "registry": Command(
        "serve|gc [OPTIONS]", "Run a registry of one's own", "registry:registry", passes=True),
    "search": Command("[OPTIONS] TERM", "Search Docker Hub, or the registry of HOST/TERM",
        "search:search", FILTER + FORMAT + NO_TRUNC + "--limit N  the most results", least=1,
        most=1),
    "version": Command(
        "[OPTIONS]", "Versions of client and daemon", "system:version", INSPECT, most=0),
}  # fmt: skip
_CLUSTERS = "clusters are to come"
NOT_BUILT = {
    **dict.fromkeys(("config", "node", "secret", "service", "stack", "swarm"), _CLUSTERS),
    "checkpoint": "checkpoints are to come",
    "compose": "Compose files are to come",
    "trust": "signed images are to come",
}
"""Words of docker's that are not there yet, and what to do instead."""


def aliases(command: Command) -> list[str]:
    """All that a command can be called by, long forms first."""
    found = []
    for group, members in GROUPS.items():
        for name, member in members.items():
            if member is command:
                others = [alias for alias, inner in ALIASES.items() if inner == name]
                found += [f"{group} {word}" for word in (name, *others)]
    return found + [
        name for name, (group, inner) in SHORT.items() if GROUPS[group][inner] is command
    ]


def find(words: list[str]) -> tuple[Command | None, str, list[str]]:
    """The command that `words` begin with, what it was called, and its own words."""
    name, *rest = words
    if name in TOP:
        return TOP[name], name, rest
    if name in SHORT:
        group, inner = SHORT[name]
        return GROUPS[group][inner], name, rest
    if name in GROUPS and rest:
        inner = ALIASES.get(rest[0], rest[0])
        if name == "container" and inner == "ps":
            inner = "ls"
        return GROUPS[name].get(inner), f"{name} {rest[0]}", rest[1:]
    return None, name, rest


def named() -> dict[str, Command]:
    """All commands by their words, long forms included."""
    found = dict(TOP)
    for group, commands in GROUPS.items():
        found.update({f"{group} {name}": command for name, command in commands.items()})
    found.update({name: GROUPS[group][inner] for name, (group, inner) in SHORT.items()})
    return dict(sorted(found.items()))
