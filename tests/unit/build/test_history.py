"""The words of an image's history, as BuildKit writes them."""

from __future__ import annotations

import pytest

from estiba.build import history
from estiba.model.container import HealthConfig


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('say "x"', r'"say \"x\""'),
        ("it's", '"it\'s"'),
        ("a\\b", r'"a\\b"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\0\x1b\x7f", r'"\x00\x1b\x7f"'),
        ("é €", '"é €"'),
        ("\u0085\u00a0\u200b", r'"\u0085\u00a0\u200b"'),
        ("\U000e0001", r'"\U000e0001"'),
        ("\U0001f600", '"\U0001f600"'),
        ("\udcff\udc80", r'"\xff\x80"'),
    ],
)
def test_quoting_as_go_does(text: str, quoted: str) -> None:
    assert history.go_quoted(text) == quoted


def test_lists() -> None:
    assert history.go_list([]) == "[]"
    assert history.go_list(["sh", "-c", 'echo "a"']) == r'["sh" "-c" "echo \"a\""]'
    assert history.shell(["/bin/bash", "-c"]) == "SHELL [/bin/bash -c]"
    assert history.shell([]) == "SHELL []"


SECOND = 10**9


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (HealthConfig(test=["NONE"]), r"""&{["NONE"] "0s" "0s" "0s" "0s" '\x00'}"""),
        (
            HealthConfig(
                test=["CMD-SHELL", "curl -f http://localhost || exit 1"],
                interval=30 * SECOND,
                timeout=90 * SECOND,
                start_period=SECOND // 2,
                start_interval=3600 * SECOND,
                retries=3,
            ),
            r"""&{["CMD-SHELL" "curl -f http://localhost || exit 1"] """
            r""""30s" "1m30s" "500ms" "1h0m0s" '\x03'}""",
        ),
    ],
)
def test_health_checks(check: HealthConfig, text: str) -> None:
    assert history.health(check) == text


@pytest.mark.parametrize(
    ("retries", "shown"),
    [(7, r"'\a'"), (10, r"'\n'"), (31, r"'\x1f'"), (32, "' '"), (34, "'\"'"), (39, r"'\''"),
     (65, "'A'"), (92, r"'\\'"), (127, r"'\x7f'"), (160, r"'\u00a0'"), (0xD800, "'\ufffd'"),
     (2**31, "'\ufffd'"), (-1, "'\ufffd'")],
)  # fmt: skip
def test_retries_are_quoted_as_a_character(retries: int, shown: str) -> None:
    assert history.health(HealthConfig(test=["NONE"], retries=retries)).endswith(f" {shown}}}")


def test_runs() -> None:
    argv = ["/bin/sh", "-c", "make  all"]
    assert history.run(argv, []) == "RUN /bin/sh -c make  all # buildkit"
    assert history.run(argv, [("A", "1"), ("B", "x y")]) == (
        "RUN |2 A=1 B=x y /bin/sh -c make  all # buildkit"
    )


def test_files() -> None:
    assert history.files("COPY", [], ["a", "b"], "/d/") == "COPY a b /d/ # buildkit"
    assert history.files("ADD", ["--chown=1:1", "--link"], ["a"], "/d") == (
        "ADD --chown=1:1 --link a /d # buildkit"
    )
