"""Whom `--chown` names: looked up in the tree that the files go to."""

from __future__ import annotations

from pathlib import Path

from estiba.model.errors import InvalidArgument
from estiba.runtime.users import resolve_user


def resolve_owner(root: Path, owner: str) -> tuple[int, int]:
    """`user`, `user:group`, names or numbers. A number alone is the group's too; a name alone
    means the user's own group. What is empty beside a colon is root's.

    Raises InvalidArgument for a name that the tree does not know.
    """
    user, colon, group = owner.partition(":")
    if not (user or group) or ":" in group:
        raise InvalidArgument(f"invalid chown string {owner[:64]!r}: use user, user:group or ids")
    if colon:
        user, group = user or "0", group or "0"
    elif user.isascii() and user.isdigit():
        group = user
    try:
        found = resolve_user(root, f"{user}:{group}" if group else user)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"unable to convert uid/gid chown string {owner[:64]!r}: {error}"
        ) from error
    return found.uid, found.gid
