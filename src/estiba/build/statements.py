"""What is stated of an image that was built: bill of materials and provenance, kept with it."""

from __future__ import annotations

from dataclasses import dataclass

from estiba.build.attest.provenance import (
    BuildFacts,
    Material,
    StepFacts,
    image_uri,
    provenance,
)
from estiba.build.attest.sbom import sbom
from estiba.build.effects import entered, settled_apart
from estiba.build.ops import ContextInput, GitInput, ImageInput, Input
from estiba.build.platform import Built
from estiba.build.ports import Workspaces
from estiba.build.request import BuildRequest
from estiba.images.attestations import Predicate, attach
from estiba.images.images import Images
from estiba.model.reference import parse_reference


@dataclass(frozen=True, slots=True)
class Statements:
    images: Images
    workspaces: Workspaces

    async def attach(self, request: BuildRequest, built: Built) -> None:
        """As far as the client asked for it. Raises LimitExceeded, InvalidArgument."""
        predicates: list[Predicate] = []
        if request.sbom:
            name = request.tags[0].familiar if request.tags else built.image.id
            created_s = built.finished_ns // 10**9 if built.epoch_s is None else built.epoch_s
            async with entered(self.workspaces.view(built.image.layers)) as root:
                predicates.append(await settled_apart(sbom, root, name, created_s))
        if request.provenance:
            predicates.append(provenance(_facts(request, built), request.provenance))
        if predicates:
            await settled_apart(attach, self.images, built.image.id, predicates)


def _facts(request: BuildRequest, built: Built) -> BuildFacts:
    return BuildFacts(
        platform=built.image.platform,
        started_ns=built.started_ns,
        finished_ns=built.finished_ns,
        dockerfile=request.dockerfile_name,
        dockerfile_text=request.dockerfile.decode(errors="replace"),
        context=request.remote,
        contexts={name: _shown(source) for name, source in request.named.items()},
        target=request.target,
        args=dict(request.build_args),
        labels=dict(request.labels),
        network=request.network,
        no_cache=request.ignored_stages is None,
        secrets=tuple(sorted(request.secrets)),
        ssh=tuple(sorted(request.agents)),
        materials=(*_bases(built), *built.materials),
        steps=_steps(built),
        source_date_epoch=built.epoch_s,
    )


def _bases(built: Built) -> list[Material]:
    found = []
    for source, record in built.bases.items():
        digest = record.origins[-1].manifest if record.origins else record.id
        found.append(Material(image_uri(parse_reference(source.name), source.platform), digest))
    return found


def _steps(built: Built) -> tuple[StepFacts, ...]:
    facts = []
    for index, state in sorted(built.states.items()):
        stage = built.plan.stage(index)
        for step, result in state.done:
            if step not in stage.steps:
                continue  # of the stage below, told there
            layer = result.layer if result is not None else None
            facts.append(
                StepFacts(
                    name=step.instruction.text,
                    stage=stage.title,
                    line=step.instruction.span.start.line,
                    key=result.record_id if result is not None else "",
                    layer=layer.info.result().diff_id if layer is not None else "",
                    cached=result is not None and result.cached,
                )
            )
    return tuple(facts)


def _shown(source: Input) -> str:
    match source:
        case ImageInput(name, _):
            return f"docker-image://{name}"
        case GitInput(url):
            return url
        case ContextInput():
            return "local"
        case _:
            return ""
