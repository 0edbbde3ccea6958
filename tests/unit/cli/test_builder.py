"""`estiba builder du` and `prune`, against scripted answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.buildserver import BuildServer, build_server

from estiba.cli import main
from estiba.client.host import forget_config


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESTIBA_CONFIG", str(tmp_path / "none"))
    forget_config()


def ago(**how_long: float) -> str:
    """With nine digits, as Go writes a time."""
    moment = datetime.now(UTC) - timedelta(**how_long)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


_ENTRIES = [
    {"ID": "aaaa", "Parents": [], "Type": "regular", "Description": "RUN make", "InUse": False,
     "Shared": False, "Size": 1_000_000, "CreatedAt": "2026-01-02T03:04:05.678901234Z",
     "LastUsedAt": "", "UsageCount": 2},
    {"ID": "bbbb", "Parents": ["aaaa"], "Type": "regular", "Description": "COPY . .",
     "InUse": True, "Shared": True, "Size": 500_000, "CreatedAt": "2026-01-02T03:04:05Z",
     "LastUsedAt": "", "UsageCount": 1},
    {"ID": "cccc", "Parents": None, "Type": "exec.cachemount", "Description": "cache /root",
     "InUse": False, "Shared": False, "Size": 2_000, "CreatedAt": "2026-01-02T03:04:05Z",
     "LastUsedAt": None, "UsageCount": 0},
]  # fmt: skip

Run = Callable[..., tuple[int, str, str, BuildServer]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def run_one(*words: str, deleted: tuple[str, ...] = ()) -> tuple[int, str, str, BuildServer]:
        with build_server(lambda _: []) as server:
            # By the clock of this test, not of the module's import.
            _ENTRIES[0]["LastUsedAt"] = ago(hours=3, minutes=1)
            _ENTRIES[1]["LastUsedAt"] = ago(minutes=5)
            server.answers = {
                "GET /system/df": {"BuildCache": _ENTRIES},
                "POST /containers/prune": {"ContainersDeleted": None, "SpaceReclaimed": 1},
                "POST /networks/prune": {"NetworksDeleted": None},
                "POST /images/prune": {"ImagesDeleted": None, "SpaceReclaimed": 2},
                "POST /build/prune": {"CachesDeleted": list(deleted), "SpaceReclaimed": 1_500_000},
            }
            code = main._guarded(["-H", server.url, *words])
            out, err = capsys.readouterr()
            return code, out, err, server

    return run_one


def test_du(run: Run) -> None:
    code, out, _, server = run("builder", "du")
    assert code == 0
    assert out == (
        "ID        RECLAIMABLE   SIZE      LAST ACCESSED\n"
        "bbbb      false         500kB*    5 minutes ago\n"
        "aaaa      true          1MB       3 hours ago\n"
        "cccc      true          2kB       \n"
        "Shared:       500kB\n"
        "Private:      1.002MB\n"
        "Reclaimable:  1.002MB\n"
        "Total:        1.502MB\n"
    )
    assert server.asked[-1] == ("GET /system/df", {"type": ["build-cache"]})


def test_ids_are_short_in_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_ENTRIES[0], "ID", "0123456789abcdef" * 4)
    assert "\n0123456789ab   true" in run("builder", "du")[1]
    assert "0123456789abcdef0" in run("builder", "du", "--format", "{{.ID}}")[1]
    assert "0123456789abcdef0" in run("builder", "du", "--verbose")[1]


def test_du_in_detail(run: Run) -> None:
    _, out, _, _ = run("buildx", "du", "--verbose", "--filter", "id=bb")
    assert out == (
        "ID:           bbbb\n"
        "Parent:       aaaa\n"
        "Created at:   2026-01-02 03:04:05 +0000 UTC\n"
        "Reclaimable:  false\n"
        "Shared:       true\n"
        "Size:         500kB*\n"
        "Description:  COPY . .\n"
        "Usage count:  1\n"
        "Last used:    5 minutes ago\n"
        "Type:         regular\n"
        "\n"
        "Shared:       500kB\n"
        "Private:      0B\n"
        "Reclaimable:  0B\n"
        "Total:        500kB\n"
    )


def test_du_for_programs(run: Run) -> None:
    _, out, _, _ = run("builder", "du", "--format", "json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["ID"] for row in rows] == ["bbbb", "aaaa", "cccc"]
    assert rows[0]["Parents"] == ["aaaa"]
    assert run("builder", "du", "--format", "{{.ID}} {{.Type}}")[1].splitlines()[2] == (
        "cccc exec.cachemount"
    )


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["inuse"], "bbbb"), (["shared"], "bbbb"), (["private"], "aaaa cccc"),
        (["inuse=false"], "aaaa cccc"), (["type=regular"], "bbbb aaaa"),
        (["description=COPY . ."], "bbbb"), (["description~=a"], "aaaa cccc"),
        (["mutable"], "cccc"), (["immutable=true"], "bbbb aaaa"), (["mutable=0"], "bbbb aaaa"),
        (["until=1h"], "aaaa"), (["unused-for=1h"], "aaaa"), (["private", "type=regular"], "aaaa"),
    ],
)  # fmt: skip
def test_filters_of_du(run: Run, words: list[str], ids: str) -> None:
    flags = [flag for word in words for flag in ("--filter", word)]
    assert run("builder", "du", "--format", "{{.ID}}", *flags)[1].split() == ids.split()


@pytest.mark.parametrize(
    "word", ["size=1", "nonsense", "until=yesterday", "shared=maybe", "mutable~=1"]
)
def test_filters_that_are_none(run: Run, word: str) -> None:
    code, _, err, server = run("builder", "du", "--filter", word)
    assert code == 125
    assert f'invalid argument "{word}" for "--filter" flag' in err
    assert not server.asked


def test_prune(run: Run) -> None:
    code, out, _, server = run("builder", "prune", "-f", deleted=("aaaa", "cccc"))
    assert code == 0
    assert out == ("Deleted build cache objects:\naaaa\ncccc\n\nTotal reclaimed space: 1.5MB\n")
    assert server.asked[-1] == ("POST /build/prune", {})


def test_all_that_prune_takes(run: Run) -> None:
    asked = run(
        "buildx", "prune", "-a", "-f", "--filter", "until=24h", "--filter", "shared",
        "--reserved-space", "1g", "--max-used-space", "2g", "--min-free-space", "3k",
    )[3].asked[-1][1]  # fmt: skip
    assert json.loads(asked.pop("filters")[0]) == {"until": {"24h": True}, "shared": {"true": True}}
    assert asked == {
        "all": ["1"], "reserved-space": ["1073741824"], "max-used-space": ["2147483648"],
        "min-free-space": ["3072"],
    }  # fmt: skip
    kept = run("builder", "prune", "-f", "--keep-storage", "1m")[3].asked[-1][1]
    assert kept == {"reserved-space": ["1048576"]}


def test_prune_in_detail(run: Run) -> None:
    _, out, _, _ = run("builder", "prune", "-f", "--verbose", deleted=("cccc",))
    assert out.startswith("ID:           cccc\n")
    assert out.endswith("Type:         exec.cachemount\n\nTotal reclaimed space: 1.5MB\n")


def test_prune_of_an_older_daemon(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_API_VERSION", "1.41")
    kept = run("builder", "prune", "-f", "--keep-storage", "1m")[3].asked[-1][1]
    assert kept == {"keep-storage": ["1048576"]}
    code, _, err, _ = run("builder", "prune", "-f", "--max-used-space", "1m")
    assert code == 1
    assert "requires API version 1.48" in err


def test_prune_with_a_filter_that_is_none(run: Run) -> None:
    code, _, err, server = run("builder", "prune", "-f", "--filter", "foo")
    assert (code, server.asked) == (125, [])
    assert "bad format of filter (expected name=value)" in err


def test_prune_asks(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "no").write_text("n\n")
    with (tmp_path / "no").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        _, out, _, server = run("builder", "prune", "-a")
    assert out.startswith("WARNING! This will remove all build cache. Are you sure")
    assert not server.asked


def test_system_prune_takes_the_cache_too(run: Run) -> None:
    _, out, _, server = run("system", "prune", "-f", deleted=("aaaa",))
    assert out == "Deleted build cache objects:\naaaa\n\nTotal reclaimed space: 1.5MB\n"
    assert server.asked[-1] == ("POST /build/prune", {})
    asked = run("system", "prune", "-af", "--filter", "until=1h")[3].asked[-1]
    assert asked[0] == "POST /build/prune"
    assert asked[1]["all"] == ["1"]
    asked = run("system", "prune", "-f", "--filter", "label=x")[3].asked[-1]
    assert asked[0] == "POST /images/prune"
