"""What a container is, once its image and the engine's defaults have filled the gaps. Pure."""

from __future__ import annotations

import msgspec

from estiba.containers.limits import default_swap
from estiba.model.container import Config, HealthConfig, HostConfig, LogConfig
from estiba.model.errors import InvalidArgument
from estiba.model.image import ImageProcessConfig
from estiba.runtime.mounts import DEFAULT_SHM_BYTES

DEFAULT_STOP_TIMEOUT_S = 10
DEFAULT_STOP_SIGNAL = "SIGTERM"


def merge_image(config: Config, image: ImageProcessConfig) -> Config:
    """`config` with everything it leaves open taken from the image, as Docker merges them.

    Raises InvalidArgument when neither says what to run.
    """
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        cmd = cmd or image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = []
    if not entrypoint and not cmd:
        raise InvalidArgument(
            "no command specified: the image names none, so give one after the image's name"
        )
    return msgspec.structs.replace(
        config,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        user=config.user or image.user,
        env=merge_env(config.env, image.env),
        exposed_ports={**image.exposed_ports, **config.exposed_ports},
        volumes={**image.volumes, **config.volumes},
        labels={**image.labels, **config.labels},
        working_dir=config.working_dir or image.working_dir,
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=merge_health(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell or None,
    )


def merge_env(wanted: list[str], inherited: list[str]) -> list[str]:
    """The container's variables first, then those of the image that it does not set.

    A bare `NAME` takes the place of the image's variable too; the program gets none of that name.
    """
    names = {entry.partition("=")[0] for entry in wanted}
    return wanted + [entry for entry in inherited if entry.partition("=")[0] not in names]


def merge_health(wanted: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """The container's health check; what it leaves at zero comes from the image."""
    if wanted is None or image is None:
        return wanted or image
    return HealthConfig(
        test=wanted.test or image.test,
        interval=wanted.interval or image.interval,
        timeout=wanted.timeout or image.timeout,
        retries=wanted.retries or image.retries,
        start_period=wanted.start_period or image.start_period,
        start_interval=wanted.start_interval or image.start_interval,
    )


def fill_host(
    host: HostConfig, *, runtime: str, log: LogConfig, cgroup_v2: bool = True
) -> HostConfig:
    """`host` with the engine's defaults, so that inspect shows what is in force.

    On cgroup v1 a privileged container sees the host's groups, as it always did.
    """
    log_config = host.log_config
    if log_config.type in ("", log.type):
        log_config = LogConfig(type=log.type, config={**log.config, **log_config.config})
    cgroups = "host" if host.privileged and not cgroup_v2 else "private"
    return msgspec.structs.replace(
        host,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or cgroups,
        shm_size=host.shm_size or DEFAULT_SHM_BYTES,
        runtime=host.runtime or runtime,
        log_config=log_config,
        memory_swap=default_swap(host),
    )
