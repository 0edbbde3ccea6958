"""Instructions of `docker commit --change` and `docker import --change`."""

from __future__ import annotations

import pytest

from estiba.images.changes import apply_changes
from estiba.model.image import ImageProcessConfig

BASE = ImageProcessConfig(env=["PATH=/bin", "A=1"])


@pytest.mark.parametrize(
    ("line", "env"),
    [
        ("ENV PATH=/usr/bin:$PATH", ["PATH=/usr/bin:/bin", "A=1"]),
        ("ENV B=${A}2 A=3", ["PATH=/bin", "A=3", "B=12"]),
        ("ENV B $A and $NONE", ["PATH=/bin", "A=1", "B=1 and "]),
        ("ENV A=2 C=$A", ["PATH=/bin", "A=2", "C=1"]),
    ],
)
def test_variables_see_those_of_the_image(line: str, env: list[str]) -> None:
    assert apply_changes(BASE, [line]).env == env
