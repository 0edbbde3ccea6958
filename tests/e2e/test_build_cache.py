"""How the cache decides: each sentence of docs/building.md, through POST /build."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.busybox import busybox_tar
from tests.support.classicbuild import Answer, build, bundle, context_tar, link_to, reasons
from tests.support.daemon import PrivateDaemon
from tests.support.fileserver import serving

pytestmark = pytest.mark.e2e


def built(daemon: PrivateDaemon, dockerfile: str, files: Any = None, **options: Any) -> Answer:
    return build(daemon, {"Dockerfile": dockerfile, **(files or {})}, **options)


# -- what is below -------------------------------------------------------------------------


def test_a_step_is_looked_up_before_it_is_done(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nWORKDIR /once\nRUN echo once > /once/f\nCOPY f /g\n"
    first = built(daemon, text, {"f": "x"})
    assert first.done == ["WORKDIR /once", "RUN echo once > /once/f", "COPY f /g"]
    second = built(daemon, text, {"f": "x"})
    assert second.done == []
    assert second.image == first.image
    assert [one.id for one in second.steps] == [one.id for one in first.steps]


def test_the_step_before_counts(daemon: PrivateDaemon) -> None:
    built(daemon, "FROM busybox\nRUN echo below > /a\nRUN echo above > /b\n")
    changed = built(daemon, "FROM busybox\nRUN echo Below > /a\nRUN echo above > /b\n")
    assert changed.done == ["RUN echo Below > /a", "RUN echo above > /b"]


def test_the_base_images_layers_count(daemon: PrivateDaemon) -> None:
    built(daemon, "FROM busybox\nRUN echo layers > /a\n")
    daemon.import_image("other:1", busybox_tar()[:-10240] + b"\0" * 20480)
    built(daemon, "FROM busybox AS b\nRUN touch /more\nFROM b\nRUN true", t="more:1")
    assert built(daemon, "FROM more:1\nRUN echo layers > /a\n").done == ["RUN echo layers > /a"]


def test_the_base_images_config_does_not_count(daemon: PrivateDaemon) -> None:
    built(daemon, 'FROM busybox\nLABEL a=b\nCMD ["x"]\nEXPOSE 80\n', t="labelled:1")
    built(daemon, "FROM busybox\nRUN echo config > /a\n")
    assert built(daemon, "FROM labelled:1\nRUN echo config > /a\n").done == []


def test_config_in_between_changes_nothing(daemon: PrivateDaemon) -> None:
    built(daemon, "FROM busybox\nRUN echo one > /a\nRUN echo two > /b\n")
    changed = built(
        daemon,
        'FROM busybox\nLABEL l=1\nRUN echo one > /a\nCMD ["x"]\nEXPOSE 80\nVOLUME /v\n'
        "STOPSIGNAL 9\nRUN echo two > /b\n",
    )
    assert changed.done == []


def test_another_stage_with_the_same_steps_is_the_same(daemon: PrivateDaemon) -> None:
    built(daemon, "FROM busybox AS a\nRUN echo stage > /a\n")
    again = built(daemon, "FROM busybox AS b\nRUN echo stage > /a\nFROM b\nRUN true\n")
    assert again.done == ["RUN true"]


# -- the instruction -----------------------------------------------------------------------


def test_comments_breaks_and_other_lines_are_not_in_it(daemon: PrivateDaemon) -> None:
    built(
        daemon, "FROM busybox\nRUN echo a && echo b > /text\nCOPY x y /d/\n", {"x": "1", "y": "2"}
    )
    changed = built(
        daemon,
        "# a comment\nFROM busybox\n\n  # another\nrun echo a && \\\n# within\necho b > /text\n\n"
        "CoPY  x \\\n   y   /d/\n",
        {"x": "1", "y": "2"},
    )
    assert changed.done == []


RUN = "RUN echo command > /made"


@pytest.mark.parametrize(
    "text",
    [
        f"FROM busybox\n{RUN}2\n",
        f"FROM busybox\nENV A=1\n{RUN}\n",
        f"FROM busybox\nUSER 0:5\n{RUN}\n",
        f"FROM busybox\nWORKDIR /bin\n{RUN}\n",
        f'FROM busybox\nSHELL ["/bin/ash", "-c"]\n{RUN}\n',
        "FROM busybox\nRUN --network=none echo command > /made\n",
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t echo command > /made\n",
    ],
)
def test_what_the_command_runs_with_counts(daemon: PrivateDaemon, text: str) -> None:
    built(daemon, f"FROM busybox\n{RUN}\n")
    assert built(daemon, text).done[-1].startswith("RUN")
    assert built(daemon, text).done == []


def test_the_clients_network_and_hosts_count(daemon: PrivateDaemon) -> None:
    text = f"FROM busybox\n{RUN} # network\n"
    built(daemon, text)
    assert built(daemon, text, networkmode="default").done == []
    assert built(daemon, text, networkmode="none").done == [f"{RUN} # network"]
    assert built(daemon, text, extrahosts="h:1.2.3.4").done == [f"{RUN} # network"]
    assert built(daemon, text, extrahosts="h:1.2.3.4").done == []


@pytest.mark.parametrize(
    ("flags", "destination"),
    [("", "/e"), ("--chown=1:1 ", "/d"), ("--chmod=700 ", "/d"), ("", "/d/")],
)
def test_destination_owner_and_mode_count(
    daemon: PrivateDaemon, flags: str, destination: str
) -> None:
    built(daemon, "FROM busybox\nCOPY f /d\n", {"f": "dest"})
    changed = built(daemon, f"FROM busybox\nCOPY {flags}f {destination}\n", {"f": "dest"})
    assert len(changed.done) == 1


# -- files ---------------------------------------------------------------------------------

COPY = "FROM busybox\nCOPY . /all\n"


def test_times_never_count(daemon: PrivateDaemon) -> None:
    files = {"Dockerfile": COPY, "times": "x"}
    build(daemon, context_tar(files, mtime=1))
    assert build(daemon, context_tar(files, mtime=2_000_000_000)).done == []


@pytest.mark.parametrize(
    "files",
    [
        {"names2": "x", "link": link_to("names")},
        {"names": "y", "link": link_to("names")},
        {"names": "x", "link": link_to("other")},
        {"names": "x", "link": "names"},
        {"names": "x", "link": link_to("names"), "more": ""},
    ],
)
def test_names_links_and_bytes_count(daemon: PrivateDaemon, files: dict[str, Any]) -> None:
    built(daemon, COPY, {"names": "x", "link": link_to("names")})
    assert built(daemon, COPY, files).done == ["COPY . /all"]
    assert built(daemon, COPY, files).done == []


def test_modes_count(daemon: PrivateDaemon) -> None:
    files = {"Dockerfile": COPY, "modes": "x"}
    build(daemon, context_tar(files, mode=0o644))
    assert build(daemon, context_tar(files, mode=0o600)).done == ["COPY . /all"]


def test_what_is_ignored_does_not_count(daemon: PrivateDaemon) -> None:
    ignore = {".dockerignore": "*.log\nDockerfile\n.dockerignore\n", "ignored": "x"}
    built(daemon, COPY, {**ignore, "a.log": "1"})
    assert built(daemon, f"# other\n{COPY}", {**ignore, "a.log": "2", "b.log": "3"}).done == []


def test_what_a_bind_mount_shows_counts(daemon: PrivateDaemon) -> None:
    run = "RUN --mount=type=bind,source=src,target=/m cp /m/f /bound"
    built(daemon, f"FROM busybox\n{run}\n", {"src/f": "1", "other": "1"})
    assert built(daemon, f"FROM busybox\n{run}\n", {"src/f": "1", "other": "2"}).done == []
    assert built(daemon, f"FROM busybox\n{run}\n", {"src/f": "2", "other": "2"}).done == [run]


def test_a_stage_that_came_out_the_same_counts_as_the_same(daemon: PrivateDaemon) -> None:
    """Its record is another one, its files are not."""
    text = "FROM busybox AS a\nRUN {}echo same > /out\nFROM busybox\nCOPY --from=a /out /out\n"
    built(daemon, text.format(""))
    assert built(daemon, text.format("touch /else; ")).done == ["RUN touch /else; echo same > /out"]


def test_a_file_by_http_counts_by_its_content(daemon: PrivateDaemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one")
    (tmp_path / "g").write_text("one")
    with serving(tmp_path) as address:
        text = f"FROM busybox\nADD http://{address}/f /http/\n"
        built(daemon, text)
        (tmp_path / "f").touch()
        assert built(daemon, text).done == []
        (tmp_path / "f").write_text("two")
        assert len(built(daemon, text).done) == 1


def commit(folder: Path, text: str) -> None:
    (folder / "work" / "f").write_text(text)
    for words in (
        ["add", "f"],
        ["commit", "-qm", text],
        ["push", "-q", "../repo.git", "HEAD:main"],
    ):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@y", *words],
            cwd=folder / "work", check=True, capture_output=True,
        )  # fmt: skip


def test_a_git_repository_counts_by_its_commit(daemon: PrivateDaemon, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "repo.git"], check=True)
    subprocess.run(["git", "init", "-q", tmp_path / "work"], check=True)
    commit(tmp_path, "one")
    with serving(tmp_path) as address:
        text = f"FROM busybox\nADD http://{address}/repo.git#main /git/\n"
        built(daemon, text)
        assert built(daemon, text).done == []
        commit(tmp_path, "two")
        assert len(built(daemon, text).done) == 1


# -- arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "counts"),
    [
        ("echo $V > /args", True),
        ("echo ${V:-x} > /args", True),
        ("echo fixed > /args", False),
        ("mkdir -p /args && cp /etc/passwd /args", False),
        ("/ctx/script", True),
        ("echo fixed && unknown-program || true", True),
    ],
)
def test_the_arguments_that_the_command_uses(daemon: PrivateDaemon, run: str, counts: bool) -> None:
    text = f"FROM busybox\nARG V\nCOPY . /ctx\nRUN {run}\n"
    context = context_tar({"Dockerfile": text, "script": "#!/bin/sh\n"}, mode=0o755)
    build(daemon, context, buildargs={"V": "1"})
    assert bool(build(daemon, context, buildargs={"V": "2"}).done) is counts


@pytest.mark.parametrize("name", ["TZ", "LANG", "PATH"])
def test_arguments_that_every_program_reads(daemon: PrivateDaemon, name: str) -> None:
    text = f"FROM busybox\nARG {name}=/bin\nRUN /bin/echo fixed > /args-{name}\n"
    built(daemon, text)
    again = built(daemon, text, buildargs={name: "/bin:/sbin"})
    assert again.done


def test_a_here_document_uses_arguments(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nARG V\nRUN <<EOF\necho $V > /here\nEOF\n"
    built(daemon, text, buildargs={"V": "1"})
    assert built(daemon, text, buildargs={"V": "2"}).done


def test_an_argument_that_nobody_declared_changes_nothing(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN echo undeclared-$V > /args\n"
    built(daemon, text)
    assert built(daemon, text, buildargs={"V": "2"}).done == []


def test_proxies_never_count(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN env | grep -i proxy > /proxy || true\n"
    first = built(daemon, text, buildargs={"HTTP_PROXY": "http://a"}, t="proxy:1")
    assert "http://a" in daemon.run("proxy:1", "cat", "/proxy")
    again = built(daemon, text, buildargs={"HTTP_PROXY": "http://b", "no_proxy": "c"})
    assert again.done == []
    assert first.image == again.image


# -- what does not count -------------------------------------------------------------------


def test_a_secret_counts_by_its_name(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=t wc -c < /run/secrets/t > /size\n"

    def run(value: bytes) -> str:
        secrets = {"t": base64.b64encode(value).decode()}
        answer = bundle(daemon, {"Dockerfile": text}, secrets=secrets, tags=["secret:1"])
        return str(next(iter(reasons(answer).values())))

    assert run(b"one").startswith("miss")
    assert run(b"another").startswith("hit")
    assert daemon.run("secret:1", "cat", "/size") == "3\n"


def test_a_cache_mounts_content_does_not_count(daemon: PrivateDaemon) -> None:
    mount = "RUN --mount=type=cache,target=/c"
    built(daemon, f"FROM busybox\n{mount} cat /c/f > /seen || true\n")
    built(daemon, f"FROM busybox\n{mount} echo new > /c/f\n")
    assert built(daemon, f"FROM busybox\n{mount} cat /c/f > /seen || true\n").done == []


# -- options -------------------------------------------------------------------------------


def test_no_cache_does_every_step_again_and_records_it(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN cat /id\n"
    first = built(daemon, text)
    again = built(daemon, text, nocache="1")
    assert len(again.done) == 2
    assert again.image != first.image
    assert built(daemon, text).image == again.image


def test_no_cache_filter_does_some_stages_again(daemon: PrivateDaemon) -> None:
    files = {
        "Dockerfile": "FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN echo b > /b\n"
        "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    }
    bundle(daemon, files)
    again = reasons(bundle(daemon, files, no_cache_filter=["a"]))
    assert again["RUN echo a > /a"] == "miss: the cache is not to be used"
    assert all(why.startswith("hit") for text, why in again.items() if text != "RUN echo a > /a")


def test_a_stage_is_meant_however_it_is_written(daemon: PrivateDaemon) -> None:
    files = {"Dockerfile": "FROM busybox AS Builder\nRUN echo case > /a\n"}
    bundle(daemon, files)
    for name in ("Builder", "builder", "0"):
        answer = bundle(daemon, files, no_cache_filter=[name])
        assert reasons(answer)["RUN echo case > /a"] == "miss: the cache is not to be used"
        assert not warnings(answer)


def warnings(answer: Answer) -> list[str]:
    """Those of the options, not of the Dockerfile."""
    found = [line["warning"] for line in answer.lines if "warning" in line]
    return [one["message"] for one in found if one["rule"] == "NoCacheFilter"]


def test_a_stage_that_is_none_is_a_warning(daemon: PrivateDaemon) -> None:
    files = {"Dockerfile": "FROM busybox AS a\nRUN echo none > /a\n"}
    answer = bundle(daemon, files, no_cache_filter=["bilder"])
    assert warnings(answer) == ["the Dockerfile has no stage 'bilder'"]


# -- explanations --------------------------------------------------------------------------

EXPLAINED = """FROM busybox
ARG V=1
RUN echo $V > /v
COPY . /ctx
RUN echo above > /above
"""


@pytest.mark.parametrize(
    ("dockerfile", "request_", "run", "why"),
    [
        (EXPLAINED, {}, "RUN echo $V > /v", "hit: nothing that counts has changed since"),
        (EXPLAINED, {"build_args": {"V": "2"}}, "RUN echo $V > /v", "miss: argument changed: V"),
        (
            EXPLAINED, {"build_args": {"V": "3"}}, "RUN echo above > /above",
            "miss: the step before it was built anew",
        ),
        (
            EXPLAINED.replace("$V >", "$V$V >"), {}, "RUN echo $V$V > /v",
            "miss: the instruction changed: it was RUN echo $V > /v",
        ),
        (EXPLAINED, {"network": "none"}, "RUN echo $V > /v", "miss: changed: network"),
        (
            EXPLAINED, {"extra_hosts": ["h:1.1.1.1"]}, "RUN echo $V > /v",
            "miss: changed: extra hosts",
        ),
        (EXPLAINED, {"no_cache": True}, "COPY . /ctx", "miss: the cache is not to be used"),
    ],
)  # fmt: skip
def test_explanations(
    daemon: PrivateDaemon, dockerfile: str, request_: dict[str, Any], run: str, why: str
) -> None:
    bundle(daemon, {"Dockerfile": EXPLAINED, ".dockerignore": "Dockerfile", "f": "1"})
    files = {"Dockerfile": dockerfile, ".dockerignore": "Dockerfile", "f": "1"}
    assert reasons(bundle(daemon, files, **request_))[run].startswith(why)


def test_a_linked_copy_hides_no_change_below_it(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN echo 1 > /a\nCOPY --link f /f\nRUN echo on > /b\n"
    bundle(daemon, {"Dockerfile": text, "f": "linked"})
    again = reasons(bundle(daemon, {"Dockerfile": text.replace("1", "2"), "f": "linked"}))
    assert again["COPY --link f /f"].startswith("hit")
    assert again["RUN echo on > /b"] == "miss: the step before it was built anew"


def test_files_that_changed_are_named(daemon: PrivateDaemon) -> None:
    files = {"Dockerfile": EXPLAINED, ".dockerignore": "Dockerfile", "named/f": "1", "g": "1"}
    bundle(daemon, files)
    again = bundle(daemon, {**files, "named/f": "2"})
    assert reasons(again)["COPY . /ctx"] == "miss: files changed: named/f"
    many = {f"many/{number}": "1" for number in range(600)}
    bundle(daemon, {**files, **many})
    again = bundle(daemon, {**files, **many, "zzz": "new"})
    assert reasons(again)["COPY . /ctx"].startswith(
        ("miss: files changed", "miss: changed: inputs")
    )
