"""Which devices a container may use: none, but for those that are the same everywhere."""

from __future__ import annotations

import re

from estiba.model.errors import InvalidArgument

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")

# Sources and sinks of bytes, random numbers, the process's own terminal. /dev/full, /dev/ptmx
# and the pts are added by every runtime (runtime-spec, "Default Devices").
_HARMLESS = ((1, 3), (1, 5), (1, 8), (1, 9), (5, 0), (5, 1))

Rule = dict[str, object]

DEFAULT_RULES: tuple[Rule, ...] = (
    {"allow": False, "access": "rwm"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in _HARMLESS
    ),
)
EVERYTHING: tuple[Rule, ...] = ({"allow": True, "access": "rwm"},)


def parse_device_rule(text: str) -> Rule:
    """One entry of HostConfig.DeviceCgroupRules, such as `c 189:* rmw`.

    Raises InvalidArgument when it is none.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text[:100]}'")
    kind, major, minor, access = match.groups()
    rule: Rule = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule
