"""Shell completion: the shells ask `estiba __complete WORDS…`, which answers from the tables."""

from __future__ import annotations

from estiba.cli import commands
from estiba.cli.parse import Arguments, Command, Flag, UsageError
from estiba.client.errors import ClientError
from estiba.client.http import Client

_SCRIPTS = {
    "bash": """\
_estiba() {
    # bash ends words at colons: here busybox:latest is one.
    local line=${COMP_LINE:0:COMP_POINT} words current found
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    found=$("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$found" -- "$current"))
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*:}"}"}")
    fi
    case ${COMPREPLY[0]-none} in
    *:) compopt -o nospace ;;
    "") COMPREPLY=() && compopt +o default ;;
    esac
    return 0
}
complete -o default -F _estiba estiba
""",
    "zsh": """\
#compdef estiba
_estiba() {
    local -a found plain open
    found=(${(f)"$(estiba __complete "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    plain=(${found:#*:}) open=(${(M)found:#*:})
    if (( $#found )); then
        (( $#plain )) && compadd -- $plain
        (( $#open )) && compadd -S '' -- $open
    else
        _files
    fi
}
compdef _estiba estiba
""",
    "fish": """\
function __estiba_complete
    set -l words (commandline -opc) (commandline -ct)
    estiba __complete $words[2..-1] 2>/dev/null
end
complete -c estiba -f -a '(__estiba_complete)'
complete -c estiba -F -n '__fish_seen_subcommand_from build cp import load save export'
""",
}


def completion(client: Client, given: Arguments) -> int:
    shell = given.words[0]
    if shell not in _SCRIPTS:
        raise UsageError(f"no completion for {shell}: bash, zsh or fish")
    print(_SCRIPTS[shell], end="")
    return 0


def complete(words: list[str]) -> int:
    """Prints what may stand at the last of `words`."""
    *before, current = words or [""]
    try:
        found = _candidates(before, current)
    except ClientError:
        found = []
    for name in sorted(set(found)):
        if name.startswith(current):
            print(name)
    return 0


def _candidates(before: list[str], current: str) -> list[str]:
    from estiba.cli.main import GLOBAL

    flags = Command("", "", "", GLOBAL).flags()
    position, connection = _skip_flags(before, flags)
    words = before[position:]
    if not words:
        if current.startswith("-"):
            return _flag_names(flags)
        return [*commands.SHORT, *commands.TOP, *commands.GROUPS]
    if words[0] in commands.GROUPS and len(words) == 1:
        return list(commands.GROUPS[words[0]])
    command, _, rest = commands.find(words)
    if command is None:
        return []
    if command.passes:
        # The first alternative of the usage; the rest is for the program that it becomes.
        return [] if rest else command.usage.split()[0].split("|")
    own = command.flags()
    if current.startswith("-"):
        return _flag_names(own)
    return _objects(command, own, rest, connection)


def _flag_names(flags: list[Flag]) -> list[str]:
    return [name for flag in flags for name in (flag.long, flag.letter) if name]


def _skip_flags(words: list[str], flags: list[Flag]) -> tuple[int, list[str]]:
    """Where the command begins, and the words before it, which may name a daemon."""
    takes = {name for flag in flags if flag.value for name in flag.names}
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] in takes else 1
    return min(index, len(words)), words[:index]


