"""Capabilities, limits, paths and options of one container's isolation."""

from __future__ import annotations

import json

import pytest

from estiba.kernel.capabilities import NAMES, from_mask
from estiba.model.container import HostConfig, Ulimit
from estiba.model.errors import InvalidArgument
from estiba.security.profiles.capabilities import DEFAULT
from estiba.security.profiles.devices import parse_device_rule
from estiba.security.profiles.profile import Host, Profile, decide_profile, read_host
from estiba.security.profiles.rlimits import UNLIMITED
from estiba.security.profiles.seccomp import Machine

HOST = Host(Machine("amd64", (6, 1)), frozenset(NAMES), None, (0, 1))
WEAK = Host(
    Machine("amd64", (6, 1)),
    frozenset(NAMES) - {"CAP_SYS_RESOURCE"},
    {"nofile": 20000, "core": UNLIMITED},
    (0,),
)


def decide(host: Host = HOST, **wanted: object) -> Profile:
    return decide_profile(HostConfig(**wanted), host)  # type: ignore[arg-type]


def test_names_and_numbers_of_capabilities() -> None:
    assert len(NAMES) == 41
    assert NAMES[21] == "CAP_SYS_ADMIN"
    assert from_mask(0xA80425FB) == set(DEFAULT)  # what `docker run` shows as CapBnd


def test_a_plain_container_has_dockers_fourteen() -> None:
    profile = decide()
    assert set(profile.capabilities) == set(DEFAULT)
    assert len(profile.capabilities) == 14
    assert profile.warnings == []


@pytest.mark.parametrize(
    ("add", "drop", "result"),
    [
        (["NET_ADMIN"], ["cap_chown"], set(DEFAULT) - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}),
        (["CAP_SYS_TIME"], ["ALL"], {"CAP_SYS_TIME"}),
        (["all"], ["SYS_ADMIN"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["CHOWN"], ["CHOWN"], set(DEFAULT)),
        ([], ["ALL"], set()),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], result: set[str]) -> None:
    assert set(decide(cap_add=add, cap_drop=drop).capabilities) == result


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        decide(cap_add=["fly"])


def test_privileged_gets_what_the_engine_has_and_a_warning() -> None:
    profile = decide(WEAK, privileged=True)
    assert set(profile.capabilities) == set(NAMES) - {"CAP_SYS_RESOURCE"}
    assert profile.warnings == [
        "the engine itself lacks CAP_SYS_RESOURCE: the container runs without it"
    ]
    assert profile.seccomp is None
    assert profile.masked_paths == profile.readonly_paths == []


def test_masked_paths_are_those_of_the_newest_engine() -> None:
    masked = decide().masked_paths
    assert {
        "/proc/interrupts",
        "/sys/devices/virtual/powercap",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
        "/sys/devices/system/cpu/cpu1/thermal_throttle",
        "/proc/kcore",
        "/sys/firmware",
    } <= set(masked)
    assert decide(masked_paths=[], readonly_paths=["/x"]).masked_paths == []
    assert decide(readonly_paths=["/x"]).readonly_paths == ["/x"]


def test_limits_are_clamped_without_the_right_to_raise_them() -> None:
    limits = [Ulimit(name="nofile", soft=1024, hard=100000), Ulimit(name="core", soft=-1, hard=-1)]
    profile = decide(WEAK, ulimits=limits)
    assert profile.rlimits == [
        {"type": "RLIMIT_CORE", "soft": UNLIMITED, "hard": UNLIMITED},
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 20000},
    ]
    assert profile.warnings == [
        "ulimit nofile 100000 is above the engine's own hard limit and is lowered to 20000"
    ]
    assert decide(HOST, ulimits=limits).rlimits[1]["hard"] == 100000


def test_own_limits_win_over_the_engines_defaults() -> None:
    profile = decide_profile(
        HostConfig(ulimits=[Ulimit(name="nproc", soft=5, hard=6)]),
        HOST,
        default_ulimits=[Ulimit(name="nproc", soft=1, hard=1), Ulimit(name="core")],
    )
    assert [limit["soft"] for limit in profile.rlimits] == [0, 5]


@pytest.mark.parametrize("limit", [Ulimit(name="fly"), Ulimit(name="nofile", soft=2, hard=1)])
def test_limits_that_make_no_sense_are_refused(limit: Ulimit) -> None:
    with pytest.raises(InvalidArgument, match="ulimit"):
        decide(ulimits=[limit])


@pytest.mark.parametrize("option", ["seccomp=unconfined", "seccomp:unconfined"])
def test_seccomp_can_be_switched_off(option: str) -> None:
    assert decide(security_opt=[option]).seccomp is None


def test_seccomp_default_builtin_and_own() -> None:
    assert decide().seccomp == decide(security_opt=["seccomp=builtin"]).seccomp
    own = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"})
    seccomp = decide(security_opt=[f"seccomp={own}"]).seccomp
    assert seccomp is not None
    assert seccomp["defaultAction"] == "SCMP_ACT_ALLOW"


def test_a_capability_opens_its_calls() -> None:
    def calls(**wanted: object) -> set[str]:
        seccomp = decide(**wanted).seccomp  # type: ignore[arg-type]
        assert seccomp is not None
        return {
            name
            for rule in seccomp["syscalls"]
            if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
            for name in rule["names"]
        }

    assert "mount" not in calls()
    assert {"mount", "clone3"} <= calls(cap_add=["SYS_ADMIN"])
    assert "chroot" not in calls(cap_drop=["SYS_CHROOT"])


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["no-new-privileges"], True),
        (["no-new-privileges:true"], True),
        (["no-new-privileges=false"], False),
        ([], False),
    ],
)
def test_no_new_privileges(options: list[str], value: bool) -> None:
    assert decide(security_opt=options).no_new_privileges is value


@pytest.mark.parametrize("option", ["nonsense", "some=thing", "no-new-privileges=maybe"])
def test_an_unknown_option_is_refused(option: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid --security-opt"):
        decide(security_opt=[option])


def test_what_is_not_applied_is_said() -> None:
    assert decide(security_opt=["apparmor=mine"]).warnings == [
        "--security-opt apparmor=mine: this engine does not apply apparmor"
    ]
    assert decide(security_opt=["label=disable", "apparmor=unconfined"]).warnings == []


def test_device_rules() -> None:
    assert parse_device_rule("c 189:* rmw") == {
        "allow": True,
        "type": "c",
        "major": 189,
        "access": "rmw",
    }
    for text in ("c 1:2", "x 1:2 rwm", "c 1:2 rwx", "c 1:2 rwm\n"):
        with pytest.raises(InvalidArgument, match="invalid device cgroup rule"):
            parse_device_rule(text)


def test_this_machine_can_be_read() -> None:
    host = read_host()
    assert host.machine.kernel > (3, 0)
    assert host.bounding <= set(NAMES)
