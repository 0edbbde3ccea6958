"""Builds asked for over raw HTTP, in the classic form and in that of `estiba build`."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.support.daemon import DEADLINE_S, PATIENCE, PrivateDaemon, UnixConnection

Json = dict[str, Any]
File = str | bytes | tarfile.TarInfo
BUNDLE = "application/vnd.estiba.build.v1+tar"
_TIMEOUT_S = 120 * PATIENCE

GATE = "--mount=type=cache,id=gate,target=/gate"
"""A folder that steps of several builds share while they run: what they do waits for files."""


def waits_for(name: str) -> str:
    """What a step that mounts GATE says to end after somebody has made that file."""
    tries = round(600 * PATIENCE)
    return (
        f"n=0; until [ -e /gate/{name} ]; do n=$((n+1)); [ $n -lt {tries} ] || exit 1; "
        "sleep 0.1; done"
    )


def open_gate(daemon: PrivateDaemon, name: str) -> None:
    """By another build."""
    build(daemon, {"Dockerfile": f"FROM busybox\nRUN {GATE} touch /gate/{name}\n"})


def context_tar(files: Mapping[str, File], *, mtime: int = 0, mode: int = 0o644) -> bytes:
    """A context; a TarInfo stands for itself, without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), mtime, mode
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def link_to(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@dataclass(frozen=True)
class Step:
    text: str
    is_cached: bool
    id: str


@dataclass
class Answer:
    """What came back, line by line."""

    status: int
    lines: list[Json] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(line.get("stream", "") for line in self.lines)

    @property
    def error(self) -> str:
        return "".join(line.get("error", line.get("message", "")) for line in self.lines)

    @property
    def image(self) -> str:
        found = [line["aux"]["ID"] for line in self.lines if "aux" in line]
        assert len(found) == 1, self.lines
        return str(found[0])

    @cached_property
    def steps(self) -> list[Step]:
        """Of a classic stream."""
        found = []
        for block in self.text.split("Step ")[1:]:
            lines = block.splitlines()
            text = lines[0].partition(" : ")[2]
            ids = [line[6:] for line in lines if line.startswith(" ---> ")]
            found.append(Step(text, " ---> Using cache" in lines, ids[-1] if ids else ""))
        return found

    @property
    def done(self) -> list[str]:
        """The instructions that were carried out."""
        acting = ("RUN", "COPY", "ADD", "WORKDIR")
        return [
            one.text
            for one in self.steps
            if one.text.upper().startswith(acting) and not one.is_cached
        ]


def query_of(options: Mapping[str, Any]) -> str:
    return urllib.parse.urlencode(
        {
            name: json.dumps(value) if isinstance(value, dict) else value
            for name, value in options.items()
        },
        doseq=True,
    )


class Going:
    """A build under way, as its client sees it."""

    def __init__(
        self, daemon: PrivateDaemon, target: str, body: bytes, headers: Mapping[str, str]
    ) -> None:
        self._connection = UnixConnection(daemon.socket)
        self._connection.timeout = _TIMEOUT_S
        self._connection.request("POST", target, body, headers)
        self._response = self._connection.getresponse()
        self.answer = Answer(self._response.status)

    def read(self) -> Iterator[Json]:
        for raw in self._response:
            if raw.strip():
                line = json.loads(raw)
                self.answer.lines.append(line)
                yield line

    def until(self, is_it: Callable[[Json], bool]) -> Json:
        for line in self.read():
            if is_it(line):
                return line
        raise AssertionError(f"it ended first: {self.answer.lines}")

    def rest(self) -> Answer:
        for _ in self.read():
            pass
        self._connection.close()
        return self.answer

    def leave(self) -> None:
        """The client is gone, at once."""
        sock = self._connection.sock
        self._response.close()
        if sock is not None:
            sock.close()
        self._connection.close()


def begin(
    daemon: PrivateDaemon,
    files: Mapping[str, File] | bytes,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Going:
    body = files if isinstance(files, bytes) else context_tar(files)
    kind = {"Content-Type": "application/x-tar", **(headers or {})}
    return Going(daemon, f"/v1.51/build?{query_of(options)}", body, kind)


def build(daemon: PrivateDaemon, files: Any, headers: Any = None, **options: Any) -> Answer:
    """In the classic form; it must not fail."""
    answer = begin(daemon, files, headers, **options).rest()
    assert answer.status == 200 and not answer.error, answer.lines
    return answer


def failed(daemon: PrivateDaemon, files: Any, headers: Any = None, **options: Any) -> Answer:
    answer = begin(daemon, files, headers, **options).rest()
    assert answer.error, answer.lines
    return answer


def begin_bundle(daemon: PrivateDaemon, files: Mapping[str, File], **request: Any) -> Going:
    """In the form of `estiba build`."""
    members: dict[str, File] = {"request.json": json.dumps(request)}
    members |= {f"contexts/context/{name}": content for name, content in files.items()}
    return Going(daemon, "/v1.51/build", context_tar(members), {"Content-Type": BUNDLE})


def bundle(daemon: PrivateDaemon, files: Mapping[str, File], **request: Any) -> Answer:
    answer = begin_bundle(daemon, files, **request).rest()
    assert answer.status == 200 and not answer.error, answer.lines
    return answer


def reasons(answer: Answer) -> dict[str, str]:
    """Of a bundle's answer: why each step hit or missed, by its text."""
    texts = {
        line["started"]["vertex"]["id"]: line["started"]["vertex"]["text"]
        for line in answer.lines
        if "started" in line
    }
    ends = [line["finished"] for line in answer.lines if "finished" in line]
    return {texts[end["id"]]: end["reason"] for end in ends if end["reason"]}


def spans(answer: Answer) -> dict[str, tuple[int, int]]:
    """Of a bundle's answer: when each step began and ended, by its text."""
    begun = {
        line["started"]["vertex"]["id"]: (
            line["started"]["vertex"]["text"],
            line["started"]["time"],
        )
        for line in answer.lines
        if "started" in line
    }
    ends = {
        line["finished"]["id"]: line["finished"]["time"]
        for line in answer.lines
        if "finished" in line
    }
    return {text: (start, ends[one]) for one, (text, start) in begun.items() if one in ends}


def at_once(*works: Callable[[], Answer]) -> list[Answer]:
    """All of them, each in a thread of its own."""
    found: list[Answer | BaseException | None] = [None] * len(works)

    def work(number: int) -> None:
        try:
            found[number] = works[number]()
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT_S + DEADLINE_S)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return [one for one in found if isinstance(one, Answer)]
