"""Container records for tests."""

from __future__ import annotations

import hashlib
from typing import Any

from estiba.containers.record import ContainerRecord
from estiba.model.container import Config, HostConfig, RestartPolicy

IMAGE_ID = "sha256:" + "ee" * 32


def container_id(name: str) -> str:
    """The same id for the same name in every run."""
    return hashlib.sha256(name.encode()).hexdigest()


def make_record(name: str = "web", **fields: Any) -> ContainerRecord:
    """A created container; `fields` replace those of the record."""
    made: dict[str, Any] = {
        "id": container_id(name),
        "name": name,
        "created_ns": 1_700_000_000_000_000_000,
        "image_id": IMAGE_ID,
        "image_name": "busybox",
        "layers": ["sha256:" + "cc" * 32],
        "config": Config(cmd=["sleep", "60"], image="busybox"),
        "host_config": HostConfig(network_mode="none"),
        "runtime": "crun",
    }
    return ContainerRecord(**{**made, **fields})


def with_policy(policy: str, maximum: int = 0, **fields: Any) -> ContainerRecord:
    """A container with a restart policy."""
    host = HostConfig(
        network_mode="none",
        restart_policy=RestartPolicy(name=policy, maximum_retry_count=maximum),
    )
    return make_record(host_config=host, **fields)