_FLAG_VALUES = {
    "--network": "network", "--config-from": "network", "--volumes-from": "container",
    "--context": "context", "--from": "context", "--link": "container",
}  # fmt: skip
_WORDS = {
    "--signal": "HUP INT QUIT KILL USR1 USR2 TERM STOP CONT WINCH",
    "--stop-signal": "HUP INT QUIT KILL USR1 USR2 TERM",
    "--restart": "no always unless-stopped on-failure on-unhealthy",
    "--pull": "always missing never",
    "--format": "json table",
    "images:save --format": "docker oci",
    "networkpolicy:graph --format": "text dot svg json",
    "networkpolicy:policy --default": "open closed",
    "networkpolicy:explain --format": "json",
    "networkpolicy:policy --format": "json",
    "--egress": "none open allow=",
    "--type": "container image network volume",
    "--log-driver": "json-file local journald syslog none",
    "--ipc": "private shareable host none",
    "--pid": "host",
    "--cgroupns": "host private",
    "--log-level": "debug info warn error fatal",
    "--allow": "network.host security.insecure",
    "--attest": "type=sbom type=provenance,mode=min type=provenance,mode=max",
    "--cache-from": "type=local,src= type=registry,ref=",
    "--cache-to": "type=inline type=local,dest= type=registry,ref=",
    "--call": "build check",
    "build:build --output": "type=local,dest= type=tar,dest= type=oci,dest= type=docker,dest= "
    "type=image type=registry",
    "--progress": "auto plain tty quiet json rawjson",
    "--provenance": "true false min max",
    "--sbom": "true false",
    "--ssh": "default",
    "--platform": "linux/amd64 linux/arm64 linux/arm/v7 linux/386 linux/ppc64le linux/riscv64 "
    "linux/s390x",
}
"""What a flag may be given, where that is a short list."""
_STATES = {
    **dict.fromkeys(
        ("run:exec_", "run:attach", "containers:stop", "containers:kill", "containers:pause",
         "containers:top", "containers:port", "stats:stats"),
        ("running",),
    ),
    "containers:unpause": ("paused",),
    "run:start": ("created", "exited", "dead"),
}  # fmt: skip
"""Containers for which a command makes sense; all of them otherwise."""


def _objects(
    command: Command, flags: list[Flag], rest: list[str], connection: list[str]
) -> list[str]:
    """Names of the objects that the command, or the flag before the cursor, takes."""
    table = {name: flag for flag in flags for name in flag.names}
    last = table.get(rest[-1]) if rest else None
    if last is not None and last.long in ("--target", "--no-cache-filter"):
        from estiba.cli.buildsource import stage_names

        return stage_names(rest[:-1])
    if last is not None and last.value:
        words = _WORDS.get(f"{command.function} {last.long}") or _WORDS.get(last.long)
        return words.split() if words else _names(_FLAG_VALUES.get(last.long, ""), connection)
    given = sum(not word.startswith("-") for word in rest)
    if not command.interspersed and given and command.function != "run:exec_":
        return []
    module, _, name = command.function.partition(":")
    usage = command.usage.replace("[", "").replace("]", "").split()
    kinds = {
        "CONTAINER": "container", "IMAGE": "image", "NETWORK": "network", "VOLUME": "volume",
        "CONTEXT": "context", "SOURCE_IMAGE:TAG": "image", "NAME|ID": "any",
        "FROM": "container", "TO:PORT/PROTOCOL": "container",
        "NAME:TAG": "image", "REPOSITORY:TAG": "image", "SERVER": "server", "TAG": "snapshot",
    }  # fmt: skip
    wanted = [
        kinds[word.removesuffix("...")] for word in usage if word.removesuffix("...") in kinds
    ]
    if command.function == "networkpolicy:policy" and not given:
        return ["set", "show", "rm"]
    if module == "cp":
        return [f"{found}:" for found in _names("container", connection)]
    if not wanted or name.startswith(("create", "import")):
        return []
    states = _STATES.get(command.function, ())
    kind = wanted[min(given, len(wanted) - 1)]
    if kind == "snapshot":
        states = tuple(word for word in rest if not word.startswith("-"))[:1]
    return _names(kind, connection, states)


def _names(kind: str, connection: list[str], states: tuple[str, ...] = ()) -> list[str]:
    if kind == "context":
        from estiba.client import contexts

        return ["default", *contexts.names()]
    if kind == "server":
        from estiba.client import credentials

        return credentials.servers()
    if not kind:
        return []
    from estiba.cli.main import GLOBAL, make_client
    from estiba.cli.parse import Parser

    flags = Command("", "", "", GLOBAL).flags()
    client = make_client(Parser(flags).parse(connection, interspersed=False))
    if kind == "any":
        return [name for one in ("container", "image", "network", "volume")
                for name in _names(one, connection)]  # fmt: skip
    if kind == "container":
        filters = {"status": dict.fromkeys(states, True)} if states else None
        views = client.get("/containers/json", {"all": True, "filters": filters})
        return [view["Names"][0].lstrip("/") for view in views if view["Names"]]
    if kind == "snapshot":
        views = client.get(f"/volumes/{states[0]}/snapshots") if states else []
        return [view["Tag"] for view in views]
    if kind == "image":
        return [tag for view in client.get("/images/json") for tag in view["RepoTags"] or []]
    if kind == "network":
        return [view["Name"] for view in client.get("/networks")]
    return [view["Name"] for view in client.get("/volumes")["Volumes"] or []]
