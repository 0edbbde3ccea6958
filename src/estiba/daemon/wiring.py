"""The composition root: the engine's parts behind the API's routes, and where it listens."""

from __future__ import annotations

import asyncio

from estiba.api.ports import Backends
from estiba.api.routes import build_router
from estiba.api.server import Listener, Server
from estiba.build.bases import Bases
from estiba.build.builder import Builder
from estiba.build.exchange import Elsewhere
from estiba.build.flights import Flights
from estiba.build.passing import Passing
from estiba.build.planning import Tools
from estiba.build.solver import Shared
from estiba.build.statements import Statements
from estiba.containers.creation import Defaults
from estiba.daemon.adapters.archives import ContainerArchives
from estiba.daemon.adapters.build_inputs import Inputs
from estiba.daemon.adapters.builds import Builds
from estiba.daemon.adapters.containers import ContainerCommands, ContainerQueries
from estiba.daemon.adapters.execs import ExecStreams
from estiba.daemon.adapters.images import ImageQueries
from estiba.daemon.adapters.networks import NetworkAdapter
from estiba.daemon.adapters.plugins import PluginAdapter
from estiba.daemon.adapters.policies import PolicyAdapter
from estiba.daemon.adapters.registries import Registries
from estiba.daemon.adapters.stats import StatsReader
from estiba.daemon.adapters.streams import ContainerStreams
from estiba.daemon.adapters.system import System
from estiba.daemon.adapters.system_views import EngineFacts, host_warnings
from estiba.daemon.adapters.transfers import ImageTransfers
from estiba.daemon.adapters.volume_backups import VolumeBackups
from estiba.daemon.adapters.volume_copies import VolumeCopies
from estiba.daemon.adapters.volumes import VolumeAdapter
from estiba.daemon.config import DaemonConfig
from estiba.daemon.core import Core, build_core, read_seccomp
from estiba.daemon.hostinfo import read_versions
from estiba.daemon.identity import engine_id
from estiba.daemon.lifecycle import Daemon
from estiba.http1.tls import tls_context
from estiba.model.errors import InvalidArgument
from estiba.plugins.registry import NETWORK, VOLUME
from estiba.storage.snapshots import DRIVER
from estiba.volumes.snapshots import Snapshots


def build(config: DaemonConfig) -> Daemon:
    """Makes a whole daemon; nothing runs yet.

    Raises InvalidArgument or Unavailable naming what is missing on the host.
    """
    core = build_core(config)
    server = Server(
        build_router(_backends(core)),
        allowed_hosts=frozenset(name.lower() for name in config.allowed_hosts),
        socket_group=config.socket_group,
        is_experimental=config.experimental,
    )
    return Daemon(core, server, _listeners(config))


def _backends(core: Core) -> Backends:
    config, engine, images = core.config, core.engine, core.images
    architecture = core.host.go_architecture
    image_queries = ImageQueries(images, engine)
    registries = Registries(
        images, config.registries, config.max_concurrent_downloads, config.max_concurrent_uploads
    )
    stats = StatsReader(
        core.hierarchies, core.specs, core.networks, core.host.cpus, core.host.memory_bytes
    )
    return Backends(
        queries=ContainerQueries(engine, core.execs, images, core.snapshots, core.paths, stats),
        commands=ContainerCommands(
            engine=engine,
            execs=core.execs,
            images=images,
            specs=core.specs,
            controls=core.controls,
            log_keeper=core.log_keeper,
            snapshots=core.snapshots,
            facts=core.facts,
            defaults=_defaults(config),
            architecture=architecture,
            networks=core.networks,
        ),
        streams=ContainerStreams(engine, core.paths),
        archives=ContainerArchives(
            engine, images, core.snapshots, core.sources, core.limits, architecture
        ),
        execs=ExecStreams(engine, core.execs),
        images=image_queries,
        transfers=ImageTransfers(images, config.data_root / "tmp", architecture),
        registries=registries,
        builds=_builds(core, registries, image_queries),
        system=_system(core, image_queries),
        policies=PolicyAdapter(core.policies, core.networks, core.engine),
        networks=NetworkAdapter(core.networks, engine),
        volumes=VolumeAdapter(core.volumes, engine),
        volume_copies=VolumeCopies(core.volumes, Snapshots(core.volumes), engine),
        volume_backups=VolumeBackups(
            core.volumes, engine, config.registries, core.limits, config.data_root / "tmp"
        ),
        plugins=PluginAdapter(core.managed),
        cgroup_v2=core.facts.cgroup_v2,
    )


