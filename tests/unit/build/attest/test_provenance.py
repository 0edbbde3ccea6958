"""What a statement about a build says, and what it keeps to itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from estiba.build.attest.provenance import (
    BuildFacts,
    Material,
    StepFacts,
    image_uri,
    provenance,
    without_secrets,
)
from estiba.images.attestations import SLSA
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform
from estiba.model.reference import parse_reference

HOST = Platform(architecture="amd64")
FACTS = BuildFacts(
    platform=HOST,
    started_ns=1_700_000_000 * 10**9,
    finished_ns=1_700_000_060 * 10**9,
    dockerfile="app/Dockerfile",
    dockerfile_text="FROM debian\nRUN make\n",
    context="https://ana:hunter2@example.org/app.git#main",
    contexts={"extra": "https://example.org/x?token=hunter2&v=1"},
    target="release",
    args={"VERSION": "1.2", "API_TOKEN": "hunter2", "MONKEY": "chimp"},
    labels={"org.example": "x"},
    secrets=("npmrc",),
    ssh=("default",),
    materials=(
        Material(image_uri(parse_reference("debian:bookworm"), HOST), "sha256:" + "a" * 64),
        Material("https://user:hunter2@example.org/app.git#main", "gitCommit:" + "b" * 40),
        Material("https://user:hunter2@example.org/app.git#main", "gitCommit:" + "b" * 40),
    ),
    steps=(StepFacts("RUN make", "release", 2, "k1", "sha256:" + "c" * 64, cached=True),),
    build="build-7",
)


def body(facts: BuildFacts, mode: str = "min") -> dict[str, Any]:
    made = provenance(facts, mode)
    assert made.type == SLSA
    return dict(json.loads(made.body))


def test_what_the_request_was() -> None:
    definition = body(FACTS)["buildDefinition"]
    assert definition["externalParameters"] == {
        "configSource": {"path": "app/Dockerfile", "uri": "https://example.org/app.git#main"},
        "request": {
            "frontend": "dockerfile",
            "args": {"VERSION": "1.2", "MONKEY": "chimp"},
            "hiddenArgs": ["API_TOKEN"],
            "labels": {"org.example": "x"},
            "target": "release",
            "platform": "linux/amd64",
            "secrets": [{"id": "npmrc"}],
            "ssh": [{"id": "default"}],
            "contexts": {"extra": "https://example.org/x?token=&v=1"},
        },
    }


def test_what_it_was_built_of_each_once() -> None:
    assert body(FACTS)["buildDefinition"]["resolvedDependencies"] == [
        {"uri": "https://example.org/app.git#main", "digest": {"gitCommit": "b" * 40}},
        {
            "uri": "pkg:docker/debian@bookworm?platform=linux%2Famd64",
            "digest": {"sha256": "a" * 64},
        },
    ]


def test_who_built_it_and_when() -> None:
    details = body(FACTS)["runDetails"]
    assert details["metadata"] == {
        "invocationId": "build-7",
        "startedOn": "2023-11-14T22:13:20Z",
        "finishedOn": "2023-11-14T22:14:20Z",
    }
    assert details["builder"]["id"] == "urn:estiba:builder"
    own = replace(FACTS, builder="https://ci.example.org/builder")
    assert body(own)["runDetails"]["builder"]["id"] == "https://ci.example.org/builder"


def test_only_the_long_form_has_the_dockerfile_and_the_steps() -> None:
    assert "make" not in provenance(FACTS, "min").body.decode()
    internal = body(FACTS, "max")["buildDefinition"]["internalParameters"]
    assert internal["dockerfile"] == FACTS.dockerfile_text
    assert internal["steps"] == [
        {
            "name": "RUN make",
            "stage": "release",
            "line": 2,
            "key": "k1",
            "layer": "sha256:" + "c" * 64,
            "cached": True,
        }
    ]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_no_secret_is_told(mode: str) -> None:
    assert b"hunter2" not in provenance(FACTS, mode).body


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_same_at_another_time_with_an_epoch(mode: str) -> None:
    first = replace(FACTS, source_date_epoch=0)
    second = replace(first, started_ns=5 * 10**18, finished_ns=6 * 10**18, build="build-8")
    other = {"MONKEY": "chimp", "API_TOKEN": "other", "VERSION": "1.2"}
    steps = tuple(replace(step, key="k9", cached=False) for step in FACTS.steps)
    assert provenance(first, mode) == provenance(replace(second, args=other, steps=steps), mode)
    assert body(first)["runDetails"]["metadata"]["startedOn"] == "1970-01-01T00:00:00Z"
    assert provenance(FACTS, mode) != provenance(replace(FACTS, build="build-8"), mode)


def test_another_mode() -> None:
    with pytest.raises(InvalidArgument, match="mode=min or mode=max"):
        provenance(FACTS, "full")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("local", "local"),
        ("git@example.org:team/app.git", "git@example.org:team/app.git"),
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("https://u:p@example.org:444/a", "https://example.org:444/a"),
        ("https://h/x?X-Amz-Signature=s&n=1", "https://h/x?X-Amz-Signature=&n=1"),
        ("https://[bad/x?token=1", "https://"),
        ("docker-image://debian:12", "docker-image://debian:12"),
    ],
)
def test_urls_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("debian", "pkg:docker/debian@latest?platform=linux%2Famd64"),
        (f"debian@sha256:{'0' * 64}", "pkg:docker/debian?platform=linux%2Famd64"),
        (
            "localhost:5000/team/app:1",
            "pkg:docker/localhost%3A5000/team/app@1?platform=linux%2Famd64",
        ),
    ],
)
def test_names_of_base_images(name: str, uri: str) -> None:
    assert image_uri(parse_reference(name), HOST) == uri


def test_no_password_of_a_proxy_or_an_address_is_told() -> None:
    args = {
        "HTTP_PROXY": "http://user:hunter2@proxy:3128/",
        "all_proxy": "socks5://user:hunter2@proxy",
        "REPOSITORY": "https://user:hunter2@host/path.git#main",
        "NO_SPACE": "left",
    }
    told = provenance(replace(FACTS, args=args)).body
    assert b"hunter2" not in told
    request = json.loads(told)["buildDefinition"]["externalParameters"]["request"]
    assert request["args"] == {"REPOSITORY": "https://host/path.git#main", "NO_SPACE": "left"}
    assert request["hiddenArgs"] == ["HTTP_PROXY", "all_proxy"]
