"""`estiba build`: asks the daemon for an image, sends what it is made of, shows how it goes.

Progress and failures go to STDERR, results to STDOUT. Ctrl-C closes the connection, which cancels
the build.
"""

from __future__ import annotations

import os
import signal
import sys

from estiba.cli import buildreport, buildsource
from estiba.cli.buildboard import SENDING
from estiba.cli.buildoutputs import Fetcher, check_places, write_metadata, write_whole
from estiba.cli.buildrequest import Request
from estiba.cli.buildview import View, chosen
from estiba.cli.parse import Arguments, UsageError
from estiba.client.buildcontext import gathered
from estiba.client.credentials import config_header
from estiba.client.errors import ClientError
from estiba.client.http import Client
from estiba.client.streams import Signals
from estiba.client.tarstream import END, member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import Any, NoReturn

_KIND = "application/vnd.estiba.build.v1+tar"
_SIGNALLED = 128


def build(client: Client, given: Arguments) -> int:
    mode = given.progress or os.environ.get("BUILDKIT_PROGRESS") or "auto"
    view = chosen(mode, sys.stderr, quiet=bool(given.quiet), explained=bool(given.explain_cache))
    request = Request(given)
    check_places(request.outputs)
    _forget(given.iidfile)
    # Whether one answers is found out before STDIN is read.
    if client.is_docker:
        from estiba.cli.buildclassic import build_classic

        return build_classic(client, given, request)
    work = _Work(client, given, request, view)
    ends = Signals({signal.SIGTERM: _ended, signal.SIGHUP: _ended})
    with ends, work.agents(), view:
        outcome = work.ask()
        if "result" in outcome:
            Fetcher(client, request.outputs, request.caches_to, view).fetch(
                outcome["result"].get("outputs") or []
            )
    if given.explain_cache:
        buildreport.tell(sys.stderr, buildreport.explanation(view.board))
    if "result" in outcome:
        return work.succeed(outcome["result"])
    return work.fail(outcome)


def _ended(number: int) -> NoReturn:
    """As Ctrl-C does it, so that nothing is left behind."""
    raise SystemExit(_SIGNALLED + number)


def _forget(path: str) -> None:
    """What an earlier build left must not be taken for this one's."""
    try:
        if path and os.path.isfile(path):
            os.unlink(path)
    except OSError as error:
        raise ClientError(f"cannot remove {path}: {error.strerror}") from error


class _Work:
    """One build: what is sent, and what is made of the answer."""

    def __init__(self, client: Client, given: Arguments, request: Request, view: View) -> None:
        self._client = client
        self._given = given
        self._request = request
        self._view = view
        self._source = buildsource.find(given)
        if request.is_check:
            self._source.send_only_dockerfile()
        self._told, self._folders = buildsource.named_contexts(given.build_context)
        self._cache_folders = {
            index: cache.folder for index, cache in enumerate(request.caches_from) if cache.folder
        }

    def agents(self) -> AbstractContextManager[object]:
        from contextlib import nullcontext

        if not self._request.ssh:
            return nullcontext()
        from estiba.client.buildagents import Agents

        return Agents(self._client, self._request.body["session"], self._request.ssh)

    # -- asking ----------------------------------------------------------------------------

    def ask(self) -> dict[str, Any]:
        """The last line of the answer. Raises ClientError."""
        headers = {"Content-Type": _KIND, **config_header()}
        response = self._client.call("POST", "/build", source=self._body(), headers=headers)
        self._view.moved_all(SENDING)
        try:
            for event in response.lines():
                if "result" in event or "error" in event:
                    self._view.last(event)
                    return dict(event)
                self._view.event(event)
        except ValueError as error:
            raise ClientError(f"the daemon's answer cannot be understood: {error}") from error
        finally:
            response.close()
        raise ClientError("the daemon ended the build without a result: its log may say why")

    def _body(self) -> Iterator[bytes]:
        sent = 0
        for piece in gathered(self._members()):
            sent += len(piece)
            self._view.moved(SENDING, "[internal] load build context", sent)
            yield piece

    def _members(self) -> Iterator[bytes]:
        source = self._source
        yield member("request.json", self._request.text(self._more()), mode=0o600)
        yield from source.members()
        yield from buildsource.named_members(self._folders)
        yield from buildsource.cache_members(self._cache_folders)
        yield END

    def _more(self) -> dict[str, Any]:
        """What only context and configuration know."""
        return {
            "build_args": self._request.arguments(self._client),
            "dockerfile": self._source.dockerfile,
            "remote": self._source.remote,
            "contexts": self._told,
        }

    # -- what came of it -------------------------------------------------------------------

    def succeed(self, result: dict[str, Any]) -> int:
        warnings = self._view.board.warnings
        self._warn()
        if self._request.is_check:
            return 1 if warnings else 0
        image, given = str(result.get("image") or ""), self._given
        if given.iidfile:
            write_whole(given.iidfile, [image.encode()])
        if given.metadata_file:
            write_metadata(given.metadata_file, result.get("metadata") or {})
        if given.quiet and not any(output.dest == "-" for output in self._request.outputs):
            print(image)
        elif self._view.shows and image:
            tags = ", ".join(result.get("tags") or [])
            buildreport.tell(sys.stderr, f"\nBuilt {image}" + (f"\nTagged {tags}" if tags else ""))
        return 0

    def _warn(self) -> None:
        """What was noticed in the Dockerfile: all of it when that was asked for, else in short."""
        warnings = self._view.board.warnings
        if self._request.is_check:
            text = buildreport.check_text(warnings, self._source.text, self._source.shown)
            buildreport.tell(sys.stdout, text)
        elif warnings and self._view.shows:
            buildreport.tell(sys.stderr, buildreport.warnings_summary(warnings))

    def fail(self, event: dict[str, Any]) -> int:
        if self._view.board.warnings:
            self._warn()
        is_quiet = self._view.tells_failures
        if not is_quiet:
            text = buildreport.failure_text(event, self._view.board, self._source.shown)
            buildreport.tell(sys.stderr, text)
        if self._request.is_check:
            return 1
        state = str((event.get("failed") or {}).get("state") or "")
        if state and self._given.debug and buildreport.is_terminal():
            self._open_shell(state)
        elif state and not is_quiet:
            buildreport.tell(
                sys.stderr, buildreport.state_text(state, is_known=bool(self._given.debug))
            )
        return 1

    def _open_shell(self, state: str) -> None:
        """In a container of the failed state, which goes when the shell or the terminal ends."""
        from estiba.cli import commands, run
        from estiba.cli.parse import Parser

        short = buildreport.short(state)
        buildreport.tell(sys.stderr, f"A shell in the state at which it failed, {short}:")
        name = f"debug-{short}-{os.urandom(4).hex()}"
        # A shell that is process 1 ignores the signals of a terminal that is gone.
        words = ["-i", "-t", "--rm", "--sig-proxy=false", "--name", name, "--pull", "never", state]
        flags = commands.CONTAINER["run"].flags()
        arguments = Parser(flags).parse(words, interspersed=False)
        arguments.path = "run"
        try:
            with Signals({signal.SIGTERM: _ended, signal.SIGHUP: _ended}):
                run.run(self._client, arguments)
        except (SystemExit, KeyboardInterrupt):
            self._client.delete(f"/containers/{name}", {"force": True, "v": True})
            raise
        except UsageError as error:
            text = buildreport.without_shell(state, error.__cause__ or error)
            buildreport.tell(sys.stderr, text)