def _builds(core: Core, registries: Registries, image_queries: ImageQueries) -> Builds:
    config, images = core.config, core.images
    slots = asyncio.Semaphore(max(4, 2 * core.host.cpus))
    tools = Tools(
        Shared(images, core.workspaces, Flights(), slots),
        core.build_executor,
        config.registries,
        Bases(images, registries.puller.pull),
        Passing(images, image_queries.users_of),
    )
    elsewhere = Elsewhere(
        images, core.snapshots, config.registries, lambda: registries.puller.fetches
    )
    return Builds(
        Builder(images, tools, Statements(images, core.workspaces)),
        core.build_cache,
        elsewhere,
        Inputs(images.host, config.registries),
        core.pruner,
        config.data_root / "tmp",
        core.builds,
    )


def _system(core: Core, image_queries: ImageQueries) -> System:
    default = core.config.default_runtime
    # The default one first: `version` lists them in this order.
    names = sorted(core.runtimes, key=lambda name: (name != default, name))
    runtimes = {name: core.runtimes[name].path for name in names}
    versions = read_versions(
        runtimes | {"conmon": core.monitor.path, "tini": core.config.init_path}
    )

    def facts_now() -> EngineFacts:
        return EngineFacts(
            id=engine_id(core.config.data_root),
            storage_driver=DRIVER,
            storage_status=[["Backing Filesystem", "overlay on the data root"]],
            images=len(core.images.list_all()),
            event_listeners=core.bus.subscriber_count,
            tasks=len(asyncio.all_tasks()),
            networks=["bridge", "host", "null", *core.plugins.names(NETWORK)],
            volume_drivers=["local", *core.plugins.names(VOLUME)],
            warnings=host_warnings(core.config, core.facts),
            security_options=_security_options(core.config),
            runtimes={name: str(path) for name, path in runtimes.items()},
            versions=versions,
        )

    return System(
        config=core.config,
        host=core.host,
        facts=core.facts,
        engine=core.engine,
        images=core.images,
        image_queries=image_queries,
        volumes=core.volumes,
        snapshots=core.snapshots,
        pruner=core.pruner,
        store=core.store,
        bus=core.bus,
        facts_now=facts_now,
    )


def _defaults(config: DaemonConfig) -> Defaults:
    return Defaults(
        runtime=config.default_runtime,
        log=config.log,
        init=config.init,
        ulimits=config.default_ulimits,
        no_new_privileges=config.no_new_privileges,
        shm_bytes=config.default_shm_bytes,
        ipc_mode=config.default_ipc_mode,
        cgroupns_mode=config.default_cgroupns_mode,
        data_root=str(config.data_root),
        seccomp=read_seccomp(config.seccomp_profile),
    )


def _listeners(config: DaemonConfig) -> list[Listener]:
    """Raises InvalidArgument for TCP that anybody could use, unless it is wanted."""
    listeners = []
    for url in config.hosts:
        tls = None
        if url.startswith("tcp://"):
            verified = config.tls is not None and config.tls.verify
            if not verified and not config.allow_insecure_tcp:
                raise InvalidArgument(
                    f"refusing to serve {url} without client certificates: whoever reaches it "
                    "is root on this host; use --tlsverify with --tlscacert, --tlscert and "
                    "--tlskey, or --allow-insecure-tcp if you mean it"
                )
            if config.tls is not None:
                ca = config.tls.ca if config.tls.verify else None
                tls = tls_context(config.tls.certificate, config.tls.key, ca)
        listeners.append(Listener(url, tls))
    return listeners


def _security_options(config: DaemonConfig) -> list[str]:
    options = ["name=seccomp,profile=builtin", "name=cgroupns"]
    if config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options
