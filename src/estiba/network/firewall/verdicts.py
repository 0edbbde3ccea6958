"""One rule of the host's firewall, taken apart as far as the mirror needs it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUOTED = re.compile(r'"[^"]*"')
_COMMENT = re.compile(r'\s*\bcomment "[^"]*"$')
_UNKNOWN_MATCH = re.compile(r'\bxt match "?[\w-]+"?\s*')
_UNKNOWN_TARGET = re.compile(r'\bxt target "?([\w-]+)"?')
_VERDICT = re.compile(
    r"(?:^|\s)(accept|drop|return|continue|queue(?: .*)?|reject(?: with .*)?"
    r"|(?:jump|goto) \S+|vmap (?:\{.*\}|@\S+))$"
)
_VALUE = r'(?:0x[0-9a-f]+|\d+|"[^"]*")(?!\s*[&|^<>])'
_EFFECT = (
    r"\b(?:meta \w+|ct \w+(?: \w+)?|ip6? \w+|tcp option \w+ \w+|(?:tcp|udp|th|ether) \w+"
    r"|@\w+,\d+,\d+) set "
)
_PLAIN_EFFECT = re.compile(_EFFECT + _VALUE + r"\s*")
_OTHER_EFFECT = re.compile(
    _EFFECT + r"|\b(?:notrack|tproxy|synproxy|dup to|fwd to|flow add|counter name|quota name"
    r"|limit name|secmark|socket)\b"
)
_COUNTER = re.compile(r"\bcounter\b(?! name)\s*")
_NO_PORT = re.compile(
    r"\b(?:meta l4proto|ip protocol|ip6 nexthdr) (?:icmp|icmpv6|ipv6-icmp|igmp|esp|ah|gre|vrrp)\b"
)
_MARK = re.compile(r"\b(?:meta|ct) mark\b(?! set )")
_SETS_MARK = re.compile(r"\b(?:meta|ct) mark set ")
_SWALLOWING = frozenset(("TARPIT", "DELUDE", "CHAOS", "NFQUEUE", "QUEUE", "SYNPROXY"))


@dataclass(frozen=True, slots=True)
class Rule:
    """`matches` are what comes before the verdict, without what cannot be expressed."""

    matches: str
    verdict: str
    is_understood: bool

    @property
    def kind(self) -> str:
        """accept, drop, return, jump, goto, vmap, or empty for a rule without a verdict."""
        word = self.verdict.partition(" ")[0]
        return {"reject": "drop", "queue": "drop", "continue": ""}.get(word, word)


def take_apart(text: str, *, marks_change: bool) -> Rule:
    """A rule for a protocol without ports comes out empty: it has no say.

    `marks_change`: a mark may be another one by now than it would be for the host itself."""
    text = _COMMENT.sub("", text)
    understood = True
    if _NO_PORT.search(_blank(text)):
        return Rule("", "", is_understood=False)
    target = _UNKNOWN_TARGET.search(text)
    if target:
        understood = False
        verdict = " drop" if target[1] in _SWALLOWING else ""
        text = text[: target.start()].rstrip() + verdict
    found = _VERDICT.search(_blank(text))
    end = found.start() if found else len(text)
    matches, verdict = text[:end], text[end:].strip()
    if verdict.startswith("queue"):
        understood = False
    matches = _without_counters(matches)
    without = _UNKNOWN_MATCH.sub("", matches)
    understood &= without == matches
    matches = _PLAIN_EFFECT.sub("", without)
    effect = _OTHER_EFFECT.search(_blank(matches))
    if effect:
        understood = False
        matches = matches[: effect.start()]
    if marks_change and _MARK.search(_blank(matches)):
        understood = False
        matches = matches[: _MARK.search(_blank(matches)).start()]  # type: ignore[union-attr]
    return Rule(matches.strip(), verdict, understood)


def sets_mark(text: str) -> bool:
    return bool(_SETS_MARK.search(_blank(text)))


def _without_counters(text: str) -> str:
    """The copy has nobody who reads them."""
    found = list(_COUNTER.finditer(_blank(text)))
    for each in reversed(found):
        text = text[: each.start()] + text[each.end() :]
    return text


def _blank(text: str) -> str:
    """As long as before, with nothing in the quotes that could be taken for a word."""
    return _QUOTED.sub(lambda found: '"' + "_" * (len(found[0]) - 2) + '"', text)
