"""version, info, events."""

from __future__ import annotations

import os
import sys
import time

from estiba.cli.output import binary_size, escapes, filters_of, moment
from estiba.cli.parse import Arguments, UsageError
from estiba.client.errors import ApiError, ClientError, NoDaemon
from estiba.client.http import NEWEST, Client
from estiba.client.jsonlite import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


_TEMPLATE_ERROR = 64


def _formatted(value: dict[str, Any], form: str) -> bool:
    """Prints it in the format that the user asked for; False when there is none."""
    if not form:
        return False
    if form == "json":
        print(dumps(value))
    else:
        from estiba.cli.template import compile_template

        print(compile_template(escapes(form))(value))
    return True


# -- version -------------------------------------------------------------------------------


def version(client: Client, given: Arguments) -> int:
    from estiba import __version__
    from estiba.cli.contexts import current

    server, failure = None, None
    try:
        server = client.get("/version")
    except NoDaemon:
        if _is_startable(client, given):
            raise
        failure = sys.exc_info()[1]
    except ClientError as error:
        failure = error
    mine = {
        "Version": __version__,
        "ApiVersion": client.version if server else NEWEST,
        "DefaultAPIVersion": NEWEST,
        "PythonVersion": ".".join(str(number) for number in sys.version_info[:3]),
        "Os": "linux",
        "Arch": _architecture(),
        "Context": current(),
    }
    try:
        if not _formatted({"Client": mine, "Server": server}, given.format):
            _print_client(mine)
            if server:
                _print_server(server)
    finally:
        if failure:
            sys.stdout.flush()
            prefix = "Error response from daemon: " if isinstance(failure, ApiError) else ""
            print(f"{prefix}{failure}", file=sys.stderr)
    return 1 if failure else 0


def _is_startable(client: Client, given: Arguments) -> bool:
    """The caller starts the daemon then, or says how; a script's format gets what there is."""
    if not client.host.is_default or os.geteuid() != 0:
        return False
    return not given.format or os.environ.get("ESTIBA_AUTOSTART") == "1"


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _print_client(mine: dict[str, str]) -> None:
    api = mine["ApiVersion"]
    if api != NEWEST:
        api += f" (downgraded from {NEWEST})"
    print("Client: estiba")
    for title, value in (
        ("Version", mine["Version"]),
        ("API version", api),
        ("Python version", mine["PythonVersion"]),
        ("OS/Arch", f"{mine['Os']}/{mine['Arch']}"),
        ("Context", mine["Context"]),
    ):
        print(f" {title + ':':<18} {value}")


def _print_server(server: dict[str, Any]) -> None:
    platform = (server.get("Platform") or {}).get("Name", "")
    print(f"\nServer: {platform}".rstrip())
    components = server.get("Components") or [
        {"Name": "Engine", "Version": server.get("Version", ""), "Details": server}
    ]
    for component in components:
        details = component.get("Details") or {}
        print(f" {component['Name']}:")
        rows = [("Version", component["Version"])]
        if component["Name"] == "Engine":
            least = details.get("MinAPIVersion", "")
            rows.append(("API version", f"{details.get('ApiVersion')} (minimum version {least})"))
            rows += [
                (title, details[key])
                for title, key in (
                    ("Go version", "GoVersion"),
                    ("Python version", "PythonVersion"),
                    ("Git commit", "GitCommit"),
                    ("Built", "BuildTime"),
                )
                if details.get(key)
            ]
            rows.append(("OS/Arch", f"{details.get('Os')}/{details.get('Arch')}"))
            if "Experimental" in details:
                rows.append(("Experimental", str(details["Experimental"]).lower()))
        elif details.get("GitCommit"):
            rows.append(("GitCommit", details["GitCommit"]))
        for title, value in rows:
            print(f"  {title + ':':<17} {value}")


def dial_stdio(client: Client, given: Arguments) -> int:
    """What `ssh://` runs at the far end."""
    from estiba.client.connection import connect
    from estiba.client.streams import Session

    Session(connect(client.host), b"", tty=True).run(stdin=True)
    return 0


# -- info ----------------------------------------------------------------------------------


def info(client: Client, given: Arguments) -> int:
    from estiba import __version__
    from estiba.cli.contexts import current

    mine = {
        "Debug": bool(os.environ.get("ESTIBA_DEBUG")),
        "Version": __version__,
        "DefaultAPIVersion": NEWEST,
        "Os": "linux",
        "Arch": _architecture(),
        "Context": current(),
        "Plugins": [],
        "Warnings": None,
    }
    failure = ""
    view: dict[str, Any] = {}
    try:
        view = client.get("/info")
    except ClientError as error:
        if isinstance(error, NoDaemon) and _is_startable(client, given):
            raise
        failure = f"Error response from daemon: {error}" if isinstance(error, ApiError) else str(
            error)  # fmt: skip
    if _formatted({**view, "ClientInfo": mine}, given.format):
        if failure:
            print(failure, file=sys.stderr)
        return 1 if failure else 0
    print(f"Client: estiba\n Version:    {__version__}\n Context:    {current()}\n\nServer:")
    if failure:
        sys.stdout.flush()
        print(f"{failure}\nerrors pretty printing info", file=sys.stderr)
        return 1
    for line in _info_lines(view):
        print(f" {line}")
    sys.stdout.flush()
    for warning in view.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


def _info_lines(view: dict[str, Any]) -> list[str]:
    lines = [
        f"Containers: {view['Containers']}",
        f" Running: {view['ContainersRunning']}",
        f" Paused: {view['ContainersPaused']}",
        f" Stopped: {view['ContainersStopped']}",
        f"Images: {view['Images']}",
        f"Server Version: {view['ServerVersion']}",
        f"Storage Driver: {view['Driver']}",
    ]
    lines += [f" {key}: {value}" for key, value in view.get("DriverStatus") or []]
    lines += _some(view, ("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"),
                   ("Cgroup Version", "CgroupVersion"))  # fmt: skip
    plugins = view.get("Plugins") or {}
    lines.append("Plugins:")
    lines += [
        f" {kind}: {' '.join(plugins.get(kind) or [])}" for kind in ("Volume", "Network", "Log")
    ]
    lines.append(f"Swarm: {(view.get('Swarm') or {}).get('LocalNodeState', 'inactive')}")
    lines.append(f"Runtimes: {' '.join(sorted(view.get('Runtimes') or {}))}")
    lines += _some(view, ("Default Runtime", "DefaultRuntime"), ("Init Binary", "InitBinary"))
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"),
                       ("init", "InitCommit")):  # fmt: skip
        if commit := (view.get(key) or {}).get("ID"):
            lines.append(f"{title} version: {commit}")
    if options := view.get("SecurityOptions"):
        lines.append("Security Options:")
        lines += [text for option in options for text in _security_lines(option)]
    lines += _some(
        view,
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    )
    lines.append(f"Total Memory: {binary_size(view['MemTotal'])}")
    lines += _some(view, ("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    lines.append(f"Debug Mode: {str(view.get('Debug', False)).lower()}")
    lines += _some(view, ("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"),
                   ("No Proxy", "NoProxy"))  # fmt: skip
    if labels := view.get("Labels"):
        lines += ["Labels:", *(f" {label}" for label in labels)]
    registries = (view.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []
    if registries:
        lines += ["Insecure Registries:", *(f" {name}" for name in registries)]
    lines.append(f"Experimental: {str(view.get('ExperimentalBuild', False)).lower()}")
    if mirrors := (view.get("RegistryConfig") or {}).get("Mirrors"):
        lines += ["Registry Mirrors:", *(f" {url}" for url in mirrors)]
    lines.append(f"Live Restore Enabled: {str(view.get('LiveRestoreEnabled', False)).lower()}")
    return lines


def _some(view: dict[str, Any], *rows: tuple[str, str]) -> list[str]:
    return [f"{title}: {view[key]}" for title, key in rows if view.get(key)]


def _security_lines(option: str) -> list[str]:
    """`name=seccomp,profile=builtin` on two lines."""
    lines = []
    for field in option.split(","):
        key, equals, value = field.partition("=")
        if key == "name" or not equals:
            lines.append(f" {value or key}")
        else:
            lines.append(f"  {key.capitalize()}: {value}")
    return lines


# -- events --------------------------------------------------------------------------------


def events(client: Client, given: Arguments) -> int:
    query = {
        "since": moment(given.since, "since"),
        "until": moment(given.until, "until"),
        "filters": filters_of(given.filter),
    }
    shown: Callable[[dict[str, Any]], str] = _event_text
    if given.format == "json":
        shown = dumps
    elif given.format:
        from estiba.cli.template import compile_template

        try:
            shown = compile_template(escapes(given.format))
        except UsageError as error:
            raise UsageError(f"Error parsing format: {error}", exit_code=_TEMPLATE_ERROR) from None
    for event in client.call("GET", "/events", query).lines():
        print(shown(event), flush=True)
    return 0


def _event_text(event: dict[str, Any]) -> str:
    seconds, nanoseconds = divmod(event["timeNano"], 1_000_000_000)
    moment_ = time.localtime(seconds)
    zone = time.strftime("%z", moment_)
    offset = "Z" if zone in ("", "+0000") else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment_)}.{nanoseconds:09d}{offset}"
    actor = event.get("Actor") or {}
    facts = ", ".join(f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items()))
    text = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{text} ({facts})" if facts else text
