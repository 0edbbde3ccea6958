"""The ways in to a builder, and a case of the corpus taken through one of them."""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import re
import subprocess
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.corpus import Case, make_context
from tests.support.daemon import PATIENCE, PrivateDaemon
from tests.support.fileserver import serving
from tests.support.imagetree import Archived, describe, read

ESTIBA = [sys.executable, "-m", "estiba.cli.main"]
_TIMEOUT_S = 120 * PATIENCE


@dataclass(frozen=True)
class Built:
    """What a client said and how it ended."""

    code: int
    output: str


@dataclass(frozen=True)
class Order:
    """One build, as a door is asked for it."""

    context: Path
    dockerfile: Path
    tag: str
    case: Case
    args: Mapping[str, str]
    scratch: Path
    """A folder for what the client needs beside the context."""


class Door(Protocol):
    name: str

    def build(self, order: Order) -> Built: ...

    def archive(self, image: str) -> bytes: ...


def _common(order: Order) -> list[str]:
    """The words that all clients share."""
    build = order.case.build
    words = ["-t", order.tag, "-f", str(order.dockerfile)]
    for name, value in order.args.items():
        words += ["--build-arg", f"{name}={value}"]
    for name, value in build.get("labels", {}).items():
        words += ["--label", f"{name}={value}"]
    for name in ("target", "platform"):
        words += [f"--{name}", build[name]] if name in build else []
    return words


def modern_words(order: Order) -> list[str]:
    """What `docker buildx build` and `estiba build` are told."""
    words = _common(order)
    for name, value in order.case.build.get("contexts", {}).items():
        place = value if "://" in value else str(order.context / value)
        words += ["--build-context", f"{name}={place}"]
    for name, value in order.case.build.get("secrets", {}).items():
        path = order.scratch / f"secret-{name}"
        path.write_text(value)
        words += ["--secret", f"id={name},src={path}"]
    if order.case.build.get("ssh"):
        words += ["--ssh", "default"]
    return [*words, str(order.context)]


class _Client:
    """A door with a program behind it."""

    name = ""

    def __init__(self, daemon: PrivateDaemon) -> None:
        self._daemon = daemon

    def _call(self, words: list[str], variables: Mapping[str, str]) -> Built:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**self._daemon.client_environment(), **variables}, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
        return Built(done.returncode, done.stdout.decode(errors="replace"))

    def archive(self, image: str) -> bytes:
        return self._daemon.docker("save", image).stdout


class ClassicDoor(_Client):
    """The stock docker client without BuildKit."""

    name = "classic"

    def build(self, order: Order) -> Built:
        words = ["docker", "build", *_common(order), str(order.context)]
        return self._call(words, {"DOCKER_BUILDKIT": "0"})


class EstibaDoor(_Client):
    """`estiba build`."""

    name = "estiba"

    def build(self, order: Order) -> Built:
        words = [*ESTIBA, "build", "--progress", "plain", *modern_words(order)]
        with agent(order) as variables:
            return self._call(words, variables)


class ApiDoor(_Client):
    """`POST /build` itself, with the whole context."""

    name = "api"

    def build(self, order: Order) -> Built:
        dockerfile = order.dockerfile.relative_to(order.context)
        build = order.case.build
        query = {
            "t": order.tag, "dockerfile": str(dockerfile), "rm": "1",
            "buildargs": json.dumps(dict(order.args)),
            "labels": json.dumps(build.get("labels", {})),
            **{key: build[key] for key in ("target", "platform") if key in build},
        }  # fmt: skip
        status, answer = self._daemon.request(
            "POST", f"/build?{urllib.parse.urlencode(query)}", tar_of(order.context),
            {"Content-Type": "application/x-tar"},
        )  # fmt: skip
        if isinstance(answer, bytes):
            lines = [json.loads(line) for line in answer.splitlines()]
        else:
            lines = [answer]
        failed = status != 200 or any("error" in line for line in lines)
        return Built(int(failed), "".join(_said(line) for line in lines))


