"""Patterns as tokens, and an automaton that matches many of them at once. Pure.

It takes one step a character whatever the patterns are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

NOT_SLASH = "[^/]"
_MAX_NODES = 4096


class Kind(Enum):
    ONE = "one character that is no slash"
    SLASH = "a slash"
    ANY = "one character, a slash perhaps"
    STAR = "any number of characters that are no slash"
    MANY = "any number of some characters"
    TREE = "any number of whole directories"
    REST = "all that follows"
    NEVER = "what cannot be there"


SKIPPABLE = (Kind.STAR, Kind.MANY, Kind.TREE, Kind.REST)


@dataclass(frozen=True, slots=True)
class Token:
    """`source` is the regular expression of one character."""

    kind: Kind
    source: str = NOT_SLASH


_State = tuple[int, int, bool]
"""(pattern, number of its tokens done, whether the next one, a TREE, has begun)"""


@dataclass(slots=True, eq=False)
class _Node:
    """All states that the characters until now lead to."""

    states: frozenset[_State]
    is_final: bool
    following: dict[str, _Node] = field(default_factory=dict)


class Automaton:
    """Any of several patterns, all ways to match at once, one character of the path after the
    other. What was worked out once is kept, within limits. Threads may share it."""

    def __init__(self, patterns: Sequence[Sequence[Token]]) -> None:
        self._patterns = [
            [(token.kind, re.compile(token.source)) for token in tokens] for tokens in patterns
        ]
        self._nodes: dict[frozenset[_State], _Node] = {}
        self._start = self._node({(number, 0, False) for number in range(len(patterns))})

    def matches(self, path: str) -> bool:
        """Whether a pattern matches the path or a parent of it."""
        node = self._start
        for char in path:
            if char == "/" and node.is_final:
                return True
            following = node.following.get(char)
            if following is None:
                following = self._node(self._step(node.states, char))
                node.following[char] = following
            node = following
        return node.is_final

    def _node(self, states: set[_State]) -> _Node:
        whole = self._closure(states)
        node = self._nodes.get(whole)
        if node is None:
            if len(self._nodes) >= _MAX_NODES:
                self._start = _Node(self._start.states, self._start.is_final)
                self._nodes = {self._start.states: self._start}
            is_final = any(index == len(self._patterns[number]) for number, index, _ in whole)
            node = self._nodes[whole] = _Node(whole, is_final)
        return node

    def _closure(self, states: set[_State]) -> frozenset[_State]:
        """With what is reached by letting a token match nothing."""
        waiting = list(states)
        while waiting:
            number, index, is_within = waiting.pop()
            tokens = self._patterns[number]
            if is_within or index == len(tokens) or tokens[index][0] not in SKIPPABLE:
                continue
            following = (number, index + 1, False)
            if following not in states:
                states.add(following)
                waiting.append(following)
        return frozenset(states)

    def _step(self, states: frozenset[_State], char: str) -> set[_State]:
        following: set[_State] = set()
        for number, index, _ in states:
            tokens = self._patterns[number]
            if index == len(tokens):
                continue
            kind, one = tokens[index]
            if kind is Kind.TREE and char == "/":
                following.add((number, index + 1, False))
            if one.match(char):
                if kind is Kind.TREE:
                    following.add((number, index, True))
                elif kind in (Kind.STAR, Kind.MANY, Kind.REST):
                    following.add((number, index, False))
                else:
                    following.add((number, index + 1, False))
        return following
