"""The project's own table has the effect of the reference profile, whatever the machine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from estiba.kernel.capabilities import NAMES
from estiba.model.errors import InvalidArgument
from estiba.security.profiles import seccomp
from estiba.security.profiles.capabilities import DEFAULT as DEFAULT_CAPABILITIES
from estiba.security.profiles.seccomp_table import DEFAULT

REFERENCE = (Path(__file__).parent / "testfiles" / "docker-default.json").read_text()
MACHINES = [
    seccomp.Machine(architecture, kernel)
    for architecture, kernel in itertools.product(
        ["amd64", "arm64", "s390x", "riscv64", "loong64", "ppc64le", "mips64", "arm", "386"],
        [(4, 4), (4, 7), (4, 8), (5, 10), (6, 18)],
    )
]
CAPABILITY_SETS = [
    (),
    DEFAULT_CAPABILITIES,
    NAMES,
    *((*DEFAULT_CAPABILITIES, name) for name in NAMES),
    ("CAP_SYS_ADMIN",),
]


def normalized(spec: dict) -> tuple[object, ...]:  # type: ignore[type-arg]
    """The effect of a profile: one entry for every call, condition and outcome."""
    rules = set()
    for rule in spec["syscalls"]:
        arguments = tuple(
            (arg["index"], arg["op"], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", [])
        )
        for name in rule["names"]:
            rules.add((name, rule["action"], rule.get("errnoRet"), arguments))
    return (
        spec["defaultAction"],
        spec.get("defaultErrnoRet"),
        sorted(spec["architectures"]),
        sorted(rules, key=repr),
    )


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m.architecture}-{m.kernel}")
def test_same_effect_as_the_reference(machine: seccomp.Machine) -> None:
    for capabilities in CAPABILITY_SETS:
        ours = seccomp.default_profile(machine, capabilities)
        reference = seccomp.load_profile(REFERENCE, machine, capabilities)
        assert normalized(ours) == normalized(reference)


def test_no_call_stands_in_two_groups_of_one_condition() -> None:
    seen = set()
    for group in DEFAULT:
        condition = (group.argument, group.capability, group.without, group.architectures)
        for name in group.names:
            assert (name, condition, group.kernel) not in seen, name
            seen.add((name, condition, group.kernel))


AMD64 = seccomp.Machine("amd64", (6, 1))
ALLOW = '"defaultAction":"SCMP_ACT_ALLOW"'


def argued(argument: str) -> str:
    rule = f'{{"names":["b"],"action":"SCMP_ACT_ERRNO","args":[{{{argument}}}]}}'
    return f'{{{ALLOW},"syscalls":[{rule}]}}'


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("{", "decoding seccomp profile failed"),
        ("[]", "decoding seccomp profile failed"),
        ('{"defaultAction": 3}', "decoding seccomp profile failed"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],'
            '"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}',
            "both 'architectures' and 'archMap'",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],'
            '"action":"SCMP_ACT_ERRNO"}]}',
            "not both",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["b"],'
            '"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}',
            "invalid kernel version",
        ),
        ('{"defaultAction":"SCMP_ACT_NEVER"}', "unknown action 'SCMP_ACT_NEVER'"),
        (f'{{{ALLOW},"syscalls":[{{"names":["b"],"action":"deny"}}]}}', "unknown action 'deny'"),
        (f'{{{ALLOW},"flags":["SECCOMP_FILTER_FLAG_X"]}}', "unknown flag"),
        (f'{{{ALLOW},"architectures":["x86"]}}', "unknown architecture 'x86'"),
        (f'{{{ALLOW},"archMap":[{{"architecture":"arm"}}]}}', "unknown architecture 'arm'"),
        (argued('"index":0,"value":1,"op":"="'), "unknown operator '='"),
        (argued('"index":6,"value":1,"op":"SCMP_CMP_EQ"'), "no argument 6"),
        (argued('"index":0,"value":-1,"op":"SCMP_CMP_EQ"'), "beyond 64 bits"),
    ],
)
def test_a_bad_profile_is_refused_with_the_reason(profile: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        seccomp.load_profile(profile, AMD64, ())


def test_a_profile_keeps_flags_listener_and_old_names() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/x.sock",
            "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
            "somethingUnknown": {},
        }
    )
    assert seccomp.load_profile(text, AMD64, ()) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/x.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }


def test_a_rule_needs_all_its_capabilities() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {
                    "names": ["bpf"],
                    "action": "SCMP_ACT_ALLOW",
                    "includes": {"caps": ["CAP_BPF", "CAP_NET_ADMIN"]},
                }
            ],
        }
    )
    assert not seccomp.load_profile(text, AMD64, ["CAP_BPF"])["syscalls"]
    assert seccomp.load_profile(text, AMD64, ["CAP_BPF", "CAP_NET_ADMIN"])["syscalls"]
