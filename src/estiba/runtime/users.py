"""Who a container's program runs as: names resolved from the image's own passwd and group.

Read inside the container's root, never through the host's name service and never past a
symlink that leads out of it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from estiba.kernel.confined import open_in_root
from estiba.model.errors import InvalidArgument

_MAX_ID = 2**31 - 1
_NEGATIVE = re.compile(r"-\d+")
_MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class User:
    """`groups` are the supplementary ones, the primary group among them.

    A file may give its group less than all others: without the primary group there, a process
    that changes its group would no longer count as that group.
    """

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of passwd (`name:x:uid:gid:gecos:home:shell`)."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    """A line of group (`name:x:gid:member,member`)."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> User:
    """`user` is "", a name or uid, optionally with `:` and a group name or gid.

    Raises InvalidArgument for a name that the image does not know and a number out of range.
    """
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd = _read(root, "etc/passwd")
        group = _read(root, "etc/group")
    finally:
        os.close(root)
    return decide_user(passwd, group, user, group_add)


def decide_user(passwd: str, group: str, user: str, group_add: Sequence[str] = ()) -> User:
    """The same on the content of the two files. Pure.

    A number that the files do not list is taken as it is; without a group the one of the passwd
    entry applies, and then the groups that list the user as a member too.
    """
    who, _, which = user.partition(":")
    if _NEGATIVE.fullmatch(who) or _NEGATIVE.fullmatch(which):
        raise InvalidArgument(f"uids and gids must be in range 0-{_MAX_ID}: {user[:64]}")
    entry = _find_user(passwd, who or "0")
    if entry is None and not _is_number(who or "0"):
        raise InvalidArgument(f"unable to find user {who[:64]}: no matching entries in passwd file")
    groups = list(_groups(group))
    uid = entry.uid if entry else int(who or "0")
    gid = entry.gid if entry else 0
    additional: list[int] = []
    if which:
        gid = _group_id(groups, which)
    elif entry is not None:
        additional = [each.gid for each in groups if entry.name in each.members]
    additional += [_group_id(groups, name) for name in group_add]
    unique = tuple(dict.fromkeys([gid, *additional]))
    _check_range(uid, gid, *unique)
    return User(uid, gid, unique, entry.home if entry and entry.home else "/")


def _find_user(passwd: str, who: str) -> _Entry | None:
    """By name first: a name may look like a number; the first line wins."""
    by_number = None
    for entry in _entries(passwd):
        if entry.name == who:
            return entry
        if by_number is None and _is_number(who) and entry.uid == int(who):
            by_number = entry
    return by_number


def _group_id(groups: list[_Group], which: str) -> int:
    for group in groups:
        if group.name == which:
            return group.gid
    if not _is_number(which):
        raise InvalidArgument(
            f"unable to find group {which[:64]}: no matching entries in group file"
        )
    return int(which)


def _entries(passwd: str) -> Iterator[_Entry]:
    for line in passwd.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 4 and _is_number(parts[2]) and _is_number(parts[3]):
            home = parts[5] if len(parts) > 5 else ""
            yield _Entry(parts[0], int(parts[2]), int(parts[3]), home)


def _groups(group: str) -> Iterator[_Group]:
    for line in group.splitlines():
        parts = line.strip().split(":")
        if len(parts) >= 3 and _is_number(parts[2]):
            members = parts[3].split(",") if len(parts) > 3 and parts[3] else []
            yield _Group(parts[0], int(parts[2]), tuple(members))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_ID))


def _check_range(*ids: int) -> None:
    for each in ids:
        if each > _MAX_ID:
            raise InvalidArgument(f"uids and gids must be in range 0-{_MAX_ID}: {each}")


def _read(root: int, path: str) -> str:
    """A file of the image; "" when it has none or what is there is no plain file."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_MAX_FILE_BYTES).decode(errors="replace")
