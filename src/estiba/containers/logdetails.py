"""What log options add to a container's lines: its tag, and the labels and variables they name.

`logs --details` puts them before each line, the log drivers beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote_plus

from estiba.containers.record import ContainerRecord
from estiba.model.digest import hex_of
from estiba.model.errors import InvalidArgument
from estiba.model.patterns import check_pattern, matches

_MARKUP = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_TAG_FIELDS = (".ID", ".FullID", ".Name", ".ImageID", ".ImageFullID", ".ImageName", ".Command",
               ".DaemonName")  # fmt: skip


def check_details(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument for a tag or a pattern among log options that makes no sense."""
    for field in _MARKUP.findall(options.get("tag", "")):
        if field not in _TAG_FIELDS:
            known = " ".join(f"{{{{{name}}}}}" for name in _TAG_FIELDS)
            raise InvalidArgument(f"log opt tag: unknown {{{{{field[:64]}}}}}: use {known}")
    for name in ("labels-regex", "env-regex"):
        check_pattern(options.get(name, ""))
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"log opt {name}: {error}") from error


def log_tag(record: ContainerRecord) -> str:
    """The log option `tag` with its fields filled in; without it the short id."""
    fields = {
        ".ID": record.id[:12],
        ".FullID": record.id,
        ".Name": record.name,
        ".ImageID": hex_of(record.image_id)[:12],
        ".ImageFullID": record.image_id,
        ".ImageName": record.image_name,
        ".Command": " ".join(record.argv),
        ".DaemonName": "estiba",
    }
    template = record.host_config.log_config.config.get("tag") or "{{.ID}}"
    return _MARKUP.sub(lambda found: fields.get(found[1], found[0]), template)


def extra_attributes(record: ContainerRecord) -> dict[str, str]:
    """The labels and variables that the log options name."""
    options = record.host_config.log_config.config
    variables = dict(text.partition("=")[::2] for text in record.config.env if "=" in text)
    return {
        **_chosen(record.config.labels, options, "labels"),
        **_chosen(variables, options, "env"),
    }


def details_prefix(record: ContainerRecord) -> bytes:
    """`key=value,… ` in the form of a query string, as Docker has it; a blank without any."""
    found = extra_attributes(record)
    if record.host_config.log_config.config.get("tag"):
        found["tag"] = log_tag(record)
    pairs = [f"{quote_plus(key)}={quote_plus(found[key])}" for key in sorted(found)]
    return ",".join(pairs).encode() + b" "


def _chosen(values: Mapping[str, str], options: Mapping[str, str], option: str) -> dict[str, str]:
    names = options.get(option, "").split(",")
    pattern = options.get(f"{option}-regex")
    return {
        name: value
        for name, value in values.items()
        if name in names or (pattern and _matches(pattern, name))
    }


def _matches(pattern: str, name: str) -> bool:
    try:
        return matches(pattern, name)
    except InvalidArgument:
        return False
