"""Random builds at once, left and pruned at random: in the end everything adds up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.buildremains import wait_nothing_remains
from tests.support.classicbuild import begin
from tests.support.daemon import PrivateDaemon, wait_until

pytestmark = pytest.mark.e2e

_WORKERS, _BUILDS = 4, 25


def dockerfile(draw: random.Random) -> str:
    """A few stages of a few steps, of which many are the same as in other builds."""
    lines = []
    for stage in range(draw.randint(1, 3)):
        above = [f"s{number}" for number in range(stage)]
        lines.append(f"FROM {draw.choice(['busybox', *above])} AS s{stage}")
        lines += [instruction(draw, above) for _ in range(draw.randint(1, 4))]
    return "\n".join(lines) + "\n"


def instruction(draw: random.Random, above: list[str]) -> str:
    one, two = draw.randint(1, 2), draw.randint(1, 2)
    choices = [
        f"RUN echo {one} > /f{two}",
        f"RUN sleep 0.{one}; echo {one} > /f{two}",
        "RUN rm -rf /f1 /etc/group",
        "RUN true",
        "RUN --mount=type=cache,target=/c echo x >> /c/x",
        "RUN --mount=type=bind,target=/m cat /m/f > /z",
        "COPY f /f",
        "COPY --link f /linked",
        f"COPY d /d{one}",
        f"WORKDIR /w{one}",
        "ENV A=1",
    ]
    if above:
        stage = draw.choice(above)
        choices += [f"COPY --from={stage} /etc /e", f"COPY --link --from={stage} /etc/passwd /p"]
    if draw.random() < 0.05:
        return "RUN exit 3"
    return draw.choice(choices)


class Worker(threading.Thread):
    """Builds, and leaves some of them."""

    def __init__(self, daemon: PrivateDaemon, number: int) -> None:
        super().__init__()
        self._daemon, self._number = daemon, number
        self._draw = random.Random(number)
        self.errors: list[str] = []

    def run(self) -> None:
        for _ in range(_BUILDS):
            try:
                self._build()
            except Exception as error:
                self.errors.append(repr(error))

    def _build(self) -> None:
        draw = self._draw
        options: dict[str, Any] = {"t": f"soak:{self._number}"} if draw.random() < 0.5 else {}
        options |= {"nocache": "1"} if draw.random() < 0.15 else {}
        options |= {"squash": "1"} if draw.random() < 0.1 else {}
        content = str(draw.randint(1, 2))
        text = dockerfile(draw)
        files = {"Dockerfile": text, ".dockerignore": "Dockerfile", "f": content, "d/x": content}
        going = begin(self._daemon, files, **options)
        if draw.random() < 0.35:
            for _ in zip(range(draw.randint(0, 12)), going.read(), strict=False):
                pass
            going.leave()
            return
        answer = going.rest()
        if answer.error and not answer.error.endswith("non-zero code: 3"):
            self.errors.append(f"{answer.error}\n{text}")


def prune_meanwhile(daemon: PrivateDaemon, workers: list[Worker]) -> list[Any]:
    """All but the successes."""
    draw = random.Random(9)
    answers = []
    while any(worker.is_alive() for worker in workers):
        for worker in workers:
            worker.join(0.1)
        query = draw.choice(["", "?all=1", "?max-used-space=5000"])
        answers.append(daemon.request("POST", f"/build/prune{query}"))
        answers.append(daemon.request("POST", "/images/prune"))
        answers.append(daemon.request("GET", "/system/df"))
    return [answer for status, answer in answers if status != 200]


def layers(daemon: PrivateDaemon) -> list[str]:
    return [path.name for path in Path(daemon.data_root / "images" / "layers").iterdir()]


def test_random_builds(make_daemon: Callable[..., PrivateDaemon]) -> None:
    daemon = make_daemon()
    daemon.start()
    daemon.import_busybox()
    workers = [Worker(daemon, number) for number in range(_WORKERS)]
    for worker in workers:
        worker.start()
    refused = prune_meanwhile(daemon, workers)
    assert not refused
    assert not [error for worker in workers for error in worker.errors]
    wait_nothing_remains(daemon)
    for image in daemon.request("GET", "/images/json")[1]:
        if "busybox:latest" not in image["RepoTags"]:
            status, _ = daemon.request("GET", f"/images/{image['Id']}/get")
            assert status == 200, "a layer of an image is gone"
    for image in daemon.request("GET", "/images/json?all=1")[1]:
        daemon.request("DELETE", f"/images/{image['Id']}?force=1")
    assert daemon.request("POST", "/build/prune?all=1")[0] == 200
    assert daemon.request("GET", "/system/df")[1]["BuildCache"] in ([], None)
    wait_until(lambda: not layers(daemon), what="the layers to go")
