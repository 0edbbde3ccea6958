"""The numbers and names that watchers know the pieces of a plan by."""

from __future__ import annotations

from estiba.build.dockerfile.parser import parse
from estiba.build.ops import Plan
from estiba.build.plan import PlanRequest, decide_plan
from estiba.build.progress import Vertex
from estiba.build.vertices import BASE, number_vertices
from estiba.model.image import Platform

HOST = Platform(architecture="amd64")


def planned(text: bytes) -> Plan:
    return decide_plan(PlanRequest(dockerfile=parse(text), platform=HOST, host=HOST))


def numbered(text: bytes, build: int = 0, *, many: bool = False) -> list[Vertex]:
    return list(number_vertices(planned(text), build, many).values())


TWO = b"""# comment
FROM scratch AS build
WORKDIR /w
ENV A=1
COPY a \\
  b /d/

FROM scratch
COPY --from=build /d /d
CMD ["x"]
"""


def test_steps_count_over_all_stages() -> None:
    """As the classic builder numbers them: each instruction that is built."""
    found = numbered(TWO)
    assert [(one.step, one.steps) for one in found] == [(n, 7) for n in range(1, 8)]
    assert [one.id for one in found] == list(range(1, 8))


def test_names_count_what_acts_in_a_stage() -> None:
    found = numbered(TWO)
    assert [one.name for one in found if not one.is_silent] == [
        "[build 1/3] FROM scratch AS build",
        "[build 2/3] WORKDIR /w",
        "[build 3/3] COPY a b /d/",
        "[stage-1 1/2] FROM scratch",
        "[stage-1 2/2] COPY --from=build /d /d",
    ]
    assert [one.text for one in found if one.is_silent] == ["ENV A=1", 'CMD ["x"]']


def test_places() -> None:
    found = {one.text: (one.line, one.end_line, one.stage) for one in numbered(TWO)}
    assert found["FROM scratch AS build"] == (2, 2, "build")
    assert found["COPY a b /d/"] == (5, 6, "build")
    assert found["FROM scratch"] == (8, 8, "stage-1")


def test_keys_are_stage_and_step() -> None:
    plan = planned(TWO)
    found = number_vertices(plan, 0, False)
    expected = [
        (s.index, at) for s in plan.stages for at in (BASE, *(one.index for one in s.steps))
    ]
    assert list(found) == expected


def test_platforms_at_once_share_no_number() -> None:
    first, second = numbered(TWO, 0, many=True), numbered(TWO, 1, many=True)
    assert not {one.id for one in first} & {one.id for one in second}
    assert first[0].name == "[linux/amd64 build 1/3] FROM scratch AS build"
