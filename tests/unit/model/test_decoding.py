"""Types met by several threads at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import estiba
from estiba.model.decoding import from_json, from_plain

_FIRST_MEETINGS = """
import sys, threading
import msgspec
from estiba.model.decoding import from_json, from_plain

sys.setswitchinterval(1e-6)

def fresh():
    class Inner(msgspec.Struct):
        number: int = 0
        words: dict[str, str] = {}

    class Outer(msgspec.Struct):
        one: Inner
        many: list[Inner] = []

    return Outer

def meet(kind, start, answers):
    start.wait()
    read = from_json(b'{"one": {"number": 1}, "many": [{"words": {"a": "b"}}]}', kind)
    again = from_plain({"one": {"number": 1}, "many": [{"words": {"a": "b"}}]}, kind)
    answers.append(read == again)

for _ in range(300):
    kind, start, answers = fresh(), threading.Barrier(4), []
    threads = [threading.Thread(target=meet, args=(kind, start, answers)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 4, answers
"""


def test_a_type_is_met_by_four_threads_at_once() -> None:
    """In a process of its own: without the lock it dies of a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_MEETINGS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_else_reads_typed_json() -> None:
    typed = re.compile(r"msgspec\.(convert\(|json\.Decoder|json\.decode\([^\n]*type=)")
    source = Path(estiba.__file__).parent
    found = {str(path.relative_to(source)) for path in source.rglob("*.py")
             if typed.search(path.read_text())}  # fmt: skip
    assert found == {"model/decoding.py"}


def test_errors_are_those_of_msgspec() -> None:
    with pytest.raises(msgspec.DecodeError):
        from_json(b"{", dict[str, str])
    with pytest.raises(msgspec.ValidationError):
        from_json(b'{"a": 1}', dict[str, str])
    with pytest.raises(msgspec.ValidationError):
        from_plain({"a": 1}, dict[str, str])
