"""What flags and environment ask of the daemon, and what is refused before it is asked."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from estiba.cli.buildrequest import Request, build_arguments
from estiba.cli.buildspecs import MOST_SECRET
from estiba.cli.commands import BUILDER
from estiba.cli.parse import Arguments, Parser, UsageError


def given(*words: str) -> Arguments:
    return Parser(BUILDER["build"].flags()).parse([*words, "."], interspersed=True)


def asked(*words: str) -> dict:
    return json.loads(Request(given(*words)).text({}))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOURCE_DATE_EPOCH", "DOCKER_DEFAULT_PLATFORM", "WORD"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_said_of_what_is_not_asked_for() -> None:
    assert asked() == {}


def test_every_flag_has_its_place() -> None:
    found = asked(
        "--add-host", "a=10.0.0.1", "--add-host", "b:host-gateway", "--allow", "network.host",
        "--attest", "type=provenance,mode=max", "--build-arg", "A=1=2", "--cache-from", "img,other",
        "--cache-to", "type=inline", "--cgroup-parent", "p", "--cpu-period", "1000",
        "--cpu-quota", "500", "-c", "7", "--cpuset-cpus", "0", "--cpuset-mems", "0",
        "--label", "l=x", "--label", "bare", "-m", "64m", "--memory-swap", "-1",
        "--network", "host", "--no-cache", "--no-cache-filter", "a,b", "--no-cache-filter", "c",
        "--platform", "linux/amd64,linux/arm64", "--pull", "--sbom", "true", "--shm-size", "1m",
        "--squash", "-t", "a:1", "-t", "b", "-t", "b", "--target", "x",
        "--ulimit", "nofile=1:2", "--ulimit", "core=0",
    )  # fmt: skip
    assert found == {
        "extra_hosts": ["a:10.0.0.1", "b:host-gateway"],
        "allow": ["network.host"],
        "provenance": "max",
        "sbom": True,
        "build_args": {"A": "1=2"},
        "cache_from": [{"type": "registry", "ref": "img"}, {"type": "registry", "ref": "other"}],
        "cache_to": [{"type": "inline"}],
        "cgroup_parent": "p",
        "cpu_period": 1000,
        "cpu_quota": 500,
        "cpu_shares": 7,
        "cpuset_cpus": "0",
        "cpuset_mems": "0",
        "labels": {"l": "x", "bare": ""},
        "memory": 64 << 20,
        "memory_swap": -1,
        "network": "host",
        "no_cache": True,
        "no_cache_filter": ["a", "b", "c"],
        "platforms": ["linux/amd64", "linux/arm64"],
        "pull": True,
        "shm_size": 1 << 20,
        "squash": True,
        "tags": ["a:1", "b"],
        "target": "x",
        "ulimits": [
            {"Name": "nofile", "Soft": 1, "Hard": 2},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }


def test_flags_that_change_nothing_are_taken() -> None:
    words = ["--compress", "--force-rm", "--rm=false", "--isolation", "x", "--security-opt", "y"]
    assert asked(*words, "--disable-content-trust") == {}


def test_build_arguments_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "of mine")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "100")
    assert build_arguments(["WORD", "MISSING", "A="]) == {
        "WORD": "of mine", "A": "", "SOURCE_DATE_EPOCH": "100",
    }  # fmt: skip
    assert build_arguments(["SOURCE_DATE_EPOCH=5"]) == {"SOURCE_DATE_EPOCH": "5"}
    assert build_arguments(["SOURCE_DATE_EPOCH="]) == {"SOURCE_DATE_EPOCH": ""}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--build-arg", "A=\udcff"], "build args: not UTF-8"),
        (["--label", "a\udcff=1"], "labels: not UTF-8"),
    ],
)
def test_bytes_that_are_no_text(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(*words)


def test_platform_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    assert asked()["platforms"] == ["linux/arm64"]
    assert asked("--platform", "linux/386")["platforms"] == ["linux/386"]


@pytest.mark.parametrize("words", [["--check"], ["--call=check"], ["--call", "check,format=text"]])
def test_check(words: list[str]) -> None:
    assert Request(given(*words)).is_check
    assert asked(*words) == {"check": True}


_DOCKERS = (
    "--add-host --build-arg --cache-from --cgroup-parent --compress --cpu-period --cpu-quota "
    "--cpu-shares --cpuset-cpus --cpuset-mems --file --force-rm --iidfile --isolation --label "
    "--memory --memory-swap --network --no-cache --platform --pull --quiet --rm --security-opt "
    "--shm-size --squash --tag --target --ulimit"
)
_BUILDXS = (
    "--allow --attest --build-context --cache-to --call --check --load --metadata-file "
    "--no-cache-filter --output --progress --provenance --push --sbom --secret --ssh"
)


def test_all_flags_of_docker_are_there() -> None:
    known = {name for flag in BUILDER["build"].flags() for name in flag.names}
    assert set(f"{_DOCKERS} {_BUILDXS} -c -f -m -o -q -t -D --explain-cache".split()) <= known


# -- outputs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sent", "dests"),
    [
        (["-o", "out"], [{"type": "local"}], ["out"]),
        (["-o", "-"], [{"type": "tar"}], ["-"]),
        (["-o", "type=tar"], [{"type": "tar"}], ["-"]),
        (["-o", "type=oci,dest=x.tar,compression=zstd"],
         [{"type": "oci", "compression": "zstd"}], ["x.tar"]),
        (["-o", "type=docker"], [{"type": "image"}], [""]),
        (["-o", "type=docker,dest=-"], [{"type": "docker"}], ["-"]),
        (['--output="type=local","dest=a,b"'], [{"type": "local"}], ["a,b"]),
        (["--push", "-t", "a"], [{"type": "image", "push": "true"}], [""]),
        (["-o", "type=image,name=x", "--push"],
         [{"type": "image", "name": "x", "push": "true"}], [""]),
        (["-o", "type=local,dest=d", "--load"], [{"type": "local"}, {"type": "image"}], ["d", ""]),
        (["--load"], [{"type": "image"}], [""]),
    ],
)  # fmt: skip
def test_outputs(words: list[str], sent: list[dict], dests: list[str]) -> None:
    request = Request(given(*words))
    assert [output.sent for output in request.outputs] == sent
    assert [output.dest for output in request.outputs] == dests


def test_local_caches_stay_here(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    request = Request(
        given(
            "--cache-from",
            f"type=local,src={tmp_path}",
            "--cache-from",
            "type=registry,ref=r/c",
            "--cache-from",
            f"type=local,src={tmp_path}/none",
            "--cache-to",
            "type=local,dest=there,mode=max",
        )
    )
    assert [cache.sent for cache in request.caches_from] == [
        {"type": "local"}, {"type": "registry", "ref": "r/c"},
    ]  # fmt: skip
    assert request.caches_from[0].folder == str(tmp_path)
    assert request.body["cache_to"] == [{"type": "local", "mode": "max"}]
    assert request.caches_to[0].folder == "there"


# -- secrets and ssh -----------------------------------------------------------------------


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"\x00of the file\n")
    (tmp_path / "named").write_text("by its name")
    monkeypatch.setenv("WORD", "of the environment")
    monkeypatch.chdir(tmp_path)
    found = asked(
        "--secret", "id=a,src=file", "--secret", "id=b,env=WORD", "--secret", "id=WORD",
        "--secret", "id=named", "--secret", "type=env,id=c,env=WORD",
        "--secret", "type=file,id=d,source=file",
    )["secrets"]  # fmt: skip
    assert {name: base64.b64decode(text) for name, text in found.items()} == {
        "a": b"\x00of the file\n", "b": b"of the environment", "WORD": b"of the environment",
        "named": b"by its name", "c": b"of the environment", "d": b"\x00of the file\n",
    }  # fmt: skip


def test_a_secret_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * MOST_SECRET)
    assert len(asked("--secret", f"id=a,src={path}")["secrets"]["a"]) > MOST_SECRET
    path.write_bytes(b"x" * (MOST_SECRET + 1))
    with pytest.raises(UsageError, match="secret a is too big: more than 500 KiB"):
        asked("--secret", f"id=a,src={path}")


def test_ssh() -> None:
    request = Request(given("--ssh", "default", "--ssh", "git=/a/key,/b/key"))
    assert request.ssh == {"default": [], "git": ["/a/key", "/b/key"]}
    assert request.body["ssh"] == ["default", "git"]
    assert len(request.body["session"]) == 32
    assert request.body["session"] != Request(given("--ssh", "default")).body["session"]
    assert "session" not in Request(given()).body


@pytest.mark.parametrize(
    ("words", "provenance", "sbom"),
    [
        (["--provenance=true"], "min", False),
        (["--provenance=mode=max"], "max", False),
        (["--provenance=max"], "max", False),
        (["--provenance=false", "--attest", "type=provenance"], "", False),
        (["--attest", "type=sbom"], "", True),
        (["--attest", "type=sbom", "--sbom=false"], "", False),
        (["--attest", "type=provenance,disabled=true"], "", False),
    ],
)
def test_attestations(words: list[str], provenance: str, sbom: bool) -> None:
    body = Request(given(*words)).body
    assert (body["provenance"], body["sbom"]) == (provenance, sbom)


# -- what is refused -----------------------------------------------------------------------

_REFUSED = [
    ("--secret src=x", "id is missing"),
    ("--secret id=x,src=/none", "secret x: cannot read /none: no such file or directory"),
    ("--secret id=x,env=NOT_SET", "secret x: the environment has no variable NOT_SET"),
    ("--secret id=x,type=vault", 'unknown type "vault"'),
    ("--secret id=x,mode=1", "unexpected key 'mode'"),
    ("--secret x", "invalid field 'x' must be a key=value pair"),
    ("--secret id=WORD,env=HOME --secret id=WORD,env=HOME", "secret WORD is given twice"),
    ("--ssh =x", "default or ID=PATH"),
    ("--ssh a --ssh a", "--ssh a is given twice"),
    ("-o type=s3,dest=x", 'unknown type "s3": image, local'),
    ("-o dest=x", "type is required: image, local"),
    ("-o type=local", "dest is required for local output"),
    ("-o type=image,dest=x", "an output of type image takes no dest"),
    ("--push", "a name is needed for pushing to a registry: -t NAME"),
    ("-o type=image,push=true", "a name is needed for pushing"),
    ("-o - -o type=oci", "only one output can go to STDOUT"),
    ("--cache-from type=gha", 'unknown type "gha": registry'),
    ("--cache-from type=local", "src is required"),
    ("--cache-to type=local,src=x", "dest is required"),
    ("--cache-to type=registry", "ref is required"),
    ("--attest type=magic", "type=sbom or type=provenance"),
    ("--provenance mode=most", "min or max"),
    ("--sbom maybe", "true or false"),
    ("--allow everything", "network.host or security.insecure"),
    ("--build-arg =x", "a name is missing"),
    ("--call outline", "build or check"),
    ("-t UPPER", "must be lowercase"),
    ("-t a@sha256:" + "0" * 64, "has no digest"),
    ("--platform linux/a/b/c", "cannot parse platform specifier"),
    ("--add-host nowhere", "bad format for add-host"),
    ("--ulimit x", "invalid ulimit argument"),
    ("-m lots", "invalid size: 'lots'"),
]


@pytest.mark.parametrize(("line", "reason"), _REFUSED, ids=[line for line, _ in _REFUSED])
def test_refused(line: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        Request(given(*line.split()))
    assert reason in str(caught.value)
