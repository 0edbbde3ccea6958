"""The composition root: every part of the engine made by hand, in order, top to bottom.

Start: open the store → images and volumes → networks → finish or undo open intents →
re-adopt live containers → sweep → restart policies → listen. SIGTERM is the same path as a
crash: containers run on, and the next start finds them.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from estiba.api.ports import Backends
from estiba.api.routes import build_router
from estiba.api.server import Listener, Server, tls_context
from estiba.containers.controls import KernelControls
from estiba.containers.creation import Defaults
from estiba.containers.engine import Engine
from estiba.containers.execs import Execs
from estiba.containers.hostfiles import HostFiles
from estiba.containers.logkeeper import LogKeeper
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.sources import Sources
from estiba.containers.specs import SpecMaker
from estiba.containers.steps import KernelSteps
from estiba.containers.world import World
from estiba.daemon.adapters.containers import ContainerCommands, ContainerQueries
from estiba.daemon.adapters.execs import ExecStreams
from estiba.daemon.adapters.images import ImageQueries, ImageTransfers
from estiba.daemon.adapters.networks import NetworkAdapter, VolumeAdapter
from estiba.daemon.adapters.stats import StatsReader
from estiba.daemon.adapters.streams import ContainerStreams
from estiba.daemon.adapters.system import System
from estiba.daemon.adapters.system_views import EngineFacts, host_warnings
from estiba.daemon.config import DaemonConfig
from estiba.daemon.hostinfo import read_facts, read_host, read_versions
from estiba.daemon.identity import engine_id
from estiba.images.images import Images
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.mounts import mounted_under, unmount
from estiba.model.errors import Conflict, InvalidArgument, NotFound, Unavailable
from estiba.network.ipam import DEFAULT_POOLS, AddressPool
from estiba.network.networks import Networks
from estiba.network.plan import NetworkConfig
from estiba.runtime.conmon import Conmon
from estiba.runtime.crun import CrunState
from estiba.runtime.oci import OciRuntime
from estiba.security.profiles import profile as profiles
from estiba.storage.layers import LayerStore
from estiba.storage.snapshots import DRIVER, SnapshotStore
from estiba.storage.unpack import Limits
from estiba.store import EventBus, Store
from estiba.volumes.volumes import Volumes

_log = logging.getLogger(__name__)

_KNOWN_RUNTIMES = ("crun", "runc")


@dataclass(slots=True)
class Daemon:
    """A whole engine; `start` it, wait, `close` it."""

    config: DaemonConfig
    store: Store
    engine: Engine
    networks: Networks
    images: Images
    volumes: Volumes
    snapshots: SnapshotStore
    log_keeper: LogKeeper
    server: Server
    listeners: list[Listener]

    async def start(self) -> None:
        """Makes the state true, then serves."""
        await run_blocking(self._open)
        up = await self.engine.recover()
        endpoints = [net.endpoint for actor in up for net in actor.record.networks if net.endpoint]
        await run_blocking(self.networks.restore, endpoints)
        await run_blocking(self._sweep, {actor.record.id for actor in up})
        self.engine.world.tasks.spawn(self.log_keeper.run(), name="log keeper")
        await self.engine.start_owed()
        for listener in self.listeners:
            await self.server.listen(listener)

    def _open(self) -> None:
        self.images.layers.open()
        self.snapshots.open()
        self.images.open()
        self.volumes.start()
        self.networks.start()

    def _sweep(self, live: set[str]) -> None:
        """Removes what no record justifies, by names that only this engine gives."""
        known = set(self.engine.actors)
        paths = self.engine.world.paths
        for key in self.snapshots.list_keys():
            if key not in known:
                self.snapshots.remove(key)
        for state in _children(paths.data_root / "containers"):
            if state.name not in known:
                shutil.rmtree(state, ignore_errors=True)
        for run in _children(paths.exec_root / "containers"):
            if run.name not in live:
                for point in mounted_under(run):
                    unmount(point)
                shutil.rmtree(run, ignore_errors=True)
        self.networks.sweep(live)

    async def close(self) -> None:
        """Stops serving; containers run on."""
        await self.server.close()
        await self.engine.close()
        await run_blocking(self.networks.stop)
        await run_blocking(self.store.close)


def build(config: DaemonConfig) -> Daemon:
    """Makes all parts; touches only the data and exec roots.

    Raises InvalidArgument or Unavailable naming what is missing on the host.
    """
    paths = Paths(config.data_root, config.exec_root)
    _make_roots(paths)
    host = read_host()
    hierarchies = Hierarchies.detect()
    runtimes = _runtimes(config, hierarchies)
    facts = read_facts(host, sorted(runtimes))
    bus = EventBus(asyncio.get_running_loop())
    store = Store.open(config.data_root / "estiba.db", bus)

    limits = Limits()
    layers = LayerStore(config.data_root / "images", limits)
    snapshots = SnapshotStore(config.data_root / "snapshots", layers)
    images = Images(layers, store, snapshots.used_layers)
    volumes = Volumes(config.data_root / "volumes", store)
    networks = Networks(_network_config(config), store)

    monitor = Conmon(_program("conmon"), config.exec_root / "exits")
    host_files = HostFiles(paths, config.dns, config.dns_options, config.dns_search)

    def find(ref: str) -> ContainerRecord:
        return engine.find(ref).record

    async def remove_volumes(record: ContainerRecord) -> None:
        for name in record.anonymous_volumes:
            try:
                users = [user for user in volume_adapter.users(name) if user != record.id]
                await run_blocking(volumes.remove, name, users=users)
            except (Conflict, NotFound):
                continue

    sources = Sources(paths, volumes, host_files, find)
    specs = SpecMaker(
        host=profiles.read_host(),
        sources=sources,
        find=find,
        cgroup_parent=config.cgroup_parent,
        init_path=config.init_path,
        can_limit_swap=facts.swap_limit,
    )
    controls = KernelControls(paths, monitor, runtimes, specs)
    steps = KernelSteps(
        paths=paths,
        snapshots=snapshots,
        networks=networks,
        sources=sources,
        monitor=monitor,
        runtimes=runtimes,
        host_files=host_files,
        build_spec=specs.container,
    )

    world = World(store, paths, steps, controls, controls.probe, remove_volumes)
    engine = Engine(world)
    execs = Execs(controls, world.tasks)
    log_keeper = LogKeeper(
        paths, controls, lambda: [a.record for a in engine.actors.values() if a.record.state.is_up]
    )
    volume_adapter = VolumeAdapter(volumes, engine)
    image_queries = ImageQueries(images, engine)
    stats = StatsReader(hierarchies, specs, networks, host.cpus, host.memory_bytes)
    versions = read_versions(
        {name: runtime.path for name, runtime in runtimes.items()}
        | {"conmon": monitor.path, "tini": config.init_path}
    )

    def facts_now() -> EngineFacts:
        return EngineFacts(
            id=engine_id(config.data_root),
            storage_driver=DRIVER,
            storage_status=[["Backing Filesystem", "overlay on the data root"]],
            images=len(images.list_all()),
            event_listeners=bus.subscriber_count,
            tasks=len(asyncio.all_tasks()),
            networks=["bridge", "host", "null"],
            warnings=host_warnings(config, facts),
            security_options=_security_options(config),
            runtimes={name: str(runtime.path) for name, runtime in runtimes.items()},
            versions=versions,
        )

    defaults = Defaults(
        runtime=config.default_runtime,
        log=config.log,
        init=config.init,
        ulimits=config.default_ulimits,
        no_new_privileges=config.no_new_privileges,
        shm_bytes=config.default_shm_bytes,
        seccomp=_seccomp(config.seccomp_profile),
    )
    backends = Backends(
        queries=ContainerQueries(engine, execs, images, snapshots, paths, stats),
        commands=ContainerCommands(
            engine=engine,
            execs=execs,
            images=images,
            specs=specs,
            controls=controls,
            log_keeper=log_keeper,
            snapshots=snapshots,
            facts=facts,
            defaults=defaults,
            architecture=host.go_architecture,
        ),
        streams=ContainerStreams(
            engine, images, snapshots, sources, paths, limits, host.go_architecture
        ),
        execs=ExecStreams(engine, execs),
        images=image_queries,
        transfers=ImageTransfers(images, config.data_root / "tmp", host.go_architecture),
        system=System(
            config=config,
            host=host,
            facts=facts,
            engine=engine,
            images=images,
            image_queries=image_queries,
            volumes=volumes,
            snapshots=snapshots,
            store=store,
            bus=bus,
            facts_now=facts_now,
        ),
        networks=NetworkAdapter(networks),
        volumes=volume_adapter,
    )
    server = Server(
        build_router(backends),
        allowed_hosts=frozenset(name.lower() for name in config.allowed_hosts),
        socket_group=config.socket_group,
    )
    return Daemon(
        config=config,
        store=store,
        engine=engine,
        networks=networks,
        images=images,
        volumes=volumes,
        snapshots=snapshots,
        log_keeper=log_keeper,
        server=server,
        listeners=_listeners(config),
    )


def _make_roots(paths: Paths) -> None:
    paths.data_root.mkdir(mode=0o710, parents=True, exist_ok=True)
    paths.data_root.chmod(0o710)
    (paths.data_root / "containers").mkdir(mode=0o710, exist_ok=True)
    (paths.data_root / "tmp").mkdir(mode=0o700, exist_ok=True)
    for leftover in (paths.data_root / "tmp").iterdir():
        shutil.rmtree(leftover, ignore_errors=True)
    for name in ("", "containers", "exits", "netns"):
        (paths.exec_root / name).mkdir(mode=0o711, parents=True, exist_ok=True)


def _runtimes(config: DaemonConfig, hierarchies: Hierarchies) -> dict[str, OciRuntime]:
    """The installed known ones and the added ones. Raises InvalidArgument without the default."""
    root = config.exec_root / "runtimes"
    found = {name: Path(path) for name in _KNOWN_RUNTIMES if (path := shutil.which(name))}
    found.update(config.runtimes)
    if config.default_runtime not in found:
        raise InvalidArgument(
            f"the default runtime {config.default_runtime!r} is not installed: install it, or "
            "choose another with --default-runtime or --add-runtime"
        )
    return {
        name: OciRuntime(
            name,
            path,
            root / name,
            shortcut=CrunState(root / name, hierarchies) if path.name == "crun" else None,
        )
        for name, path in found.items()
    }


def _program(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed, and no container runs without it: install it")
    return Path(path)


def _network_config(config: DaemonConfig) -> NetworkConfig:
    pools = tuple(AddressPool(IPv4Network(base), size) for base, size in config.address_pools)
    return NetworkConfig(
        netns_root=config.exec_root / "netns",
        bridge=config.bridge,
        bip=config.bip,
        pools=pools or DEFAULT_POOLS,
        mtu=config.mtu,
        icc=config.icc,
        masquerade=config.ip_masquerade,
        host_ip=config.host_binding_ip,
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


def _seccomp(profile: str) -> str:
    """The daemon's default profile. Raises InvalidArgument for a file that cannot be read."""
    if profile in ("", "builtin"):
        return ""
    if profile == "unconfined":
        return profile
    try:
        return Path(profile).read_text()
    except OSError as error:
        raise InvalidArgument(f"--seccomp-profile {profile}: {error.strerror}") from error


def _security_options(config: DaemonConfig) -> list[str]:
    options = ["name=seccomp,profile=builtin", "name=cgroupns"]
    if config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def _children(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []
