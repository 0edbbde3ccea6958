"""All routes, registered in one place."""

from __future__ import annotations

from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.api.routes_archives import ArchiveRoutes
from estiba.api.routes_builds import BuildRoutes
from estiba.api.routes_containers import ContainerRoutes
from estiba.api.routes_execs import ExecRoutes
from estiba.api.routes_images import ImageRoutes
from estiba.api.routes_plugins import PluginRoutes
from estiba.api.routes_policies import PolicyRoutes
from estiba.api.routes_streams import StreamRoutes
from estiba.api.routes_system import NetworkRoutes, SystemRoutes, VolumeRoutes
from estiba.api.routes_volumes import VolumeWorkRoutes


def build_router(backends: Backends) -> Router:
    """A router that serves everything that is built."""
    router = Router()
    ContainerRoutes(backends).register(router)
    StreamRoutes(backends).register(router)
    ArchiveRoutes(backends).register(router)
    ExecRoutes(backends).register(router)
    ImageRoutes(backends).register(router)
    BuildRoutes(backends).register(router)
    SystemRoutes(backends).register(router)
    NetworkRoutes(backends).register(router)
    PolicyRoutes(backends).register(router)
    VolumeRoutes(backends).register(router)
    VolumeWorkRoutes(backends).register(router)
    PluginRoutes(backends).register(router)
    return router
