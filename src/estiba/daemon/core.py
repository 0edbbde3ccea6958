"""The engine without its API: every domain part made by hand, in order, top to bottom."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from estiba import __version__
from estiba.build.cache import Cache
from estiba.build.pruner import Pruner
from estiba.build.running.cache_mounts import CacheMounts
from estiba.build.running.executor import KernelExecutor
from estiba.build.running.request import Defaults as BuildDefaults
from estiba.build.running.run import Engine as BuildEngine
from estiba.build.running.sandbox import Places
from estiba.build.underway import UnderWay
from estiba.containers.controls import KernelControls
from estiba.containers.engine import Engine
from estiba.containers.execs import Execs
from estiba.containers.hostfacts import HostFacts
from estiba.containers.hostfiles import HostFiles
from estiba.containers.logkeeper import LogKeeper
from estiba.containers.plugging import Plugging
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord
from estiba.containers.resolvconf import Resolver
from estiba.containers.sources import Sources
from estiba.containers.specs import SpecMaker
from estiba.containers.steps import KernelSteps
from estiba.containers.world import World
from estiba.daemon.config import DaemonConfig
from estiba.daemon.hostinfo import HostInfo, read_facts, read_host
from estiba.daemon.network_parts import network_settings, policy_facts
from estiba.daemon.storage_parts import remove_nameless, storage_parts
from estiba.images.images import Images
from estiba.kernel.cgroup import Feature, Hierarchies
from estiba.kernel.inode_flags import spread_subdirectories
from estiba.kernel.inotify import SignWatch
from estiba.managed.catalog import Catalog
from estiba.managed.plugins import ManagedPlugins
from estiba.managed.process import Engine as PluginEngine
from estiba.managed.sandbox import Paths as PluginPaths
from estiba.model.container import HostConfig
from estiba.model.errors import InvalidArgument, Unavailable
from estiba.model.image import Platform
from estiba.network.dns.service import NameService
from estiba.network.dns.upstream import Wishes
from estiba.network.networks import Networks
from estiba.network.policy.policies import Policies
from estiba.plugins.registry import Registry
from estiba.runtime.conmon import Conmon
from estiba.runtime.crun import CrunState
from estiba.runtime.oci import OciRuntime
from estiba.security.profiles import profile as profiles
from estiba.storage.snapshots import SnapshotStore
from estiba.storage.unpack import Limits
from estiba.storage.workspaces import Workspaces
from estiba.store import EventBus, Store
from estiba.volumes.remote import PluginDrivers
from estiba.volumes.stored import stored_kind
from estiba.volumes.volumes import Volumes

_KNOWN_RUNTIMES = ("crun", "runc")


@dataclass(frozen=True, slots=True)
class Core:
    """All parts below the API."""

    config: DaemonConfig
    paths: Paths
    host: HostInfo
    facts: HostFacts
    hierarchies: Hierarchies
    runtimes: Mapping[str, OciRuntime]
    monitor: Conmon
    bus: EventBus
    store: Store
    limits: Limits
    images: Images
    snapshots: SnapshotStore
    plugins: Registry
    volumes: Volumes
    names: NameService
    networks: Networks
    policies: Policies
    sources: Sources
    specs: SpecMaker
    controls: KernelControls
    engine: Engine
    execs: Execs
    log_keeper: LogKeeper
    workspaces: Workspaces
    build_cache: Cache
    cache_mounts: CacheMounts
    build_executor: KernelExecutor
    pruner: Pruner
    managed: ManagedPlugins
    builds: UnderWay


def build_core(config: DaemonConfig) -> Core:
    """Makes all parts; touches only the data and exec roots and the cgroup of all containers.

    Raises InvalidArgument or Unavailable naming what is missing on the host.
    """
    paths = Paths(config.data_root, config.exec_root)
    _make_roots(paths)
    host = read_host()
    hierarchies = Hierarchies.detect()
    runtimes = _runtimes(config, hierarchies)
    facts = read_facts(host, sorted(runtimes), hierarchies, config.cgroup_parent)
    monitor = Conmon(_program("conmon"), config.exec_root / "exits")
    bus = EventBus(asyncio.get_running_loop())
    store = Store.open(config.data_root / "estiba.db", bus, reserve=config.data_root / "reserve")
    storage = storage_parts(config, store, Platform(architecture=host.go_architecture))
    plugins = Registry(config.plugin_places)
    volumes = Volumes(
        config.data_root / "volumes",
        store,
        kinds=[stored_kind(config.data_root / "keys")],
        drivers=PluginDrivers(plugins),
    )
    policies = Policies(store, lambda container_id: policy_facts(engine, container_id))
    network_config = network_settings(config)

    def name_wishes(container_id: str) -> Wishes:
        """Of a container; a build step has the daemon's settings."""
        actor = engine.actors.get(container_id)
        return resolver.wishes(actor.record.host_config if actor else HostConfig())

    names = NameService(
        lambda owner: network_config.netns_root / owner,
        name_wishes,
        asks_here=lambda owner: resolver.asks_here(paths.state(owner)),
        policy=policies,
    )
    networks = Networks(network_config, store, (policies, names), plugins=plugins)

    def find(ref: str) -> ContainerRecord:
        return engine.find(ref).record

    async def remove_volumes(record: ContainerRecord) -> None:
        await remove_nameless(volumes, record, engine.volume_users)

    def linked(record: ContainerRecord) -> dict[str, ContainerRecord]:
        return engine.linked(record)

    resolver = Resolver(config.dns, config.dns_options, config.dns_search, names.serves)
    host_files = HostFiles(paths, resolver, linked, config.host_gateway)
    sources = Sources(
        paths, volumes, host_files, find, storage.snapshots.mount_layers, storage.snapshots.view
    )
    specs = SpecMaker(
        host=profiles.read_host(),
        sources=sources,
        find=find,
        cgroup_parent=config.cgroup_parent,
        init_path=config.init_path,
        can_limit_swap=Feature.SWAP in facts.features,
        linked=linked,
    )
    controls = KernelControls(paths, monitor, runtimes, specs)
    steps = KernelSteps(
        paths=paths,
        snapshots=storage.snapshots,
        plugging=Plugging(networks, host_files),
        sources=sources,
        monitor=monitor,
        runtimes=runtimes,
        build_spec=specs.container,
        memory_events=lambda record: hierarchies.memory_events(specs.cgroup(record)),
        oom_counter=lambda record: hierarchies.oom_counter(specs.cgroup(record)),
        signs=SignWatch(),
        remove_group=lambda record: hierarchies.remove(specs.cgroup(record)),
    )
    world = World(store, paths, steps, controls, steps, controls.probe, remove_volumes)
    engine = Engine(world)
    build_executor = KernelExecutor(
        _build_engine(config, runtimes, networks, names, hierarchies, facts), storage.cache_mounts
    )
    pruner = Pruner(
        storage.images,
        storage.build_cache,
        storage.cache_mounts,
        config.data_root,
        lambda work: world.tasks.spawn(work, name="build cache"),
        config.build_cache_bytes,
    )
    log_keeper = LogKeeper(
        paths, controls, lambda: [a.record for a in engine.actors.values() if a.record.state.is_up]
    )
    return Core(
        config=config,
        paths=paths,
        host=host,
        facts=facts,
        hierarchies=hierarchies,
        runtimes=runtimes,
        monitor=monitor,
        bus=bus,
        store=store,
        limits=storage.limits,
        images=storage.images,
        snapshots=storage.snapshots,
        plugins=plugins,
        volumes=volumes,
        names=names,
        networks=networks,
        policies=policies,
        sources=sources,
        specs=specs,
        controls=controls,
        engine=engine,
        execs=Execs(controls, world.tasks, is_gone=world.is_gone),
        log_keeper=log_keeper,
        workspaces=storage.workspaces,
        build_cache=storage.build_cache,
        cache_mounts=storage.cache_mounts,
        build_executor=build_executor,
        pruner=pruner,
        managed=_managed(config, paths, runtimes, hierarchies, store, plugins, volumes, networks),
        builds=UnderWay(),
    )


