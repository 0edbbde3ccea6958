"""Plugins that the engine runs: made, installed, switched, set."""

from __future__ import annotations

import os
import sys

from estiba.cli.inspect import show
from estiba.cli.output import each, filters_of, print_rows, shorten
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.progress import show_progress
from estiba.cli.refs import reference
from estiba.client.credentials import header
from estiba.client.errors import ApiError, ClientError
from estiba.client.host import read_config
from estiba.client.http import Client, image_part
from estiba.client.jsonlite import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from estiba.model.reference import Reference

_COLUMNS = (
    ("ID", "ID"),
    ("NAME", "Name"),
    ("DESCRIPTION", "Description"),
    ("ENABLED", "Enabled"),
)
_RAW = "plugin_id=ID name=Name description=Description enabled=Enabled"
_TIMEOUT_S = 30
_WIDTH = 45


def create(client: Client, given: Arguments) -> int:
    from estiba.client.archive import pack

    name, directory = given.words[:2]
    reference(name)
    if not os.path.lexists(directory):
        raise UsageError(f"lstat {os.path.abspath(directory)}: no such file or directory")
    if not os.path.isdir(directory) or os.path.islink(directory.rstrip("/")):
        raise UsageError("context must be a directory")
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            loads(file.read())
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    pieces: Iterable[bytes] = pack(directory, ".")
    source = _compressed(pieces) if given.compress else pieces
    client.call("POST", "/plugins/create", {"name": name}, source=source).read()
    print(name)
    return 0


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def ls(client: Client, given: Arguments) -> int:
    form = given.format or ("" if given.quiet else str(read_config().get("pluginsFormat", "")))
    rows = []
    for view in client.get("/plugins", {"filters": filters_of(given.filter)}):
        described = view["Config"]["Description"].replace("\n", "").replace("\r", "")
        rows.append({
            "ID": view["Id"] if given.no_trunc else view["Id"][:12],
            "Name": view["Name"],
            "Description": described if given.no_trunc else shorten(described, _WIDTH),
            "Enabled": view["Enabled"] if form else str(view["Enabled"]).lower(),
            "PluginReference": view.get("PluginReference", ""),
        })  # fmt: skip
    rows.sort(key=lambda row: str(row["Name"]))
    print_rows(rows, _COLUMNS, form, quiet_key="ID" if given.quiet else "",
               titles={"PluginReference": "IMAGE"}, raw=_RAW)  # fmt: skip
    return 0


def inspect(client: Client, given: Arguments) -> int:
    return show(given, lambda name: client.get(f"/plugins/{image_part(name)}/json"))


def enable(client: Client, given: Arguments) -> int:
    timeout = _TIMEOUT_S if given.timeout is None else given.timeout
    if timeout < 0:
        raise UsageError(f"negative timeout {timeout} is invalid")
    name = given.words[0]
    client.post(f"/plugins/{image_part(name)}/enable", {"timeout": timeout or "0"})
    print(name)
    return 0


def disable(client: Client, given: Arguments) -> int:
    name = given.words[0]
    client.post(f"/plugins/{image_part(name)}/disable", {"force": given.force or None})
    print(name)
    return 0


def rm(client: Client, given: Arguments) -> int:
    query = {"force": given.force or None}
    return each(given.words, lambda name: client.delete(f"/plugins/{image_part(name)}", query))


def set_(client: Client, given: Arguments) -> int:
    name, *settings = given.words
    client.call("POST", f"/plugins/{image_part(name)}/set", None, settings).read()
    return 0


def push(client: Client, given: Arguments) -> int:
    wanted = reference(given.words[0])
    if wanted.digest:
        raise UsageError(f"invalid name: {given.words[0]}")
    path = f"/plugins/{image_part(wanted.tagged.familiar)}/push"
    show_progress(client.call("POST", path, headers=header(wanted.domain)).lines())
    return 0


def install(client: Client, given: Arguments) -> int:
    remote, *settings = given.words
    alias = ""
    if given.alias:
        named = reference(given.alias)
        if named.digest:
            raise UsageError(f"invalid name: {given.alias}")
        alias = named.tagged.familiar
    wanted = reference(remote)
    name = alias or _without_digest(wanted).tagged.familiar
    granted = _granted(client, wanted, remote, given)
    query = {"remote": str(wanted), "name": alias or None}
    response = client.call(
        "POST", "/plugins/pull", query, granted, headers=header(wanted.domain)
    )  # fmt: skip
    show_progress(response.lines())
    try:
        if settings:
            client.call("POST", f"/plugins/{image_part(name)}/set", None, settings).read()
        if not given.disable:
            client.post(f"/plugins/{image_part(name)}/enable", {"timeout": "0"})
    except ClientError:
        client.delete(f"/plugins/{image_part(name)}")
        raise
    print("Installed plugin", remote)
    return 0


def upgrade(client: Client, given: Arguments) -> int:
    try:
        view = client.get(f"/plugins/{image_part(given.words[0])}/json")
    except ClientError as error:
        whose = "Error response from daemon: " if isinstance(error, ApiError) else ""
        raise UsageError(f"error reading plugin data: {whose}{error}") from None
    if view["Enabled"]:
        raise UsageError("the plugin must be disabled before upgrading")
    name, old = view["Name"], reference(view["PluginReference"]).tagged
    remote = given.words[1] if len(given.words) > 1 else view["PluginReference"]
    wanted = reference(remote).tagged
    print(f"Upgrading plugin {name} from {old.familiar} to {wanted.familiar}", flush=True)
    is_other = wanted != old and not given.skip_remote_check
    if is_other and not _ask("Plugin images do not match, are you sure?"):
        raise UsageError("plugin upgrade has been cancelled")
    granted = _granted(client, wanted, remote, given)
    response = client.call(
        "POST", f"/plugins/{image_part(name)}/upgrade", {"remote": str(wanted)}, granted,
        headers=header(wanted.domain),
    )  # fmt: skip
    show_progress(response.lines())
    print(f"Upgraded plugin {name} to {remote}")
    return 0


def _granted(client: Client, wanted: Reference, shown: str, given: Arguments) -> list[Any]:
    """The privileges, asked for on the terminal. Raises ClientError when they are refused."""
    response = client.call(
        "GET", "/plugins/privileges", {"remote": str(wanted)}, headers=header(wanted.domain)
    )  # fmt: skip
    privileges: list[Any] = response.json() or []
    if privileges and not given.grant_all_permissions:
        print(f'Plugin "{shown}" is requesting the following privileges:')
        for one in privileges:
            print(f" - {one['Name']}: [{' '.join(one.get('Value') or [])}]")
        if not _ask("Do you grant the above permissions?"):
            raise ClientError(f"permission denied while installing plugin {shown}")
    return privileges


def _ask(question: str) -> bool:
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _without_digest(wanted: Reference) -> Reference:
    return type(wanted)(wanted.domain, wanted.path, wanted.tag)
