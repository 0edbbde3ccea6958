"""The options `type`, `device` and `o` of the local driver, as mount(8) takes them."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from estiba.kernel.mounts import MountFlag, is_mounted, mount, unmount
from estiba.model.errors import FailedPrecondition, Internal, InvalidArgument
from estiba.volumes.backing import DATA, BackingKind

_SET = {
    "ro": MountFlag.RDONLY,
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noexec": MountFlag.NOEXEC,
    "sync": MountFlag.SYNCHRONOUS,
    "mand": MountFlag.MANDLOCK,
    "dirsync": MountFlag.DIRSYNC,
    "noatime": MountFlag.NOATIME,
    "nodiratime": MountFlag.NODIRATIME,
    "relatime": MountFlag.RELATIME,
    "strictatime": MountFlag.STRICTATIME,
    "bind": MountFlag.BIND,
    "rbind": MountFlag.BIND | MountFlag.REC,
}
_CLEARED = {
    "rw": MountFlag.RDONLY,
    "suid": MountFlag.NOSUID,
    "dev": MountFlag.NODEV,
    "exec": MountFlag.NOEXEC,
    "async": MountFlag.SYNCHRONOUS,
    "nomand": MountFlag.MANDLOCK,
    "atime": MountFlag.NOATIME,
    "diratime": MountFlag.NODIRATIME,
    "norelatime": MountFlag.RELATIME,
    "nostrictatime": MountFlag.STRICTATIME,
    "defaults": MountFlag(0),
}
_PROPAGATIONS = {
    "unbindable": MountFlag.UNBINDABLE,
    "private": MountFlag.PRIVATE,
    "shared": MountFlag.SHARED,
    "slave": MountFlag.SLAVE,
}
_PROPAGATIONS |= {f"r{word}": flag | MountFlag.REC for word, flag in _PROPAGATIONS.items()}
_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
_MAX_BYTES = 4095
"""What mount(2) takes of a path and of options."""

_SECRET = re.compile(r"\b(pass(?:word|wd)?2?|cred(?:entials)?|key|secret)=[^,]*", re.IGNORECASE)

Resolver = Callable[[str], str]
"""Name of a host → its address. Raises OSError."""


def resolve_host(name: str) -> str:
    """IPv4 first, as the kernel's NFS client is most often reached."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    addresses = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(addresses[0][4][0])


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """`volumes.backing.Backing`: a file system that lies over `_data` while it is in use.

    `data` is what is left of `o` once the words that are flags have been taken out.
    """

    kind: str
    device: str
    flags: MountFlag
    data: str
    propagation: MountFlag

    def make(self, directory: Path) -> None:
        """Nothing: what is mounted exists elsewhere."""

    def mount(self, directory: Path) -> None:
        target = directory / DATA
        if is_mounted(target):
            return
        asked = self.resolved()
        try:
            asked._mount(target)
        except OSError as error:
            unmount(target)
            raise Internal(
                f"error while mounting volume '{target}': failed to mount local volume: "
                f"mount {asked.device}:{target}{asked._shown_data()}: {asked._reason(error)}"
            ) from None

    def _mount(self, target: Path) -> None:
        mount(self.device, target, self.kind, self.flags, self.data)
        if self.propagation:
            mount("", target, "", self.propagation)
        extra = self.flags & ~(MountFlag.BIND | MountFlag.REC)
        if self.flags & MountFlag.BIND and extra:
            # The mount that makes a bind ignores all other flags (mount(2)).
            mount("", target, "", extra | MountFlag.BIND | MountFlag.REMOUNT)

    def unmount(self, directory: Path) -> None:
        unmount(directory / DATA)

    def resolved(self, resolve: Resolver = resolve_host) -> VolumeMount:
        """With addresses in place of names: the kernel's clients of NFS and CIFS know no DNS.

        Raises FailedPrecondition for a name without an address.
        """
        if self.kind not in ("nfs", "nfs4", "cifs", "smb3"):
            return self
        wanted = _option(self.data, "addr")
        if wanted:
            address = _resolve(wanted, resolve)
            return replace(self, data=_with_option(self.data, "addr", address))
        if self.kind not in ("cifs", "smb3"):
            return self
        host = urlsplit(self.device).hostname or ""
        if not host or _is_address(host):
            return self
        address = _resolve(host, resolve)
        shown = f"[{address}]" if ":" in address else address
        return replace(self, device=unquote(self.device.replace(host, shown, 1)))

    def _shown_data(self) -> str:
        return f", data: {without_secrets(self.data)}" if self.data else ""

    def _reason(self, error: OSError) -> str:
        words = {
            errno.ENODEV: f"this kernel has no file system {self.kind!r}: load its module",
            errno.ENOENT: f"{self.device} does not exist",
            errno.ENOTDIR: f"{self.device} is no directory",
            errno.ENOTBLK: f"{self.device} is no block device: make a loop device of a file "
            "with losetup",
            errno.EINVAL: f"wrong file system type {self.kind!r}, bad option, or no such file "
            f"system on {self.device}",
            errno.EBUSY: f"{self.device} is in use already",
            errno.EACCES: f"{self.device} may not be mounted so: if it is read-only, give o=ro",
        }
        said = os.strerror(error.errno).lower() if error.errno else "failed"
        more = words.get(error.errno or 0)
        return f"{said}: {more}" if more else said


def without_secrets(text: str) -> str:
    """Mount options as they may be shown: what unlocks something is starred out."""
    return _SECRET.sub(lambda found: f"{found[1]}=********", text)


def parse_options(options: Mapping[str, str]) -> VolumeMount | None:
    """The mount that the options ask for, if any. Raises InvalidArgument."""
    if not any(options.get(name) for name in _NEEDS):
        return None
    for name, others in _NEEDS.items():
        for other in others:
            if name in options and not options.get(other):
                raise InvalidArgument(f'missing required option: "{other}"')
    kind, device = options["type"], options["device"]
    _check(kind, device, options.get("o", ""))
    flags = propagation = MountFlag(0)
    data: list[str] = []
    for word in filter(None, options.get("o", "").split(",")):
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        elif word in _PROPAGATIONS:
            propagation = _PROPAGATIONS[word]
        elif word == "remount":
            raise InvalidArgument('option "remount" makes no sense for a volume')
        else:
            data.append(word)
    return VolumeMount(kind, device, flags, ",".join(data), propagation)


def _check(kind: str, device: str, words: str) -> None:
    for what, text in (("type", kind), ("device", device), ("o", words)):
        if "\0" in text or len(text.encode()) > _MAX_BYTES:
            raise InvalidArgument(f'option "{what}" has bad characters or is too long')
    if kind in ("cifs", "smb3"):
        try:
            port = urlsplit(device).port
        except ValueError as error:
            raise InvalidArgument(f"error parsing mount device url: {error}") from error
        if port is not None:
            raise InvalidArgument("port not allowed in CIFS device URL, include 'port' in 'o='")


def _option(data: str, name: str) -> str:
    for word in data.split(","):
        key, _, value = word.partition("=")
        if key == name:
            return value
    return ""


def _with_option(data: str, name: str, value: str) -> str:
    words = (w if w.partition("=")[0] != name else f"{name}={value}" for w in data.split(","))
    return ",".join(words)


def _is_address(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _resolve(name: str, resolve: Resolver) -> str:
    if _is_address(name):
        return name
    try:
        return resolve(name)
    except (OSError, UnicodeError) as error:
        raise FailedPrecondition(
            f"error resolving passed in network volume address: {name}: {error}"
        ) from error


MOUNTED = BackingKind(frozenset({"type", "device", "o"}), parse_options)