class DockerPyDoor(_Client):
    """The Python client, which packs contexts itself."""

    name = "docker-py"

    def build(self, order: Order) -> Built:
        import docker

        build = order.case.build
        client = docker.APIClient(base_url=self._daemon.url, timeout=_TIMEOUT_S)
        lines = list(
            client.build(
                path=str(order.context), dockerfile=str(order.dockerfile), tag=order.tag, rm=True,
                buildargs=dict(order.args), labels=build.get("labels"),
                target=build.get("target"), decode=True,
            )
        )  # fmt: skip
        client.close()
        return Built(int(any("error" in line for line in lines)), "".join(map(_said, lines)))


class ComposeDoor(_Client):
    """Compose 1, by Debian's docker-compose."""

    name = "compose"

    def build(self, order: Order) -> Built:
        build = order.case.build
        wanted = {
            "context": str(order.context),
            # It expands variables of its own.
            "args": {name: value.replace("$", "$$") for name, value in order.args.items()},
            "dockerfile": str(order.dockerfile.relative_to(order.context)),
            **{key: build[key] for key in ("labels", "target") if key in build},
        }  # fmt: skip
        service = {"image": order.tag, "build": wanted}
        file = order.scratch / "compose.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({"version": "3.8", "services": {"one": service}}))
        words = ["docker-compose", "-f", str(file), "build"]
        return self._call(words, {"COMPOSE_DOCKER_CLI_BUILD": "0", "DOCKER_BUILDKIT": "0"})


def _said(line: dict[str, Any]) -> str:
    return str(line.get("stream") or line.get("error") or line.get("message") or "")


def tar_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=_as_root)
    return buffer.getvalue()


def _as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


@contextlib.contextmanager
def agent(order: Order) -> Iterator[dict[str, str]]:
    """An ssh-agent of its own for a case that asks for one."""
    if not order.case.build.get("ssh"):
        yield {}
        return
    path = order.scratch / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        yield {"SSH_AUTH_SOCK": str(path)}
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Outcome:
    built: Built
    found: dict[str, Any]
    """As `expected.json`; empty when the build failed."""


def take(case: Case, door: Door, base: Archived, scratch: Path) -> Outcome:
    """Builds the case through the door and looks at what came out of it."""
    context = make_context(case, scratch / "context")
    # Not within what a client sends.
    served = (context / case.serves).rename(scratch / "served") if case.serves else scratch
    for tag, dockerfile in case.build.get("before", {}).items():
        first = Order(context, context / dockerfile, tag, Case(tag, case.folder, {}), {}, scratch)
        built = door.build(first)
        assert built.code == 0, built.output
    with serving(served) if case.serves else contextlib.nullcontext("") as server:
        args = dict(case.build.get("args", {}))
        if server:
            args["SERVER"] = server
        tag = f"corpus-{case.name.lower()}-{door.name}"
        order = Order(context, context / case.dockerfile, tag, case, args, scratch)
        built = door.build(order)
        if built.code:
            return Outcome(built, {})
        found = describe(read(door.archive(tag)), base)
        return Outcome(built, without_address(found, server))


def without_address(found: dict[str, Any], server: str) -> dict[str, Any]:
    if not server:
        return found
    text = json.dumps(found, ensure_ascii=False).replace(server, "SERVER")
    neutral: dict[str, Any] = json.loads(text)
    return neutral


_PLACE = re.compile(r"(?:file:|line )(\d+)(?::(\d+))?")
_UNCHANGED = re.compile(r"^\(empty\) (?=(RUN|COPY|ADD|WORKDIR) )")
_ARGUMENTS = re.compile(r"^RUN \|\d+ .*? (?=/bin/sh )")


def places(output: str) -> list[tuple[int, int]]:
    """Every line and column (0 where none is told) of a Dockerfile that a message names."""
    return [(int(line), int(column or 0)) for line, column in _PLACE.findall(output)]


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Without what differs by intent.

    BuildKit's history tells all arguments in scope of a RUN, ours those that it uses; and a step
    that changes nothing has an empty layer there, none here.
    """
    history = [_ARGUMENTS.sub("RUN ", _UNCHANGED.sub("", line)) for line in found["history"]]
    spared = sum(bool(_UNCHANGED.match(line)) for line in found["history"])
    return {**found, "history": history, "layers": found["layers"] + spared}


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Line by line; empty where they are the same."""
    texts = [
        json.dumps(comparable(one), indent=1, ensure_ascii=False, sort_keys=True).splitlines()
        for one in (expected, found)
    ]
    return "\n".join(difflib.unified_diff(*texts, "expected", "found", lineterm="", n=0))
