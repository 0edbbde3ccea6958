"""Details before the lines of a log."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.records import make_record

from estiba.containers.logdetails import check_details, details_prefix, log_tag
from estiba.containers.logs import LogFormatter, LogQuery
from estiba.model.container import Config, HostConfig, LogConfig
from estiba.model.errors import InvalidArgument

LABELS = {"team": "a b", "com.shop": "x", "other": "y"}
ENV = ["STAGE=prod=1", "PATH=/bin", "EMPTY="]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, b" "),
        ({"labels": "team"}, b"team=a+b "),
        ({"labels": "team,missing", "env": "STAGE,EMPTY"}, b"EMPTY=,STAGE=prod%3D1,team=a+b "),
        (
            {"labels-regex": "^com", "env-regex": "PATH", "tag": "t"},
            b"PATH=%2Fbin,com.shop=x,tag=t ",
        ),
        ({"labels-regex": "("}, b" "),
    ],
)
def test_what_the_options_name(options: dict[str, str], expected: bytes) -> None:
    record = make_record(
        config=Config(labels=LABELS, env=ENV),
        host_config=HostConfig(log_config=LogConfig(config=options)),
    )
    assert details_prefix(record) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", "1" * 12),
        ("plain text", "plain text"),
        ("{{.Name}}/{{ .ImageName }}", "box/busybox:latest"),
        ("{{.FullID}}{{- .DaemonName -}}", "1" * 64 + "estiba"),
        ("{{.ImageID}} {{.ImageFullID}}", f"{'0' * 12} sha256:{'0' * 64}"),
        ("{{.Command}}", "sh -c x"),
    ],
)
def test_the_tag_is_filled_in(template: str, expected: str) -> None:
    record = msgspec.structs.replace(
        make_record(
            config=Config(entrypoint=["sh"], cmd=["-c", "x"]),
            host_config=HostConfig(log_config=LogConfig(config={"tag": template})),
        ),
        id="1" * 64,
        name="box",
        image_name="busybox:latest",
        image_id="sha256:" + "0" * 64,
    )
    check_details({"tag": template})
    assert log_tag(record) == expected


@pytest.mark.parametrize(
    "options", [{"tag": "{{.Nope}}"}, {"tag": "{{if .ID}}x{{end}}"}, {"labels-regex": "("}]
)
def test_what_makes_no_sense_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="log opt"):
        check_details(options)


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        (False, b"a=b long line\na=b next\n"),
        (
            True,
            b"2026-11-24T10:01:04.123456789Z a=b long line\n"
            b"2026-11-24T10:01:04.123456789Z a=b next\n",
        ),
    ],
)
def test_they_stand_before_lines_and_not_before_pieces(timestamps: bool, expected: bytes) -> None:
    stamp = b"2026-11-24T10:01:04.123456789+00:00 stdout "
    block = b"".join(stamp + text + b"\n" for text in (b"P long ", b"F line", b"F next"))
    formatter = LogFormatter(LogQuery(prefix=b"a=b ", timestamps=timestamps))
    assert formatter.format(block) == [(1, expected)]


def test_a_pattern_that_could_take_for_ever_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="could take long"):
        check_details({"labels-regex": "(a+)+$"})
