"""Docker's token scopes: `repository:NAME:pull,push` and `registry:catalog:*`."""

from __future__ import annotations

from collections.abc import Iterable

from estiba.registry.auth.identity import CATALOG, Action, Grants
from estiba.registry.auth.policy import Policy
from estiba.registry.routes import is_name

MAX_SCOPES = 64


def scope_of(repository: str, actions: Iterable[Action]) -> str:
    """The scope that a challenge asks for."""
    return f"repository:{repository}:{','.join(actions)}"


CATALOG_SCOPE = f"{CATALOG}:*"


def granted(policy: Policy, user: str, scopes: Iterable[str]) -> Grants:
    """What of `scopes` the policy allows to `user`; what is not understood is left out.

    Docker's `*` for all actions counts as each of ours.
    """
    grants: dict[str, frozenset[str]] = {}
    for scope in [scope for text in scopes for scope in text.split()][:MAX_SCOPES]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if scope == CATALOG_SCOPE:
            grants[CATALOG] = frozenset("*")
        elif kind == "repository" and is_name(name):
            wanted = set(actions.split(","))
            allowed = {
                action
                for action in Action
                if wanted & {action, "*"} and policy.allows(user, name, action)
            }
            grants[name] = grants.get(name, frozenset()) | allowed
    return grants
