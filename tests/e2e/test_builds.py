"""POST /build in the classic form: raw, by the docker client and by docker-py."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.buildremains import wait_nothing_remains
from tests.support.classicbuild import (
    GATE,
    Answer,
    begin,
    build,
    bundle,
    context_tar,
    failed,
    spans,
    waits_for,
)
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e


def made(daemon: PrivateDaemon, dockerfile: str, **options: Any) -> Answer:
    return build(daemon, {"Dockerfile": dockerfile}, **options)


def config(daemon: PrivateDaemon, name: str) -> dict[str, Any]:
    status, view = daemon.request("GET", f"/images/{name}/json")
    assert status == 200, view
    return dict(view["Config"])


def seen(daemon: PrivateDaemon, run: str, **options: Any) -> str:
    """What a RUN prints."""
    answer = build(daemon, {"Dockerfile": f"FROM busybox\nRUN {run}\n"}, nocache="1", **options)
    lines = answer.text.partition(f"RUN {run}\n")[2].splitlines()
    return "\n".join(line for line in lines if not line.startswith((" --->", "Successfully")))


# -- the stream ----------------------------------------------------------------------------


def test_the_stream(daemon: PrivateDaemon) -> None:
    answer = made(daemon, "FROM busybox\nENV A=1\nRUN echo hello\n", t=["stream:1", "two/names"])
    image = answer.image
    lines = [json.dumps(line) for line in answer.lines]
    assert lines[0] == '{"stream": "Step 1/3 : FROM busybox\\n"}'
    assert '{"stream": "hello\\n"}' in lines
    assert [json.loads(line) for line in lines[-4:]] == [
        {"aux": {"ID": image}},
        {"stream": f"Successfully built {image[7:19]}\n"},
        {"stream": "Successfully tagged stream:1\n"},
        {"stream": "Successfully tagged two/names:latest\n"},
    ]
    for name in ("stream:1", "two/names:latest"):
        assert daemon.request("GET", f"/images/{name}/json")[1]["Id"] == image


def test_a_quiet_build(daemon: PrivateDaemon) -> None:
    answer = made(daemon, "FROM busybox\nRUN echo hello\n", q="1")
    assert len(answer.lines) == 1 and answer.text.startswith("sha256:")
    text = failed(daemon, {"Dockerfile": "FROM busybox\nRUN echo why; exit 3\n"}, q="1").text
    assert "Step 2/2" in text and "why\n" in text


def test_a_failing_command(daemon: PrivateDaemon) -> None:
    answer = failed(daemon, {"Dockerfile": "FROM busybox\nRUN echo out; echo err >&2; exit 42\n"})
    assert answer.status == 200
    last = answer.lines[-1]
    assert last["errorDetail"]["code"] == 42
    assert last["error"] == last["errorDetail"]["message"]
    assert "/bin/sh -c echo out; echo err >&2; exit 42" in last["error"]
    assert "returned a non-zero code: 42" in last["error"]
    assert "out\n" in answer.text and "err\n" in answer.text
    assert not any("aux" in line for line in answer.lines)


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("", "Dockerfile"),
        ("FROM busybox\nRUNN x\n", "RUN"),
        ("FROM busybox\nCOPY\n", "COPY"),
        ("FROM busybox\nCOPY --from=nowhere.invalid/x /a /b\n", "nowhere.invalid"),
        ("FROM busybox\nCOPY missing /b\n", "missing"),
        ("FROM busybox\nCOPY ../../etc/passwd /b\n", "etc/passwd"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n", "secret"),
        ("FROM busybox\nLABEL a=\\xff\nRUN \xff\n", ""),
        ("ARG X\nFROM $X\n", "blank"),
        ("FROM busybox\nSTOPSIGNAL NOSUCH\n", "signal"),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "nobody-here"),
        ('FROM busybox\nRUN ["/nothing"]\n', "nothing"),
        ("FROM no.invalid/x\n", "Dockerfile:1:1: FROM no.invalid/x: "),
        ("FROM busybox AS build\nFROM biuld.invalid\n", "Dockerfile:2:1: FROM biuld.invalid: "),
        ("FROM busybox AS base.invalid\nFROM bas.invalid\n", "(did you mean base.invalid?)"),
        (
            "FROM busybox AS build\nRUN echo > /app\nFROM busybox\nCOPY --from=build /ap /\n",
            '"/ap": not found in stage build; did you mean "/app"?',
        ),
        ("FROM busybox\nFROM busybox\nCOPY --from=0 /no-such /\n", "not found in stage 0"),
        (
            "FROM --platform=linux/s390x busybox\n",
            "FROM busybox: busybox is here for linux/amd64, not for linux/s390x: ",
        ),
        (
            "FROM busybox AS base.invalid\nFROM busybox\nCOPY --from=bas.invalid / /\n",
            "no stage is called bas.invalid (did you mean base.invalid?), and as an image: ",
        ),
    ],
)
def test_what_cannot_be_built(daemon: PrivateDaemon, dockerfile: str, words: str) -> None:
    answer = failed(daemon, {"Dockerfile": dockerfile.encode("latin-1")})
    assert words in answer.error
    assert "internal error" not in answer.error
    wait_nothing_remains(daemon)


@pytest.mark.parametrize(
    ("body", "options", "words"),
    [
        (b"", {}, ""),
        (b"x" * 2000, {}, ""),
        (context_tar({"other": ""}), {}, "Dockerfile"),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"dockerfile": "d/e"}, "d/e"),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"dockerfile": "../../etc/passwd"}, ""),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"target": "nowhere"}, "nowhere"),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"t": "UPPER"}, "UPPER"),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"platform": "vax/1/2/3"}, "vax"),
        (context_tar({"Dockerfile": "FROM busybox\n"}), {"remote": "ftp://x"}, "ftp"),
        (context_tar({"Dockerfile": "FROM busybox\nRUN true\n"}), {"networkmode": "nope"}, "nope"),
        (context_tar({"Dockerfile": "FROM busybox\nRUN true\n"}), {"extrahosts": "x"}, "x"),
    ],
)
def test_what_cannot_be_asked_for(
    daemon: PrivateDaemon, body: bytes, options: dict[str, str], words: str
) -> None:
    answer = failed(daemon, body, **options)
    assert words in answer.error and "internal error" not in answer.error
    assert answer.status in (200, 400, 404)
    wait_nothing_remains(daemon)


# -- options -------------------------------------------------------------------------------


def test_target(daemon: PrivateDaemon) -> None:
    text = (
        "FROM busybox AS one\nRUN echo 1 > /f\nFROM one AS two\nRUN echo 2 > /f\n"
        "FROM two\nRUN exit 1\n"
    )
    made(daemon, text, target="one", t="target:1")
    made(daemon, text, target="TWO", t="target:2")
    assert daemon.run("target:1", "cat", "/f") == "1\n"
    assert daemon.run("target:2", "cat", "/f") == "2\n"


def test_labels_and_arguments(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nARG A=default\nARG B=default\nLABEL own=1 both=file\nENV A=$A B=$B\n"
    made(daemon, text, buildargs={"A": "given"}, labels={"both": "client", "x": ""}, t="args:1")
    found = config(daemon, "args:1")
    assert found["Labels"] == {"own": "1", "both": "client", "x": ""}
    assert {"A=given", "B=default"} <= set(found["Env"])


def test_a_base_image_that_is_to_be_newer(daemon: PrivateDaemon) -> None:
    daemon.docker("tag", "busybox", "no.invalid/busybox")
    error = failed(daemon, {"Dockerfile": "FROM no.invalid/busybox\n"}, pull="1").error
    assert error.startswith('Dockerfile:1:1: FROM no.invalid/busybox: Get "https://no.invalid/v2/')


def test_an_argument_that_is_misspelt(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nARG VERSION=1\nRUN echo $VERSION\n"
    said = "[Warning] One or more build-args [VERSIO] were not consumed (did you mean VERSION?)\n"
    assert said in made(daemon, text, buildargs={"VERSIO": "2"}).text
    assert "[Warning]" not in made(daemon, text, buildargs={"VERSION": "2"}).text


def test_the_json_form_gone_wrong(daemon: PrivateDaemon) -> None:
    """The shell gets it, and its complaint alone would be a riddle."""
    text = failed(daemon, {"Dockerfile": 'FROM busybox\nRUN ["echo", a]\n'}).text
    assert "[Warning] JSONArgsRecommended: " in text and "(line 2)\n" in text


def test_what_a_failure_leaves(daemon: PrivateDaemon) -> None:
    """An image that is named, or nothing by `docker build --force-rm`."""
    files = {"Dockerfile": "FROM busybox\nRUN echo kept > /left; exit 3\n"}
    before = len(daemon.docker("images", "-aq").stdout.split())
    text = failed(daemon, files, forcerm="1").text
    assert "The state at which it failed" not in text
    assert len(daemon.docker("images", "-aq").stdout.split()) == before
    text = failed(daemon, files).text
    state = text.rpartition("docker run -it --rm ")[2].strip()
    assert daemon.run("--entrypoint", "cat", state, "/left") == "kept\n"
    wait_nothing_remains(daemon)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": "1000"}, "Minimum memory limit allowed is 6MB"),
        ({"memory": str(64 << 20), "memswap": "1000"}, "larger than memory limit"),
        ({"memswap": str(64 << 20)}, "always set the Memory limit"),
        ({"cpuperiod": "5"}, "CPU cfs period can not be less than 1ms"),
        ({"cpuquota": "5"}, "CPU cfs quota can not be less than 1ms"),
    ],
)
def test_limits_that_no_kernel_takes(
    daemon: PrivateDaemon, limits: dict[str, str], words: str
) -> None:
    files = {"Dockerfile": "FROM busybox\nRUN echo limited\n"}
    assert words in failed(daemon, files, nocache="1", **limits).error


def test_copies_of_a_file_are_files_of_their_own(daemon: PrivateDaemon) -> None:
    """Also when they are of several steps: programs tell by the inode whether two are one."""
    files = {"sub/file": "one\n"}
    files["Dockerfile"] = (
        "FROM busybox AS below\nCOPY . /a/\n"
        "FROM below\nCOPY . /b/\nCOPY --link . /c/\n"
        "RUN cp /a/sub/file /b/sub/file && cp /b/sub/file /c/sub/file\n"
        "FROM below\nCOPY . /b/\nCOPY . /c/\n"
        "RUN mkdir /d && cp -a /a /b /c /d && echo two >> /d/a/sub/file && cat /d/?/sub/file\n"
        "COPY --from=1 /c /e\n"
    )
    assert "one\ntwo\none\none\n" in build(daemon, files, nocache="1").text


def test_an_image_without_layers_keeps_its_id(daemon: PrivateDaemon) -> None:
    dockerfile = 'FROM scratch\nEXPOSE 80 2375\nENTRYPOINT ["/bin/echo"]\n'
    first = made(daemon, dockerfile).image
    assert made(daemon, dockerfile).image == first
    assert made(daemon, dockerfile.replace("80 2375", "2375 80")).image == first
    assert made(daemon, f'{dockerfile}CMD ["a"]\n').image != first
    assert made(daemon, dockerfile, nocache="1").image != first


def test_networks(daemon: PrivateDaemon) -> None:
    links = "ls /sys/class/net"
    assert seen(daemon, links, networkmode="none") == "lo"
    assert seen(daemon, links, networkmode="default").split() == ["eth0", "lo"]
    assert seen(daemon, links, networkmode="bridge").split() == ["eth0", "lo"]
    # Other links of the host come and go.
    assert daemon.bridge in seen(daemon, links, networkmode="host").split()


def test_a_network_of_ones_own(daemon: PrivateDaemon) -> None:
    daemon.docker("network", "create", "build-net")
    server = daemon.docker(
        "run", "-d", "--network", "build-net", "--name", "build-peer", "busybox", "sleep", "1000"
    ).stdout
    try:
        assert "build-peer" in seen(daemon, "nslookup build-peer || true", networkmode="build-net")
        wait_until(
            lambda: len(daemon.request("GET", "/networks/build-net")[1]["Containers"]) == 1,
            what="the step's endpoint to go",
        )
    finally:
        daemon.docker("rm", "-f", server.decode().strip())
        daemon.docker("network", "rm", "build-net")


def test_extra_hosts(daemon: PrivateDaemon) -> None:
    hosts = ["one:192.0.2.1", "six:2001:db8::1"]
    text = seen(daemon, "cat /etc/hosts", extrahosts=hosts)
    assert "192.0.2.1\tone" in text and "2001:db8::1\tsix" in text
    made(daemon, "FROM busybox\nRUN true\n", extrahosts=hosts, t="hosts:1")
    assert "192.0.2.1" not in daemon.run("--network", "none", "hosts:1", "cat", "/etc/hosts")


def test_a_step_that_takes_too_much_memory(daemon: PrivateDaemon) -> None:
    text = "FROM busybox\nRUN tail /dev/zero\n"
    answer = failed(daemon, {"Dockerfile": text}, memory=str(32 << 20), memswap=str(32 << 20))
    assert answer.lines[-1]["errorDetail"]["code"] == 137
    assert "memory" in answer.error
    wait_nothing_remains(daemon)


def test_limits(daemon: PrivateDaemon) -> None:
    limits = json.dumps([{"Name": "nofile", "Soft": 77, "Hard": 88}])
    run = "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -1"
    lines = seen(daemon, run, ulimits=limits, shmsize=str(8 << 20)).splitlines()
    assert lines[:2] == ["77", "88"]
    assert lines[2].split()[1] == "8192"


def test_squash(daemon: PrivateDaemon) -> None:
    text = (
        "FROM busybox\nRUN echo a > /a; echo gone > /gone\nRUN rm /gone /etc/group\nENV A=1\n"
        "RUN echo b > /b\n"
    )
    plain = made(daemon, text, t="squash:no")
    squashed = made(daemon, text, squash="1", t="squash:yes")
    assert squashed.image != plain.image
    view = daemon.request("GET", "/images/squash:yes/json")[1]
    base = daemon.request("GET", "/images/busybox/json")[1]
    layers = view["RootFS"]["Layers"]
    assert layers[:-1] == base["RootFS"]["Layers"]
    listing = "cat /a /b; ls /gone /etc/group 2>&1 || true"
    assert daemon.run("squash:yes", "sh", "-c", listing) == daemon.run(
        "squash:no", "sh", "-c", listing
    )
    history = daemon.request("GET", "/images/squash:yes/history")[1]
    assert len([one for one in history if one["Size"]]) <= 2
    assert made(daemon, text, squash="1").image == squashed.image


def test_a_source_date(daemon: PrivateDaemon) -> None:
    """What was built without it, or with another, is not taken for it."""
    files = {"Dockerfile": "FROM busybox\nRUN mkdir /d; echo x > /d/f\nCOPY f /f\n", "f": "1"}
    build(daemon, files)
    first = build(daemon, files, buildargs={"SOURCE_DATE_EPOCH": "0"}, t="epoch:0")
    assert daemon.run("epoch:0", "stat", "-c", "%Y", "/d/f", "/f", "/d").split() == ["0", "0", "0"]
    again = build(daemon, files, buildargs={"SOURCE_DATE_EPOCH": "0"}, nocache="1")
    assert again.image == first.image
    view = daemon.request("GET", "/images/epoch:0/json")[1]
    assert view["Created"] == "1970-01-01T00:00:00Z"
    assert (
        "SOURCE_DATE_EPOCH" in failed(daemon, files, buildargs={"SOURCE_DATE_EPOCH": "soon"}).error
    )


def test_a_moved_tag_leaves_the_older_image(daemon: PrivateDaemon) -> None:
    first = made(daemon, "FROM busybox\nENV MOVED=1\n", t="moved:1").image
    second = made(daemon, "FROM busybox\nENV MOVED=2\n", t="moved:1").image
    assert daemon.request("GET", "/images/moved:1/json")[1]["Id"] == second
    assert daemon.request("GET", f"/images/{first}/json")[1]["RepoTags"] == []


def test_a_dockerfile_elsewhere_and_a_compressed_context(daemon: PrivateDaemon) -> None:
    body = context_tar({"d/other": "FROM busybox\nCOPY f /f\n", "f": "x"})
    for packed in (body, gzip.compress(body)):
        answer = build(daemon, packed, dockerfile="d/other", t="elsewhere:1")
        assert daemon.run("elsewhere:1", "cat", "/f") == "x"
        assert answer.steps[1].text == "COPY f /f"


# -- parallel ------------------------------------------------------------------------------


def test_stages_run_at_once(daemon: PrivateDaemon) -> None:
    """Each of two steps ends when the other one has begun."""
    runs = [f"RUN {GATE} touch /gate/stage{n}; {waits_for(f'stage{1 - n}')}" for n in range(2)]
    stages = "".join(f"FROM busybox AS s{n}\n{run}\nRUN touch /f\n" for n, run in enumerate(runs))
    text = f"{stages}FROM busybox\nCOPY --from=s0 /f /0\nCOPY --from=s1 /f /1\n"
    times = spans(bundle(daemon, {"Dockerfile": text}))
    (begun0, ended0), (begun1, ended1) = (times[run] for run in runs)
    assert max(begun0, begun1) < min(ended0, ended1)


def test_steps_of_a_stage_follow_one_another(daemon: PrivateDaemon) -> None:
    runs = [f"RUN : {n}; sleep 0.1" for n in range(3)]
    times = spans(bundle(daemon, {"Dockerfile": "FROM busybox\n" + "\n".join(runs)}))
    ordered = [times[run] for run in runs]
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def test_what_the_target_does_not_need_is_not_built(daemon: PrivateDaemon) -> None:
    text = "FROM busybox AS no\nRUN exit 9\nFROM busybox\nRUN true\n"
    assert "RUN exit 9" not in made(daemon, text).text


def test_tars_that_are_hostile(daemon: PrivateDaemon) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        for name, text in (
            ("out/hostile", b"x"),
            ("../../up", b"x"),
            ("/absolute", b"x"),
            ("Dockerfile", b"FROM busybox\nCOPY out/passwd /p\n"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    answer = begin(daemon, buffer.getvalue(), t="hostile:1").rest()
    assert not Path("/etc/hostile").exists() and not Path("/absolute").exists()
    if not answer.error:
        assert "root:x:0:0:root:/root" in daemon.run("hostile:1", "cat", "/etc/passwd")
        assert "/usr/sbin/nologin" not in daemon.run("hostile:1", "sh", "-c", "cat /p 2>&1 || true")
    wait_nothing_remains(daemon)
