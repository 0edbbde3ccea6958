"""Every rule: what it finds, where, in which words, and what it lets pass."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from estiba.build.dockerfile.errors import DockerfileError
from estiba.build.dockerfile.lint import ADVICE, RULES, lint, refuse
from estiba.build.dockerfile.lint_stages import Base
from estiba.build.dockerfile.parser import parse

F = "FROM scratch\n"
LINK = "FROM alpine\nARG A=1\n"
# rule: (Dockerfile, "line:column message", …) …
FOUND: dict[str, list[tuple[str, ...]]] = {
    "StageNameCasing": [("FROM x AS Big", "1:1 Stage name 'Big' should be lowercase")],
    "FromAsCasing": [
        ("FROM x as a", "1:1 'as' and 'FROM' keywords' casing do not match"),
        ("from x AS a", "1:1 'AS' and 'from' keywords' casing do not match"),
    ],
    "NoEmptyContinuation": [(F + "EXPOSE \\\n\n80", "3:1 Empty continuation line")],
    "ConsistentInstructionCasing": [
        (
            F + "run x\nWorkdir /x",
            "2:1 Command 'run' should match the case of the command majority (uppercase)",
            "3:1 Command 'Workdir' should match the case of the command majority (uppercase)",
        ),
        (
            "from x\nrun y\nUSER z",
            "3:1 Command 'USER' should match the case of the command majority (lowercase)",
        ),
    ],
    "DuplicateStageName": [
        (
            "FROM x AS a\nFROM y AS A",
            '2:1 Duplicate stage name "a", stage names should be unique',
        )
    ],
    "ReservedStageName": [
        (
            "FROM x AS scratch\nFROM x AS context",
            '1:1 Stage name should not use the same name as reserved stage "scratch"',
            '2:1 Stage name should not use the same name as reserved stage "context"',
        )
    ],
    "JSONArgsRecommended": [
        (
            F + "CMD a\nENTRYPOINT b",
            "2:1 JSON arguments recommended for CMD to prevent unintended behavior related to OS "
            "signals",
            "3:1 JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related "
            "to OS signals",
        ),
        (
            F + "RUN [\"echo\", a]\nRUN --network=none ['a']\n",
            "2:1 JSON arguments expected: this begins as an array of strings and is none, so the "
            "shell gets it as it is written",
            "3:1 JSON arguments expected: this begins as an array of strings and is none, so the "
            "shell gets it as it is written",
        ),
        (
            F + 'CMD ["a]',
            "2:1 JSON arguments recommended for CMD to prevent unintended behavior related to OS "
            "signals",
        ),
    ],
    "MaintainerDeprecated": [
        (F + "MAINTAINER x", "2:1 Maintainer instruction is deprecated in favor of using label")
    ],
    "UndefinedArgInFrom": [
        (
            "ARG VERSION=1\nFROM x:${VERSIN:-1}",
            "2:1 FROM argument 'VERSIN' is not declared (did you mean VERSION?)",
        ),
        ("FROM --platform=$P x", "1:1 FROM argument 'P' is not declared"),
    ],
    "UndefinedVar": [
        (
            F + "ENV DIRECTORY=/x\nCOPY a $DIRECTRY",
            "3:1 Usage of undefined variable '$DIRECTRY' (did you mean $DIRECTORY?)",
        ),
        (
            "ARG GLOBAL=1\n" + F + "LABEL a=$GLOBAL b=$GLOBAL",
            "3:1 Usage of undefined variable '$GLOBAL'",
        ),
        (F + "ENV A=1 B=$A", "2:1 Usage of undefined variable '$A'"),
        (F + "COPY <<E /x\n$U\nE", "2:1 Usage of undefined variable '$U'"),
        (F + "RUN --mount=type=cache,target=$U x", "2:1 Usage of undefined variable '$U'"),
        (
            F + "WORKDIR /$U\nUSER $V",
            "2:1 Usage of undefined variable '$U'",
            "3:1 Usage of undefined variable '$V'",
        ),
        (F + "ARG A=$U", "2:1 Usage of undefined variable '$U'"),
    ],
    "MultipleInstructionsDisallowed": [
        (
            F + 'CMD ["a"]\nCMD ["b"]\nCMD ["c"]',
            "2:1 Multiple CMD instructions should not be used in the same stage because only the "
            "last one will be used",
            "3:1 Multiple CMD instructions should not be used in the same stage because only the "
            "last one will be used",
        ),
        (
            F + "HEALTHCHECK NONE\nHEALTHCHECK CMD x",
            "2:1 Multiple HEALTHCHECK instructions should not be used in the same stage because "
            "only the last one will be used",
        ),
    ],
    "LegacyKeyValueFormat": [
        (
            F + "ENV a b\nLABEL c d=e",
            '2:1 "ENV key=value" should be used instead of legacy "ENV key value" format',
            '3:1 "LABEL key=value" should be used instead of legacy "LABEL key value" format',
        )
    ],
    "RedundantTargetPlatform": [
        (
            "FROM --platform=$TARGETPLATFORM x",
            "1:1 Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is "
            "the default behavior",
        )
    ],
    "SecretsUsedInArgOrEnv": [
        (
            F + "ARG DB_PASSWORD\nENV api_key=x TOKEN=y",
            '2:1 Do not use ARG or ENV instructions for sensitive data (ARG "DB_PASSWORD")',
            '3:1 Do not use ARG or ENV instructions for sensitive data (ENV "TOKEN")',
            '3:1 Do not use ARG or ENV instructions for sensitive data (ENV "api_key")',
        )
    ],
    "InvalidDefaultArgInFrom": [
        (
            "ARG TAG\nFROM busybox:${TAG}",
            "2:1 Default value for ARG busybox:${TAG} results in empty or invalid base image name",
        )
    ],
    "FromPlatformFlagConstDisallowed": [
        (
            "FROM --platform=linux/amd64 x AS build",
            '1:1 FROM --platform flag should not use constant value "linux/amd64"',
        )
    ],
    "CopyIgnoredFile": [
        (
            F + "COPY ok ./tmp/x /\nADD tmp/../tmp/x /",
            '2:1 Attempting to Copy file "tmp/x" that is excluded by .dockerignore',
            '3:1 Attempting to Add file "tmp/x" that is excluded by .dockerignore',
        )
    ],
    "InvalidDefinitionDescription": [
        (
            "# check=experimental=all\n# bad\nARG a=1\n# worse\nFROM x AS b",
            "3:1 Comment for ARG should follow the format: `# a <description>`",
            "5:1 Comment for FROM should follow the format: `# b <description>`",
        ),
        (
            "# check=experimental=InvalidDefinitionDescription\nFROM x\n# bad\nARG a=1 b=2",
            "4:1 Comment for ARG should follow the format: `# <arg_key> <description>`",
        ),
    ],
    "ExposeProtoCasing": [
        (
            F + "EXPOSE 80/TcP",
            "2:1 Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
        )
    ],
    "ExposeInvalidFormat": [
        (
            F + "EXPOSE 127.0.0.1:80:80 5000:5000 80",
            "2:1 EXPOSE instruction should not define an IP address or host-port mapping, found "
            "'127.0.0.1:80:80'",
            "2:1 EXPOSE instruction should not define an IP address or host-port mapping, found "
            "'5000:5000'",
        )
    ],
    "WorkdirRelativePath": [
        (
            F + "WORKDIR a\nWORKDIR b",
            '2:1 Relative workdir "a" can have unexpected results if the base image changes',
        )
    ],
}
CLEAN: dict[str, list[str]] = {
    "StageNameCasing": ["FROM x AS big", "FROM X"],
    "FromAsCasing": ["FROM x AS a", "from x as a", "From x as a"],
    "NoEmptyContinuation": [F + "EXPOSE \\\n# port\n80"],
    "ConsistentInstructionCasing": ["from x\nrun y", "FROM x\nRUN y\nONBUILD run z"],
    "DuplicateStageName": ["FROM x AS a\nFROM a AS b"],
    "ReservedStageName": ["FROM scratch AS scratchy"],
    "JSONArgsRecommended": [
        F + 'CMD ["a"]\nENTRYPOINT []\nRUN a\nHEALTHCHECK CMD a',
        F + 'RUN ["a"]\nRUN [ "$A" = "b" ] || true\nRUN [[ a ]]\n',
        F + 'SHELL ["/bin/sh", "-c"]\nCMD a',
        'FROM x AS a\nSHELL ["/bin/sh", "-c"]\nFROM a\nCMD a',
    ],
    "MaintainerDeprecated": [F + "LABEL maintainer=x"],
    "UndefinedArgInFrom": [
        "ARG V\nFROM x:${V:-1}",
        "FROM --platform=$BUILDPLATFORM x:$TARGETARCH",
        "FROM x:\\$V",
    ],
    "UndefinedVar": [
        F + "ARG A\nARG B=$A\nENV C=$B\nLABEL d=$C",
        F + "ARG A\nCOPY $A /x",
        F + "RUN echo $X\nCMD $X\nENTRYPOINT $X\nEXPOSE $X\nHEALTHCHECK CMD $X",
        F + "ENV PATH=/x:$PATH",
        F + "COPY <<'E' /x\n$U\nE",
        "FROM unknown\nENV A=$OF_THE_BASE",
        "FROM scratch AS a\nENV X=1\nFROM a\nLABEL x=$X",
        F + "ONBUILD COPY $X /",
        F + "ARG A=1 B=$A",
        F + "LABEL x='$U' y=\\$U",
    ],
    "MultipleInstructionsDisallowed": ['FROM x AS a\nCMD ["a"]\nFROM a\nCMD ["b"]'],
    "LegacyKeyValueFormat": [F + "ENV a=b c=d\nLABEL a=b"],
    "RedundantTargetPlatform": [
        "FROM --platform=$BUILDPLATFORM x",
        "FROM --platform=${TARGETOS}/${TARGETARCH} x",
        "FROM --platform=$TARGETPLATFORM/v8 x",
    ],
    "SecretsUsedInArgOrEnv": [
        F + "ARG PUBLIC_KEY\nENV SECRET_FILE=/x TOKEN_VERSION=1 MONKEY=1 TOKENS=2",
        "ARG PASSWORD\n" + F,
    ],
    "InvalidDefaultArgInFrom": [
        "ARG TAG=1\nFROM busybox:${TAG}",
        "ARG TAG\nFROM busybox:${TAG:-1}",
        "ARG TAG\nFROM busybox${TAG:+:}${TAG}",
    ],
    "FromPlatformFlagConstDisallowed": [
        "FROM --platform=linux/amd64 x AS build-amd64",
        "FROM --platform=$BUILDPLATFORM x",
        "ARG P=linux/amd64\nFROM --platform=$P x",
        "FROM --platform=windows/x/y/z x",
    ],
    "CopyIgnoredFile": [
        F + "COPY . /\nCOPY --from=x tmp/x /\nADD https://x/tmp/x /\nCOPY <<tmp /x\ntmp",
    ],
    "InvalidDefinitionDescription": [
        "# bad\nARG a=1\nFROM x",
        "# check=experimental=all\n# a is a letter\nARG a=1\n# bad\n\nFROM x AS b\n# no\n#\nARG c",
        "# check=experimental=all\n# of no interest\nFROM x\n# b\nARG a=1 b=2",
    ],
    "ExposeProtoCasing": [F + "EXPOSE 80/tcp 53/udp"],
    "ExposeInvalidFormat": [F + "EXPOSE 80 8000-8010/tcp"],
    "WorkdirRelativePath": [
        F + "WORKDIR /a\nWORKDIR b",
        "FROM x AS a\nWORKDIR /a\nFROM a\nWORKDIR b",
        F + "ENV HOME=/x\nWORKDIR $HOME/y",
    ],
}


def _found(text: str, rule: str, **arguments: object) -> list[str]:
    dockerfile = parse(text.encode())
    warnings = lint(dockerfile, ignored=lambda path: path.startswith("tmp"), **arguments)  # type: ignore[arg-type]
    return [
        f"{w.span.start.line}:{w.span.start.column} {w.message}" for w in warnings if w.rule == rule
    ]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds(rule: str) -> None:
    for text, *expected in FOUND[rule]:
        assert _found(text, rule) == expected


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_lets_pass(rule: str) -> None:
    for text in CLEAN[rule]:
        assert _found(text, rule) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_skipped_by_the_directive_or_the_argument(rule: str) -> None:
    text = FOUND[rule][0][0]
    head, _, rest = text.partition("\n") if text.startswith("# check") else ("", "", text)
    skip = f"skip={rule}"
    with_directive = f"{head};{skip}\n{rest}" if head else f"# check={skip}\n{rest}"
    assert _found(with_directive, rule) == []
    for value in (skip, "skip=all", f"skip=Other , {rule};error=true"):
        assert _found(text, rule, build_args={"BUILDKIT_DOCKERFILE_CHECK": value}) == []


def test_there_are_21_rules_each_with_advice_in_one_line() -> None:
    assert len(RULES) == 21
    assert all(advice.endswith(".") and "\n" not in advice for advice in ADVICE.values())


def test_warnings_come_in_the_order_of_the_file() -> None:
    text = "FROM x as A\nMAINTAINER x\nCMD a\nCMD b"
    warnings = lint(parse(text.encode()))
    assert [w.span.start.line for w in warnings] == [1, 1, 2, 3, 3, 4]


def test_only_stages_that_are_built_are_looked_at() -> None:
    text = "FROM x AS a\nMAINTAINER x\nFROM y\nMAINTAINER y"
    warnings = lint(parse(text.encode()), only={1})
    assert [w.span.start.line for w in warnings] == [4]


@pytest.mark.parametrize(
    ("env", "expected"),
    [({"JAVA_HOME": "/j"}, []), ({}, ["2:1 Usage of undefined variable '$JAVA_HOME'"])],
)
def test_variables_of_a_known_base_are_defined(env: Mapping[str, str], expected: list[str]) -> None:
    text = "FROM x\nENV PATH=$JAVA_HOME/bin:$PATH"
    assert _found(text, "UndefinedVar", bases={0: Base(env)}) == expected


def test_a_base_with_a_shell_wants_no_json() -> None:
    text = "FROM x\nCMD a"
    assert _found(text, "JSONArgsRecommended", bases={0: Base({}, has_shell=True)}) == []
    assert len(_found(text, "JSONArgsRecommended", bases={0: Base({})})) == 1


def test_build_arguments_count() -> None:
    text = "ARG P=linux/amd64\nFROM --platform=$P x\nARG D\nWORKDIR $D"
    assert _found(text, "WorkdirRelativePath", build_args={"D": "/x"}) == []
    assert len(_found(text, "WorkdirRelativePath")) == 1


def test_warnings_are_errors_when_that_is_asked_for() -> None:
    dockerfile = parse(b"# check=error=true\nFROM x\nMAINTAINER x\nCMD x")
    with pytest.raises(DockerfileError, match=r"^Dockerfile:3:1: lint violation found for rules: "):
        refuse(dockerfile, lint(dockerfile), {})
    refuse(dockerfile, [], {})
    refuse(dockerfile, lint(dockerfile), {"BUILDKIT_DOCKERFILE_CHECK": "error=false"})
    plain = parse(b"FROM x\nMAINTAINER x")
    refuse(plain, lint(plain), {})
    with pytest.raises(DockerfileError, match="MaintainerDeprecated"):
        refuse(plain, lint(plain), {"BUILDKIT_DOCKERFILE_CHECK": "error=true"})


def test_what_cannot_be_expanded_is_left_to_the_build() -> None:
    text = "ARG A=${\nFROM x${A^}\nENV B='x\nCOPY $C\"x y\nARG D=${D:?no}\nEXPOSE '80"
    assert lint(parse(text.encode())) == []
