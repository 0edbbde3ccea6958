"""Dockerfile instructions applied to an image's config, for import and commit. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from estiba.model.container import HealthConfig
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageProcessConfig
from estiba.model.times import parse_duration

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SHELL = ["/bin/sh", "-c"]


def apply_changes(config: ImageProcessConfig, lines: Iterable[str]) -> ImageProcessConfig:
    """`config` after the instructions, as `docker commit --change` takes them.

    Raises InvalidArgument naming the instruction.
    """
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not word:
            continue
        change = _CHANGES.get(word.upper())
        if change is None:
            known = ", ".join(sorted(_CHANGES))
            raise InvalidArgument(f"{word[:32]} is not a valid change command: use {known}")
        if not rest:
            raise InvalidArgument(f"{word.upper()} requires at least one argument")
        config = msgspec.structs.replace(config, **change(config, rest))
    return config


def _command(config: ImageProcessConfig, text: str) -> list[str]:
    words = _json_list(text)
    return words if words is not None else [*(config.shell or _SHELL), text]


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _words(text: str) -> list[str]:
    listed = _json_list(text)
    if listed is not None:
        return listed
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"cannot read {text[:64]!r}: {error}") from error


def _pairs(text: str, what: str) -> dict[str, str]:
    words = _words(text)
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"{what}: expected NAME=VALUE, got {word[:64]!r}")
        pairs[name] = value
    return pairs


def _env(config: ImageProcessConfig, text: str) -> dict[str, Any]:
    """Values may name the variables that there were before this line."""
    before = dict(entry.partition("=")[::2] for entry in config.env)
    new = {name: _expanded(value, before) for name, value in _pairs(text, "ENV").items()}
    # One that is there already keeps its place.
    return {"env": [f"{name}={value}" for name, value in {**before, **new}.items()]}


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)


def _expose(config: ImageProcessConfig, text: str) -> dict[str, Any]:
    ports = {}
    for word in _words(text):
        number, _, protocol = word.partition("/")
        if not number.replace("-", "", 1).isdecimal():
            raise InvalidArgument(f"EXPOSE: invalid port {word[:32]!r}")
        ports[f"{number}/{(protocol or 'tcp').lower()}"] = dict[str, object]()
    return {"exposed_ports": {**config.exposed_ports, **ports}}


def _healthcheck(config: ImageProcessConfig, text: str) -> dict[str, Any]:
    options: dict[str, int] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option[2:].partition("=")
        field = name.replace("-", "_")
        if field not in ("interval", "timeout", "start_period", "start_interval", "retries"):
            raise InvalidArgument(f"HEALTHCHECK: unknown flag {option[:32]}")
        options[field] = _healthcheck_option(field, value)
        text = text.strip()
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE":
        return {"healthcheck": HealthConfig(test=["NONE"])}
    if kind.upper() != "CMD" or not rest.strip():
        raise InvalidArgument("HEALTHCHECK: expected CMD with a command, or NONE")
    words = _json_list(rest.strip())
    test = ["CMD", *words] if words is not None else ["CMD-SHELL", rest.strip()]
    return {"healthcheck": HealthConfig(test=test, **options)}


def _healthcheck_option(field: str, value: str) -> int:
    if field != "retries":
        return parse_duration(value)
    if not value.isdecimal() or len(value) > 9:
        raise InvalidArgument(f"HEALTHCHECK: invalid retries {value[:32]!r}")
    return int(value)


_Change = Callable[[ImageProcessConfig, str], dict[str, Any]]
_CHANGES: dict[str, _Change] = {
    "CMD": lambda config, text: {"cmd": _command(config, text)},
    "ENTRYPOINT": lambda config, text: {"entrypoint": _command(config, text)},
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda config, text: {"labels": {**config.labels, **_pairs(text, "LABEL")}},
    "ONBUILD": lambda config, text: {"on_build": [*config.on_build, text]},
    "SHELL": lambda config, text: {"shell": _words(text)},
    "STOPSIGNAL": lambda config, text: {"stop_signal": text},
    "USER": lambda config, text: {"user": text},
    "VOLUME": lambda config, text: {
        "volumes": {**config.volumes, **{path: dict[str, object]() for path in _words(text)}}
    },
    "WORKDIR": lambda config, text: {"working_dir": text},
}
