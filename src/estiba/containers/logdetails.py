"""What `logs --details` puts before each line: labels and variables that the log options name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote_plus

from estiba.containers.record import ContainerRecord


def details_prefix(record: ContainerRecord) -> bytes:
    """`key=value,… ` in the form of a query string, as Docker has it; a blank without any."""
    options = record.host_config.log_config.config
    variables = dict(text.partition("=")[::2] for text in record.config.env)
    found = {
        **_chosen(record.config.labels, options, "labels"),
        **_chosen(variables, options, "env"),
    }
    if options.get("tag"):
        found["tag"] = options["tag"]
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
        return re.search(pattern, name) is not None
    except re.error:
        return False