def _build_engine(
    config: DaemonConfig,
    runtimes: Mapping[str, OciRuntime],
    networks: Networks,
    names: NameService,
    hierarchies: Hierarchies,
    facts: HostFacts,
) -> BuildEngine:
    """What RUN steps run with: the settings that containers have."""
    return BuildEngine(
        places=Places(config.exec_root, config.data_root),
        defaults=BuildDefaults(
            cgroup_parent=config.cgroup_parent,
            shm_bytes=config.default_shm_bytes,
            ulimits=config.default_ulimits,
            seccomp=read_seccomp(config.seccomp_profile),
            no_new_privileges=config.no_new_privileges,
            host_gateway=config.host_gateway,
            dns=tuple(config.dns),
            dns_options=tuple(config.dns_options),
            dns_search=tuple(config.dns_search),
        ),
        runtime=runtimes[config.default_runtime],
        networks=networks,
        has_names=names.serves,
        hierarchies=hierarchies,
        host=profiles.read_host(),
        cpus=facts.cpus,
        memory_nodes=facts.memory_nodes,
        can_limit_swap=Feature.SWAP in facts.features,
    )


def _managed(
    config: DaemonConfig,
    paths: Paths,
    runtimes: Mapping[str, OciRuntime],
    hierarchies: Hierarchies,
    store: Store,
    plugins: Registry,
    volumes: Volumes,
    networks: Networks,
) -> ManagedPlugins:
    """Plugins that the engine runs itself."""
    places = PluginPaths(paths.data_root, paths.exec_root)

    def users_of(names: set[str]) -> list[str]:
        found = [f"volume {one.name}" for one in volumes.volumes() if one.driver in names]
        return found + [
            f"network {one.name}"
            for one in networks.networks()
            if one.driver in names or one.ipam_driver in names
        ]

    engine = PluginEngine(
        paths=places,
        runtime=runtimes[config.default_runtime],
        hierarchies=hierarchies,
        host=profiles.read_host(),
        cgroup_parent=config.cgroup_parent,
        seccomp=read_seccomp(config.seccomp_profile),
    )
    catalog = Catalog(places, store, config.registries, __version__)
    return ManagedPlugins(engine, catalog, plugins, users_of)


def _make_roots(paths: Paths) -> None:
    paths.data_root.mkdir(mode=0o710, parents=True, exist_ok=True)
    paths.data_root.chmod(0o710)
    (paths.data_root / "containers").mkdir(mode=0o710, exist_ok=True)
    (paths.data_root / "tmp").mkdir(mode=0o700, exist_ok=True)
    spread_subdirectories(paths.data_root / "tmp")
    for leftover in (paths.data_root / "tmp").iterdir():
        shutil.rmtree(leftover, ignore_errors=True)
    for name, mode in (("", 0o711), ("containers", 0o710), ("exits", 0o700), ("netns", 0o711)):
        (paths.exec_root / name).mkdir(mode=mode, parents=True, exist_ok=True)
    # Users of the host must not reach set-user-ID programs of images (CVE-2021-41091).
    (paths.exec_root / "containers").chmod(0o710)


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


def read_seccomp(profile: str) -> str:
    """The daemon's default profile. Raises InvalidArgument for a file that cannot be read."""
    if profile in ("", "builtin"):
        return ""
    if profile == "unconfined":
        return profile
    try:
        return Path(profile).read_text()
    except OSError as error:
        raise InvalidArgument(f"--seccomp-profile {profile}: {error.strerror}") from error
