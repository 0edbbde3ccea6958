"""Who may do what to which repository: a file of TOML, read once.

    [groups]
    builders = ["ana", "ben"]

    [[repository]]
    match = "team/**"
    read = ["*"]
    write = ["@builders"]
    delete = ["ana"]

The first `[[repository]]` whose `match` fits decides; where none fits, nothing is allowed. `*` in
`match` is any part of one component of the name, `**` any part of the name. People are named as
in the htpasswd file, `@group` is a group, `*` whoever has signed in, `anonymous` everybody.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from estiba.model.errors import InvalidArgument
from estiba.registry.auth.identity import Action

EVERYBODY = "anonymous"
SIGNED_IN = "*"
_WORDS = {"read": Action.PULL, "write": Action.PUSH, "delete": Action.DELETE}


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[repository]]`: names, and people by action."""

    pattern: re.Pattern[str]
    people: Mapping[Action, frozenset[str]]


class Policy:
    """Rules in their order."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._people = lru_cache(maxsize=4096)(self._find)

    def allows(self, user: str, repository: str, action: Action) -> bool:
        """`user` is "" for somebody unknown."""
        people = self._people(repository).get(action, frozenset())
        return EVERYBODY in people or (bool(user) and (SIGNED_IN in people or user in people))

    def _find(self, repository: str) -> Mapping[Action, frozenset[str]]:
        for rule in self._rules:
            if rule.pattern.fullmatch(repository):
                return rule.people
        return {}


def open_to(people: str) -> Policy:
    """Everything is allowed to `people`: SIGNED_IN or EVERYBODY."""
    return Policy([Rule(re.compile(".*"), dict.fromkeys(Action, frozenset([people])))])


def read_policy(path: Path) -> Policy:
    """Raises InvalidArgument that names the file and what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text())
        return _policy_of(content)
    except OSError as error:
        raise InvalidArgument(f"cannot read the policy {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InvalidArgument) as error:
        raise InvalidArgument(f"the policy {path}: {error}") from error


def _policy_of(content: dict[str, Any]) -> Policy:
    _only(content, {"groups", "repository"}, "the file")
    groups = content.get("groups", {})
    if not isinstance(groups, dict):
        raise InvalidArgument("groups must be a table of lists of names")
    members = {name: _names(people, f"the group {name}") for name, people in groups.items()}
    rules = content.get("repository", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise InvalidArgument("write each rule under [[repository]]")
    return Policy([_rule_of(rule, members) for rule in rules])


def _rule_of(rule: dict[str, Any], groups: Mapping[str, list[str]]) -> Rule:
    _only(rule, {"match", *_WORDS}, "a rule")
    match = rule.get("match")
    if not isinstance(match, str) or not match:
        raise InvalidArgument("a rule needs `match`, a pattern of repositories")
    people = {}
    for word, action in _WORDS.items():
        named = _names(rule.get(word, []), f"{word} of {match!r}")
        people[action] = frozenset(person for name in named for person in _expand(name, groups))
    return Rule(_pattern(match), people)


def _expand(name: str, groups: Mapping[str, list[str]]) -> list[str]:
    if not name.startswith("@"):
        return [name]
    if name[1:] not in groups:
        raise InvalidArgument(f"there is no group {name[1:]!r}")
    return groups[name[1:]]


def _pattern(match: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(p, re.escape(p)) for p in re.split(r"(\*\*?)", match)))


def _names(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise InvalidArgument(f"{where} must be a list of names")
    return value


def _only(table: Mapping[str, object], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise InvalidArgument(f"{where} has {key!r}: known are {', '.join(sorted(known))}")
