"""The 21 checks of a Dockerfile: pure functions over its instructions, each with an advice.

`lint` runs them all and leaves out what `check=skip=…` names; it never looks at files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from estiba.build.dockerfile.arguments import Word, plain_words, quoted_words
from estiba.build.dockerfile.directives import with_check
from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.flags import split_flags
from estiba.build.dockerfile.instructions import (
    Cmd,
    Directives,
    Dockerfile,
    Entrypoint,
    Env,
    From,
    Healthcheck,
    Instruction,
    Label,
    Position,
    Span,
    Stage,
    Warning,
)
from estiba.build.dockerfile.lines import keyword_of
from estiba.build.dockerfile.lint_stages import Base, Walk, from_rules, stage_rules

CHECK_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
ADVICE: Mapping[str, str] = {
    "StageNameCasing": "Write the name of the stage in lower case: names are compared so.",
    "FromAsCasing": "Write FROM and AS in the same case.",
    "NoEmptyContinuation": "Remove the empty line, or make it a comment.",
    "ConsistentInstructionCasing": "Write all instructions in capitals, or all in lower case.",
    "DuplicateStageName": "Rename one of the stages: only the last one is found by the name.",
    "ReservedStageName": "Choose another name than scratch and context.",
    "JSONArgsRecommended": 'Write ["program", "argument"]: a shell in front of the program keeps '
    "signals from it. Where a shell is wanted, set one with SHELL.",
    "MaintainerDeprecated": "Use LABEL org.opencontainers.image.authors=… instead.",
    "UndefinedArgInFrom": "Declare the name with ARG above the first FROM.",
    "UndefinedVar": "Declare the name with ARG or ENV in this stage, or correct its spelling.",
    "MultipleInstructionsDisallowed": "Remove all but the last one of them in this stage.",
    "LegacyKeyValueFormat": "Write NAME=VALUE instead of NAME VALUE.",
    "RedundantTargetPlatform": "Remove the flag: the target's platform is the default.",
    "SecretsUsedInArgOrEnv": "Use RUN --mount=type=secret: arguments and variables stay in the "
    "image's history for everybody to read.",
    "InvalidDefaultArgInFrom": "Give the ARG a default with which the image's name is valid.",
    "FromPlatformFlagConstDisallowed": "Use $BUILDPLATFORM or $TARGETPLATFORM, or name the "
    "platform in the stage's name.",
    "CopyIgnoredFile": "Take the path out of .dockerignore, or do not copy it.",
    "InvalidDefinitionDescription": "Begin the comment with the name that it describes, or put an "
    "empty line below it.",
    "ExposeProtoCasing": "Write the protocol in lower case.",
    "ExposeInvalidFormat": "Name only the port of the container: addresses and ports of the host "
    "are chosen when a container is run.",
    "WorkdirRelativePath": "Set an absolute WORKDIR first: what the base image has may change.",
}
RULES = tuple(ADVICE)
EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})
"""Off unless check=experimental=… names them."""
_RESERVED = frozenset({"scratch", "context"})
_ONCE = (Cmd, Entrypoint, Healthcheck)


def lint(
    dockerfile: Dockerfile,
    *,
    build_args: Mapping[str, str] | None = None,
    target_platform: str = "linux/amd64",
    build_platform: str = "linux/amd64",
    ignored: Callable[[str], bool] | None = None,
    bases: Mapping[int, Base] | None = None,
    only: Collection[int] | None = None,
) -> list[Warning]:
    """In the order of the file.

    `ignored` tells of a path of the main context whether nothing of it is there, for a rule of
    .dockerignore; None without such a file. `bases` has what is known of the base images, by the
    number of the stage: where it is not known, undefined variables are not looked for. `only`:
    the stages that are built, all by default.
    """
    arguments = build_args or {}
    walk = Walk(dockerfile, arguments, target_platform, build_platform, ignored, bases or {})
    found = [*dockerfile.warnings, *_casing(dockerfile), *_stage_names(dockerfile)]
    found += from_rules(walk)
    for number, stage in enumerate(dockerfile.stages):
        in_stage = stage_rules(walk, number)
        if only is None or number in only:
            found += in_stage
            found += _once(stage)
            found += _forms(stage, dockerfile.directives.escape)
    shown = _shown(options(dockerfile, arguments))
    return sorted({w for w in found if w.rule in shown}, key=_order)


def options(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> Directives:
    """What is skipped and whether warnings are errors: a build argument beats the directive."""
    given = build_args.get(CHECK_ARGUMENT)
    if not given:
        return dockerfile.directives
    plain = replace(dockerfile.directives, check_skip=(), check_experimental=(), check_error=False)
    return with_check(plain, given, Span(Position(1, 1), Position(1, 1)))


def refuse(
    dockerfile: Dockerfile, warnings: Sequence[Warning], build_args: Mapping[str, str]
) -> None:
    """Raises DockerfileError at the first warning when `check=error=true` stands."""
    if warnings and options(dockerfile, build_args).check_error:
        first = warnings[0]
        rules = ", ".join(dict.fromkeys(warning.rule for warning in warnings))
        raise DockerfileError(
            first.span,
            f"lint violation found for rules: {rules}: {first.message}",
            "none, as check=error=true says",
        )


def _shown(given: Directives) -> frozenset[str]:
    if "all" in given.check_skip:
        return frozenset()
    extra = EXPERIMENTAL if "all" in given.check_experimental else given.check_experimental
    return frozenset(
        rule
        for rule in RULES
        if rule not in given.check_skip and (rule not in EXPERIMENTAL or rule in extra)
    )


def _order(warning: Warning) -> tuple[Position, str, str]:
    return warning.span.start, warning.rule, warning.message


# -- casing and names ----------------------------------------------------------------------


def _written(instruction: Instruction) -> str:
    return instruction.text[: len(instruction.keyword)]


def _from_words(from_: From) -> list[Word]:
    _, rest = keyword_of(from_.text)
    return plain_words(rest[split_flags(rest)[1] :])


def _casing(dockerfile: Dockerfile) -> Iterator[Warning]:
    instructions = [i for stage in dockerfile.stages for i in (stage.from_, *stage.instructions)]
    words = [_written(instruction) for instruction in instructions]
    lower = sum(word.islower() for word in words) > sum(word.isupper() for word in words)
    for word, instruction in zip(words, instructions, strict=True):
        if word != (word.lower() if lower else word.upper()):
            case = "lowercase" if lower else "uppercase"
            yield Warning(
                "ConsistentInstructionCasing",
                f"Command '{word}' should match the case of the command majority ({case})",
                instruction.span,
            )


def _stage_names(dockerfile: Dockerfile) -> Iterator[Warning]:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        from_, name = stage.from_, stage.from_.name
        if not name:
            continue
        keyword, (_, as_, written) = _written(from_), _from_words(from_)
        if written.text != name:
            message = f"Stage name '{written.text}' should be lowercase"
            yield Warning("StageNameCasing", message, from_.span)
        if (keyword.islower() and not as_.text.islower()) or (
            keyword.isupper() and not as_.text.isupper()
        ):
            message = f"'{as_.text}' and '{keyword}' keywords' casing do not match"
            yield Warning("FromAsCasing", message, from_.span)
        if name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{name}"'
            yield Warning("ReservedStageName", message, from_.span)
        if name in seen:
            message = f'Duplicate stage name "{name}", stage names should be unique'
            yield Warning("DuplicateStageName", message, from_.span)
        seen.add(name)


# -- forms ---------------------------------------------------------------------------------


def _once(stage: Stage) -> Iterator[Warning]:
    """The place is that of the one without an effect."""
    last: dict[type[Instruction], Instruction] = {}
    for instruction in stage.instructions:
        if not isinstance(instruction, _ONCE):
            continue
        before = last.get(type(instruction))
        if before is not None:
            yield Warning(
                "MultipleInstructionsDisallowed",
                f"Multiple {_written(instruction)} instructions should not be used in the same "
                "stage because only the last one will be used",
                before.span,
            )
        last[type(instruction)] = instruction


def _forms(stage: Stage, escape: str) -> Iterator[Warning]:
    for instruction in stage.instructions:
        written = _written(instruction)
        if instruction.keyword == "MAINTAINER":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield Warning("MaintainerDeprecated", message, instruction.span)
        elif isinstance(instruction, (Env, Label)) and not _has_equals(instruction, escape):
            message = (
                f'"{written} key=value" should be used instead of legacy '
                f'"{written} key value" format'
            )
            yield Warning("LegacyKeyValueFormat", message, instruction.span)


def _has_equals(instruction: Instruction, escape: str) -> bool:
    _, rest = keyword_of(instruction.text)
    return "=" in quoted_words(rest, escape)[0].text
