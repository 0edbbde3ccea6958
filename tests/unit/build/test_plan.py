"""From Dockerfiles to steps: stages that are needed, configs, ops, history."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from estiba.build.dockerfile.parser import parse
from estiba.build.ops import (
    ContextInput,
    CopyOp,
    DirectoryOp,
    GitInput,
    ImageInput,
    InlineInput,
    Input,
    Plan,
    RunOp,
    StageInput,
    UrlInput,
)
from estiba.build.plan import MissingBases, PlanRequest, decide_plan, unused_args
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageConfig, ImageProcessConfig, Platform

HOST = Platform(architecture="amd64")
BASE = ImageConfig(config=ImageProcessConfig(env=["PATH=/bin", "A=base"], cmd=["sh"]))


def planned(
    text: str,
    *,
    target: str = "",
    args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    contexts: Mapping[str, Input] | None = None,
    base: ImageConfig = BASE,
    platform: Platform = HOST,
) -> Plan:
    """With every image known, each as `base`."""
    bases: dict[ImageInput, ImageConfig] = {}
    while True:
        request = PlanRequest(
            dockerfile=parse(text.encode()),
            target=target,
            build_args=args or {},
            labels=labels or {},
            platform=platform,
            host=HOST,
            contexts=contexts or {},
            bases=bases,
        )
        try:
            return decide_plan(request)
        except MissingBases as missing:
            bases |= dict.fromkeys(missing.inputs, base)


def last(text: str, **options: object) -> tuple[list[str], ImageProcessConfig]:
    """History and config of the target."""
    plan = planned(text, **options)  # type: ignore[arg-type]
    stage = plan.stage(plan.target)
    return [step.created_by for step in stage.steps], stage.config.config


def op_of(text: str, **options: object) -> object:
    plan = planned(text, **options)  # type: ignore[arg-type]
    return plan.stage(plan.target).steps[-1].op


# -- stages --------------------------------------------------------------------------------


def test_only_what_the_target_needs_is_planned() -> None:
    plan = planned(
        "FROM x AS a\nFROM y AS b\nFROM a AS c\nCOPY --from=b /f /f\nFROM z AS d\nRUN false\n",
        target="c",
    )
    assert [stage.name for stage in plan.stages] == ["a", "b", "c"]


def test_bases_of_all_needed_stages_are_asked_for_at_once() -> None:
    request = PlanRequest(
        dockerfile=parse(b"FROM x AS a\nFROM y AS b\nFROM z\nCOPY --from=a / /\n"
                         b"RUN --mount=from=b,target=/b true\n"),
        platform=HOST,
        host=HOST,
    )  # fmt: skip
    with pytest.raises(MissingBases) as caught:
        decide_plan(request)
    assert sorted(one.name for one in caught.value.inputs) == ["x", "y", "z"]


def test_a_stage_by_number_or_name_or_an_image() -> None:
    text = "FROM x\nFROM y AS two\nFROM z\nCOPY --from=0 a b\nCOPY --from=TWO a b\n"
    plan = planned(text + "COPY --from=elsewhere:1 a b\n")
    groups = [step.op.groups[0][0] for step in plan.stage(2).steps if isinstance(step.op, CopyOp)]
    assert groups == [StageInput(0), StageInput(1), ImageInput("elsewhere:1", HOST)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM x AS a\nCOPY --from=a f f\n", "2:1: stage 'a' copies from itself"),
        ("FROM x AS a\nCOPY --from=b f f\nFROM x AS b\nCOPY --from=a f f\n", "comes below"),
        ("FROM x\nCOPY --from=5 f f\n", "no stage of that number"),
        ("FROM $NOTHING\n", "should not be blank"),
        ("FROM --platform=windows x\n", "not supported"),
    ],
)
def test_stages_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        planned(text, target="a" if " AS a" in text else "")


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match=r"target stage 'buidl' .*did you mean build"):
        planned("FROM x AS build\nFROM build\n", target="buidl")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"TOP": "1", "A": "2", "T": "3"}, ""),
        ({"HTTP_PROXY": "1", "no_proxy": "1", "SOURCE_DATE_EPOCH": "1", "TARGETARCH": "x"}, ""),
        ({"BUILDKIT_INLINE_CACHE": "1"}, ""),
        ({"Z": "1", "Y": "", "A": "2"}, "One or more build-args [Y Z] were not consumed"),
        (
            {"VERSIO": "1"},
            "One or more build-args [VERSIO] were not consumed (did you mean VERSION?)",
        ),
    ],
)
def test_arguments_that_nothing_declares(given: dict[str, str], said: str) -> None:
    """A trigger of the base image declares T; stages that are not built count too."""
    text = "ARG TOP\nFROM x AS a\nARG VERSION=1\nFROM y\nARG A=$TOP\n"
    base = ImageConfig(config=ImageProcessConfig(on_build=["ARG T"]))
    plan = planned(text, args=given, base=base)
    assert unused_args(parse(text.encode()), plan, given) == said


def test_a_stage_on_a_stage_takes_its_config() -> None:
    _, config = last("FROM x AS a\nENV B=1\nUSER me\nFROM a\nENV C=$B\n")
    assert config.env == ["PATH=/bin", "A=base", "B=1", "C=1"]
    assert config.user == "me"


def test_named_contexts_take_the_place_of_stages_and_images() -> None:
    named = {"base": ImageInput("other:2", HOST), "src": ContextInput("src")}
    plan = planned("FROM base\nCOPY --from=src a b\n", contexts=named)
    assert plan.stage(0).base == ImageInput("other:2", HOST)
    assert plan.stage(0).steps[0].op.groups[0][0] == ContextInput("src")  # type: ignore[union-attr]


def test_a_context_as_a_base_is_copied_onto_nothing() -> None:
    plan = planned("FROM files\nRUN true\n", contexts={"files": ContextInput("files")})
    stage = plan.stage(0)
    assert stage.base is None
    op = stage.steps[0].op
    assert isinstance(op, CopyOp)
    assert (op.groups, op.destination) == (((ContextInput("files"), (".",)),), "/")
    assert stage.steps[0].created_by == "FROM files"


# -- arguments and variables ---------------------------------------------------------------


def test_global_arguments_reach_from_and_are_asked_for_again_in_a_stage() -> None:
    text = "ARG V=1\nFROM x:$V\nARG V\nENV A=$V\nARG W=${V}2\nENV B=$W C=$NOT\n"
    assert planned(text).stage(0).base == ImageInput("x:1", HOST)
    _, config = last(text, args={"V": "7"})
    assert config.env == ["PATH=/bin", "A=7", "B=72", "C="]


def test_of_an_argument_and_a_variable_the_later_one_counts() -> None:
    _, config = last("FROM x\nARG A=arg\nENV B=$A\n", args={"A": "given"})
    assert "B=given" in config.env
    _, config = last("FROM x\nARG A=arg\nENV A=env\nENV B=$A\n", args={"A": "given"})
    assert "B=env" in config.env
    op = op_of("FROM x\nARG A=arg\nRUN echo $A\n")
    assert isinstance(op, RunOp)
    assert (op.env, op.args) == (("PATH=/bin",), (("A", "arg"),))


def test_a_stage_inherits_the_arguments_of_the_stage_below() -> None:
    _, config = last("FROM x AS a\nARG OWN=1\nFROM a\nENV B=$OWN\n")
    assert "B=1" in config.env


def test_platform_arguments() -> None:
    text = "FROM --platform=$BUILDPLATFORM x\n"
    plan = planned(text, platform=Platform(architecture="arm64"))
    assert plan.stage(0).base == ImageInput("x", HOST)
    _, config = last(
        "FROM --platform=$BUILDPLATFORM x\nARG TARGETARCH\nENV A=$TARGETARCH\n",
        platform=Platform(architecture="arm64"),
    )
    assert "A=arm64" in config.env
    _, config = last("FROM x\nARG TARGETARCH\nENV A=$TARGETARCH\n",
                     platform=Platform(architecture="arm64"))  # fmt: skip
    assert "A=arm64" in config.env


def test_only_the_arguments_that_a_run_uses_count() -> None:
    op = op_of("FROM x\nARG USED=1\nARG OTHER=2\nRUN echo $USED > /f\n")
    assert isinstance(op, RunOp)
    assert op.args == (("USED", "1"),)
    assert op.hidden_env == ("OTHER=2",)


def test_proxies_never_count_and_are_not_in_the_history() -> None:
    history, _ = last("FROM x\nARG HTTP_PROXY\nRUN make\n", args={"HTTP_PROXY": "http://u:p@h"})
    assert history == ["ARG HTTP_PROXY", "RUN /bin/sh -c make # buildkit"]
    op = op_of("FROM x\nRUN make\n", args={"HTTP_PROXY": "http://u:p@h"})
    assert isinstance(op, RunOp)
    assert op.args == ()
    assert sorted(op.hidden_env) == ["HTTP_PROXY=http://u:p@h", "http_proxy=http://u:p@h"]
    both = {"HTTP_PROXY": "one", "http_proxy": "two"}
    op = op_of("FROM x\nENV http_proxy=own\nRUN make\n", args=both)
    assert isinstance(op, RunOp)
    assert op.hidden_env == ("HTTP_PROXY=one",)


@pytest.mark.parametrize(
    ("text", "target", "value"),
    [
        ("FROM x AS Foo\nARG TARGETSTAGE\nENV A=$TARGETSTAGE\n", "", "foo"),
        ("FROM x\nARG TARGETSTAGE\nENV A=$TARGETSTAGE\n", "", "default"),
        ("FROM x AS foo\nARG TARGETSTAGE\nENV A=$TARGETSTAGE\nFROM x\n", "FOO", "FOO"),
    ],
)
def test_the_target_is_an_argument_too(text: str, target: str, value: str) -> None:
    assert f"A={value}" in planned(text, target=target).stages[-1].config.config.env


# -- instructions --------------------------------------------------------------------------


def test_history_is_in_the_words_that_others_read() -> None:
    history, _ = last(
        "FROM x\n"
        "ARG V=1\nRUN make $V\nRUN [\"a\", \"b c\"]\nENV A=1 B=two\nLABEL k=\"a b\"\n"
        "COPY --chown=1:2 a b /d/\nADD x y\nWORKDIR /w\nWORKDIR sub\nUSER u:g\nEXPOSE 80 53/udp\n"
        "VOLUME /v /w\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/bash\", \"-c\"]\nCMD echo hi\n"
        "ENTRYPOINT [\"a\"]\nHEALTHCHECK --interval=90s CMD true\nONBUILD RUN x\nMAINTAINER me\n"
    )  # fmt: skip
    assert history == [
        "ARG V=1",
        "RUN |1 V=1 /bin/sh -c make $V # buildkit",
        "RUN |1 V=1 a b c # buildkit",
        "ENV A=1 B=two",
        "LABEL k=a b",
        "COPY --chown=1:2 a b /d/ # buildkit",
        "ADD x y # buildkit",
        "WORKDIR /w",
        "WORKDIR /w/sub",
        "USER u:g",
        "EXPOSE [53/udp 80/tcp]",
        "VOLUME [/v /w]",
        "STOPSIGNAL SIGINT",
        "SHELL [/bin/bash -c]",
        'CMD ["/bin/bash" "-c" "echo hi"]',
        'ENTRYPOINT ["a"]',
        'HEALTHCHECK &{["CMD-SHELL" "true"] "1m30s" "0s" "0s" "0s" \'\\x00\'}',
        "",
        "MAINTAINER me",
    ]


def test_names_of_variables_are_expanded_too() -> None:
    history, config = last('FROM x\nENV N=a\nENV $N=1 "b c"=2\n')
    assert history[1:] == ["ENV a=1 b c=2"]
    assert config.env[-3:] == ["N=a", "a=1", "b c=2"]
    with pytest.raises(InvalidArgument, match="empty once expanded"):
        last("FROM x\nENV $NOPE=1\n")


def test_a_working_directory_of_nothing_changes_nothing() -> None:
    history, config = last("FROM x\nWORKDIR /a\nWORKDIR $NOPE\n")
    assert history[-1] == "WORKDIR /a" and config.working_dir == "/a"


def test_scratch_is_an_empty_source() -> None:
    op = op_of("FROM x\nCOPY --from=scratch / /empty/\n")
    assert isinstance(op, CopyOp)
    assert op.groups == ((InlineInput(()), ("/",)),)


def test_an_entrypoint_drops_the_base_images_arguments() -> None:
    assert last('FROM x\nENTRYPOINT ["a"]\n')[1].cmd is None
    assert last('FROM x\nCMD ["b"]\nENTRYPOINT ["a"]\n')[1].cmd == ["b"]


def test_onbuild_of_the_base_runs_first_and_only_once() -> None:
    base = ImageConfig(config=ImageProcessConfig(env=["PATH=/p"], on_build=["ENV A=1", "RUN x $A"]))
    history, config = last("FROM x\nENV B=$A\n", base=base)
    assert history == ["ENV A=1", "RUN /bin/sh -c x $A # buildkit", "ENV B=1"]
    assert config.on_build == []


def test_labels_of_the_client_go_to_the_target() -> None:
    plan = planned("FROM x AS a\nFROM a\nLABEL k=file\n", labels={"k": "given"})
    assert plan.stage(0).config.config.labels == {}
    assert plan.stage(1).config.config.labels == {"k": "given"}


def test_scratch_has_a_path_and_a_working_directory() -> None:
    plan = planned("FROM scratch\nCOPY a /\n")
    stage = plan.stage(0)
    assert stage.base is None
    assert stage.config.config.working_dir == "/"
    assert stage.config.config.env[0].startswith("PATH=/usr/local/sbin")


@pytest.mark.parametrize(
    ("line", "destination"),
    [
        ("COPY a b", "/w/b"),
        ("COPY a b/", "/w/b/"),
        ("COPY a .", "/w/"),
        ("COPY a /", "/"),
        ("COPY a /x/../y", "/y"),
        ("COPY a ../../../z", "/z"),
    ],
)
def test_destinations(line: str, destination: str) -> None:
    op = op_of(f"FROM x\nWORKDIR /w\n{line}\n")
    assert isinstance(op, CopyOp)
    assert op.destination == destination


def test_sources_by_where_they_are_found() -> None:
    op = op_of("FROM x\nARG H=h\nADD a http://$H/f.tar https://g/r.git#main <<E /d/\nis $H\nE\n")
    assert isinstance(op, CopyOp)
    assert op.groups == (
        (ContextInput(), ("a",)),
        (UrlInput("http://h/f.tar"), ("http://h/f.tar",)),
        (GitInput("https://g/r.git#main"), ("https://g/r.git#main",)),
        (InlineInput((("E", "is h\n"),)), ("E",)),
    )
    assert op.unpack is None


@pytest.mark.parametrize(
    ("delimiter", "content"),
    [("E", "it's 'h' \"h\" $H \\ x\n"), ("'E'", "it's '$H' \"$H\" \\$H \\\\ \\x\n")],
)
def test_quotes_in_a_heredoc_are_text(delimiter: str, content: str) -> None:
    text = "it's '$H' \"$H\" \\$H \\\\ \\x"
    op = op_of(f"# escape=`\nFROM x\nARG H=h\nCOPY <<{delimiter} /f\n{text}\nE\n")
    assert isinstance(op, CopyOp)
    assert op.groups == ((InlineInput((("E", content),)), ("E",)),)


def test_a_volume_may_have_spaces_in_its_path() -> None:
    _, config = last('FROM x\nARG V="a b"\nVOLUME ["/c d", "/$V"]\n')
    assert set(config.volumes) == {"/c d", "/a b"}


def test_a_heredoc_that_is_a_program_is_mounted() -> None:
    op = op_of("FROM x\nRUN <<E\n#!/usr/bin/python3\nprint($A)\nE\n")
    assert isinstance(op, RunOp)
    assert op.argv == ("/bin/sh", "-c", "/dev/pipes/E")
    assert op.mounts[0].input == InlineInput((("E", "#!/usr/bin/python3\nprint($A)\n"),), 0o755)


def test_a_heredoc_for_the_shell() -> None:
    op = op_of("FROM x\nRUN <<E\necho a\necho b\nE\n")
    assert isinstance(op, RunOp)
    assert op.argv == ("/bin/sh", "-c", "echo a\necho b\n")
    op = op_of("FROM x\nRUN cat <<E > /f\nhi\nE\n")
    assert isinstance(op, RunOp)
    assert op.argv == ("/bin/sh", "-c", "cat <<E > /f\nhi\nE")


def test_mounts() -> None:
    op = op_of(
        "FROM x AS s\nFROM x\nWORKDIR /w\nARG N=n\n"
        "RUN --mount=type=cache,target=/root/.cache,id=$N,sharing=locked,mode=0700"
        " --mount=type=bind,from=s,source=/a,target=b,rw --mount=type=secret,id=k"
        " --mount=type=secret,id=t,env=TOKEN,required --mount=type=ssh"
        " --mount=type=tmpfs,target=/t,size=1m --mount=target=. true\n"
    )
    assert isinstance(op, RunOp)
    cache, bind, secret, token, ssh, tmpfs, context = op.mounts
    assert (cache.id, cache.sharing, cache.mode) == ("n", "locked", 0o700)
    assert (bind.input, bind.source, bind.target, bind.readonly) == (
        StageInput(0), "/a", "/w/b", False,
    )  # fmt: skip
    assert (secret.target, secret.required) == ("/run/secrets/k", False)
    assert (token.target, token.env, token.required) == ("", "TOKEN", True)
    assert ssh.target == "/run/buildkit/ssh_agent.0"
    assert tmpfs.size_bytes == 1 << 20
    assert (context.input, context.target, context.readonly) == (ContextInput(), "/w", True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RUN --mount=type=bind true", "needs target"),
        ("RUN --mount=type=cache,target=/ true", "not the root"),
        (
            "ARG S=much\nRUN --mount=type=tmpfs,target=/t,size=$S true",
            "invalid value 'much' for size",
        ),
        ("EXPOSE 99999", "ports are 0 to 65535"),
        ("EXPOSE 9-3", "ends below"),
        ("STOPSIGNAL SIGNONE", "invalid signal"),
        # More digits than Python reads as a number.
        (f"STOPSIGNAL {'9' * 5000}", "invalid signal"),
        (f"COPY --from={'9' * 5000} /a /b", "no stage of that number"),
        ('ENV A="${B:?is missing}"', "is missing"),
    ],
)
def test_what_cannot_be(line: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        planned(f"FROM x\n{line}\n")


def test_a_directory_step_only_where_one_is_made() -> None:
    assert op_of("FROM x\nUSER me\nWORKDIR /a/b\n") == DirectoryOp(path="/a/b", user="me")
    assert op_of("FROM x\nWORKDIR /\n") is None


def test_values_that_grow_are_bounded() -> None:
    doubled = "".join(f"ENV A{n + 1}=$A{n}$A{n}\n" for n in range(19))
    many = "".join(f"ENV B{n}=$A19\n" for n in range(40))
    with pytest.raises(InvalidArgument, match="values come to more than 16 MiB"):
        planned(f"FROM x\nENV A0=x\n{doubled}{many}")
