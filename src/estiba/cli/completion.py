"""Shell completion: the shells ask `estiba __complete WORDS…`, which answers from the tables."""

from __future__ import annotations

from estiba.cli.parse import Arguments, Flag, UsageError
from estiba.client.errors import ClientError
from estiba.client.http import Client

_SCRIPTS = {
    "bash": """\
_estiba() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(estiba __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" \\
        -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _estiba estiba
""",
    "zsh": """\
#compdef estiba
_estiba() {
    local -a found
    found=(${(f)"$(estiba __complete "${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)"})
    compadd -- $found || _files
}
compdef _estiba estiba
""",
    "fish": """\
function __estiba_complete
    set -l words (commandline -opc) (commandline -ct)
    estiba __complete $words[2..-1] 2>/dev/null
end
complete -c estiba -f -a '(__estiba_complete)'
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
    from estiba.cli import commands

    *before, current = words or [""]
    before = [word for word in before if not word.startswith("-")]
    if not before:
        names: list[str] = [*commands.SHORT, *commands.TOP, *commands.GROUPS, "run", "create"]
        flags: tuple[Flag, ...] = ()
    elif before[0] in commands.GROUPS and len(before) == 1:
        names, flags = [*commands.GROUPS[before[0]]], ()
    else:
        command, _ = commands.find(before)
        flags = command.flags if command else ()
        names = _objects(command.function if command else "")
    if current.startswith("-"):
        names = [name for flag in flags for name in flag.names]
    print("\n".join(sorted(name for name in names if name.startswith(current))))
    return 0


def _objects(function: str) -> list[str]:
    """Names of the objects that a command takes."""
    from estiba.client.host import resolve

    client = Client(resolve())
    module, _, name = function.partition(":")
    try:
        if module == "images" or name in ("run", "create", "images"):
            views = client.get("/images/json")
            return [tag for view in views for tag in view["RepoTags"] or []]
        if module in ("containers", "run", "cp", "stats") or name in ("containers", "anything"):
            views = client.get("/containers/json", {"all": True})
            return [view["Names"][0].lstrip("/") for view in views]
        if module == "networks":
            return [view["Name"] for view in client.get("/networks")]
    except ClientError:
        return []
    return []
