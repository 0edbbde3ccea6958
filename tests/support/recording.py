"""Writes `expected.json` of the corpus from what a genuine engine with BuildKit makes of it.

    DOCKER_HOST=… python -m tests.support.recording [--check] [CASE…]

Needs Docker Engine 28 or newer with buildx, on this host's loopback. `--check` only compares.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.building import Built, Order, agent, modern_words, take
from tests.support.busybox import busybox_tar
from tests.support.corpus import Case, cases
from tests.support.imagetree import read


class BuildxDoor:
    name = "buildx"

    def build(self, order: Order) -> Built:
        text = order.dockerfile.read_bytes()
        if text.startswith(b"# syntax="):
            # It would fetch that frontend, where there may be no network.
            order.dockerfile.write_bytes(text.partition(b"\n")[2])
        words = ["docker", "buildx", "build", "--provenance=false", "--progress=plain"]
        with agent(order) as variables:
            done = subprocess.run(
                [*words, *modern_words(order)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, **variables}, check=False,
            )  # fmt: skip
        return Built(done.returncode, done.stdout.decode(errors="replace"))

    def archive(self, image: str) -> bytes:
        return _docker("save", image)


def _docker(*words: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["docker", *words], input=stdin, stdout=subprocess.PIPE, check=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*", metavar="CASE")
    given = parser.parse_args()
    _docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
    door, base = BuildxDoor(), read(_docker("save", "busybox:latest"))
    chosen = [
        case for case in cases()
        if (not given.names or case.name in given.names) and "genuine" not in case.build
    ]  # fmt: skip
    failures = 0
    for case in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            outcome = take(case, door, base, Path(scratch))
        failures += not _keep(case, outcome.built, outcome.found, given.check)
    sys.exit(1 if failures else 0)


def _keep(case: Case, built: Built, found: dict[str, object], only_check: bool) -> bool:
    if bool(case.error) != bool(built.code):
        print(f"{case.name}: ended with {built.code}\n{built.output}")
        return False
    if case.error:
        print(f"{case.name}: {built.output.splitlines()[-1]}")
        return True
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    path = case.folder / "expected.json"
    if only_check:
        if path.read_text() != text:
            print(f"{case.name}: differs")
        return path.read_text() == text
    path.write_text(text)
    print(f"{case.name}: written")
    return True


if __name__ == "__main__":
    main()
