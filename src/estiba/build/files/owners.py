"""Whom `--chown` names: looked up in the tree that the files go to."""

from __future__ import annotations

from pathlib import Path

from estiba.model.errors import InvalidArgument
from estiba.runtime.users import resolve_user


def resolve_owner(root: Path, owner: str) -> tuple[int, int]:
    """`user`, `user:group`, names or numbers. A number alone is the group's too; a name alone
    means the user's own group.

    Raises InvalidArgument for a name that the tree does not know.
    """
    user, colon, group = owner.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise InvalidArgument(f"invalid chown string {owner[:64]!r}: use user, user:group or ids")
    if user.isascii() and user.isdigit() and not group:
        group = user
    try:
        found = resolve_user(root, f"{user}:{group}" if group else user)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"unable to convert uid/gid chown string {owner[:64]!r}: {error}"
        ) from error
    return found.uid, found.gid
