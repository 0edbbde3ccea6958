"""nftables through libnftables, in the nft language: one call is one atomic transaction.

Contexts may be used from any thread, one after the other: libnftables is not made for several
threads, whatever the contexts. After a command that failed a context is replaced, because
libnftables 1.0 keeps objects of the failed batch in its cache.
What others do to the ruleset is watched by netlink, not by polling.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from estiba.kernel.netlink import NETLINK_NETFILTER, parse_attributes
from estiba.model.errors import Internal, NotFound, Unavailable

_LIBRARY = "libnftables.so.1"
_NFT_CTX_OUTPUT_JSON, _NFT_CTX_OUTPUT_TERSE = 1 << 4, 1 << 11
_GROUP_NFTABLES = 1 << 6
_NFT_MSG_NEWGEN = (10 << 8) | 15
_NFTA_GEN_PROC_PID = 2
_HEADERS = struct.Struct("=IHHIIBBH")
_SETTLED_MS = 100
_OVERDUE_S = 0.8
_MISSING = re.compile(r"No such file or directory")

_library_lock = threading.Lock()
"""Contexts share a cache of link names, which each command frees, and the matches of iptables."""


class Nft:
    """A libnftables context; `run` and `list_json` may be called from any thread."""

    def __init__(self) -> None:
        self._library = _load()
        self._context: int | None = None

    def run(self, commands: str) -> None:
        """Executes `commands` wholly or not at all.

        Raises NotFound when they name something that does not exist, Internal otherwise.
        """
        self._execute(commands, flags=0)

    def list_json(self, command: str, *, terse: bool = False) -> list[dict[str, Any]]:
        """The objects that a `list` command prints, `terse` without the elements of sets.

        Raises as `run` does.
        """
        flags = _NFT_CTX_OUTPUT_JSON | (_NFT_CTX_OUTPUT_TERSE if terse else 0)
        output = self._execute(command, flags=flags, changes=False)
        answer: dict[str, list[dict[str, Any]]] = msgspec.json.decode(output or b"{}")
        return [entry for entry in answer.get("nftables", []) if "metainfo" not in entry]

    def list_text(self, command: str) -> str:
        """What a `list` command prints, in the nft language. Rules that iptables made are
        translated as far as the library can. Raises as `run` does.
        """
        return self._execute(command, flags=0, changes=False).decode(errors="replace")

    def check(self, commands: str) -> None:
        """Raises as `run` would, but changes nothing."""
        self._execute(commands, flags=0, dry=True)

    def close(self) -> None:
        with _library_lock:
            self._discard()

    def _execute(
        self, commands: str, *, flags: int, dry: bool = False, changes: bool = True
    ) -> bytes:
        with _library_lock:
            if self._context is None:
                self._context = self._library.nft_ctx_new(0)
                self._library.nft_ctx_buffer_output(self._context)
                self._library.nft_ctx_buffer_error(self._context)
            self._library.nft_ctx_output_set_flags(self._context, flags)
            self._library.nft_ctx_set_dry_run(self._context, dry)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
            if not failed:
                return output
            raw: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
            if changes:
                # Five milliseconds, and a list that found nothing has spoiled nothing.
                self._discard()
        reason = raw.decode(errors="replace").strip()
        if _MISSING.search(reason):
            raise NotFound(f"nftables: {reason}")
        raise Internal(f"nftables refused a change: {reason}")

    def _discard(self) -> None:
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


class RulesetWatch:
    """Calls back, in a thread of its own, when another process has changed the ruleset.

    Changes in quick succession cost one call, at the latest after a second. `tick_s`, if it gives
    a number, calls back after so many seconds without a change too.
    """

    def __init__(
        self, changed: Callable[[], None], tick_s: Callable[[], float | None] = lambda: None
    ) -> None:
        self._changed = changed
        self._tick_s = tick_s
        self._socket = open_notices()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="ruleset-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._socket.close()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        since: float | None = None
        while True:
            ready = {fd for fd, _ in poll.poll(self._patience_ms(since))}
            if self._stop in ready:
                return
            if ready and heard_of_others(self._socket) and since is None:
                since = time.monotonic()
            overdue = since is not None and time.monotonic() - since > _OVERDUE_S
            if overdue or not ready:
                since = None
                self._changed()

    def _patience_ms(self, since: float | None) -> float | None:
        if since is not None:
            return _SETTLED_MS
        tick = self._tick_s()
        return None if tick is None else tick * 1000


def open_notices() -> socket.socket:
    """A socket that hears of every change of the ruleset, in the caller's network namespace."""
    notices = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        NETLINK_NETFILTER,
    )
    notices.bind((0, _GROUP_NFTABLES))
    return notices


def heard_of_others(notices: socket.socket, *, but: int = 0) -> bool:
    """Reads what has come; whether others than this process, and its late thread `but`, did it.

    Notices that were lost (ENOBUFS) may have been of others.
    """
    foreign = False
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                data = notices.recv(1 << 16)
            except BlockingIOError:
                raise
            except OSError:
                foreign = True
                continue
            foreign |= _names_others(data, but)
    return foreign


def _names_others(data: bytes, but: int) -> bool:
    """Whether one of the messages ends a transaction of another process, and not of `but`."""
    offset = 0
    while offset + _HEADERS.size <= len(data):
        length, kind, *_ = _HEADERS.unpack_from(data, offset)
        if kind == _NFT_MSG_NEWGEN:
            message = data[offset + _HEADERS.size : offset + length]
            pid = int.from_bytes(parse_attributes(message).get(_NFTA_GEN_PROC_PID, b""), "big")
            if pid != but and not _is_ours(pid):
                return True
        offset += (length + 3) & ~3
    return False


def _is_ours(pid: int) -> bool:
    """The kernel names the thread, not the process."""
    return pid == os.getpid() or os.path.exists(f"/proc/self/task/{pid}")


@functools.cache
def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise Unavailable(
            f"cannot load {_LIBRARY}: {error}; install nftables (Debian: libnftables1)"
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in (
        "nft_ctx_free",
        "nft_ctx_buffer_output",
        "nft_ctx_buffer_error",
        "nft_ctx_get_output_buffer",
        "nft_ctx_get_error_buffer",
    ):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return library
