"""One RUN from its preparation to the last trace of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from estiba.build.effects import finished, settled
from estiba.build.ports import Output, RunEnd, RunRequest
from estiba.build.running.agents import AgentSocket
from estiba.build.running.complaint import Complaint
from estiba.build.running.ending import end_run, kill_group
from estiba.build.running.memory import MemoryWatch
from estiba.build.running.program import Program
from estiba.build.running.request import (
    Defaults,
    cgroup_of,
    container_config,
    host_config,
    hostname_of,
)
from estiba.build.running.sandbox import Places, Prepared, Sandbox
from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import Hierarchies, Mode
from estiba.model.errors import Internal, Unavailable
from estiba.model.ids import short
from estiba.model.limits import check_cpu_set, check_memory_nodes
from estiba.network.record import Endpoint
from estiba.network.resolv import render_hostname, render_hosts, render_resolv_conf
from estiba.runtime.crun import CrunState
from estiba.runtime.devices import device_number, resolve_devices
from estiba.runtime.failures import explain, read_message
from estiba.runtime.namespaces import NEW, Namespaces
from estiba.runtime.oci import OciRuntime
from estiba.runtime.spec import SpecInput, build_spec
from estiba.security.profiles.profile import Host, decide_profile

_log = logging.getLogger(__name__)

_RUNTIME_END_S = 2.0
_HOST_HOSTS = Path("/etc/hosts")
_HOST_RESOLV_CONF = Path("/etc/resolv.conf")


class Networking(Protocol):
    """The network package; all methods block."""

    def sandbox_path(self, container_id: str) -> Path: ...

    def open_sandbox(self, container_id: str) -> Path: ...

    def close_sandbox(self, container_id: str) -> None: ...

    def connect(self, container_id: str, *, container_name: str, network: str) -> Endpoint: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What all runs share. `runtime` is the engine's default one."""

    places: Places
    defaults: Defaults
    runtime: OciRuntime
    networks: Networking
    hierarchies: Hierarchies
    host: Host
    cpus: int
    memory_nodes: str
    can_limit_swap: bool = True
    has_names: Callable[[str], bool] = lambda run_id: False
    """Whether a run has a name server of the engine's in its network namespace."""

    def runtime_of(self, sandbox: Sandbox) -> OciRuntime:
        """With its state in the run's directory: it keeps a copy of the spec, secrets included."""
        shortcut = CrunState(sandbox.state, self.hierarchies) if self.runtime.shortcut else None
        return replace(self.runtime, root=sandbox.state, shortcut=shortcut)


class Run:
    """`perform` once."""

    def __init__(self, engine: Engine, request: RunRequest) -> None:
        """Raises InvalidArgument."""
        check_cpu_set(request.limits.cpuset_cpus, engine.cpus)
        check_memory_nodes(request.limits.cpuset_mems, engine.memory_nodes)
        self._engine = engine
        self._request = request
        self._sandbox = Sandbox(engine.places, request.id)
        self._runtime = engine.runtime_of(self._sandbox)
        is_v2 = engine.hierarchies.mode == Mode.V2
        self._host = host_config(request, engine.defaults, cgroup_v2=is_v2)
        self._config = container_config(request)
        self._memory = MemoryWatch(engine.hierarchies, cgroup_of(request, engine.defaults))
        self._agents: list[AgentSocket] = []
        self._program: Program | None = None

    async def perform(self, caches: Mapping[str, Path], sink: Output) -> RunEnd:
        """`caches` are the directories of cache mounts by id."""
        untouched: tuple[str, ...] = ()
        try:
            try:
                await self._set_up(caches)
            except OSError as error:
                raise Unavailable(f"cannot prepare the step: {error}") from error
            code = await self._follow(sink)
            lacked_memory = await self._memory.lacked(code)
        finally:
            untouched = await finished(self._take_down())
        return RunEnd(code, lacked_memory, untouched)

    # -- before ----------------------------------------------------------------------------

    async def _set_up(self, caches: Mapping[str, Path]) -> None:
        prepared, endpoint = await finished(self._prepare(caches))
        self._memory.listen()
        for mount, path in prepared.agents:
            self._agents.append(AgentSocket(mount, path))
        await settled(self._write, prepared, endpoint)
        failpoint.hit("build.run-prepared")
        words = ["run", "--bundle", str(self._sandbox.path), self._request.id]
        command = self._runtime.command(*words, log=self._sandbox.log)
        try:
            self._program = Program(command, self._request.stdin)
        except OSError as error:
            raise self._runtime.unusable(error) from error

    async def _prepare(self, caches: Mapping[str, Path]) -> tuple[Prepared, Endpoint | None]:
        """The network beside everything else: most of its time is the kernel's."""
        results = await asyncio.gather(
            run_blocking(self._prepare_sandbox, caches),
            run_blocking(self._connect),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        prepared, endpoint = results
        assert isinstance(prepared, Prepared)
        assert endpoint is None or isinstance(endpoint, Endpoint)
        return prepared, endpoint

    def _prepare_sandbox(self, caches: Mapping[str, Path]) -> Prepared:
        prepared = self._sandbox.prepare(self._request, self._memory.group, caches)
        # Not before its name stands in the sandbox, where a sweep after a crash looks for it.
        self._memory.prepare()
        return prepared

    def _connect(self) -> Endpoint | None:
        run_id, network = self._request.id, self._request.network
        if network == "host":
            return None
        self._engine.networks.open_sandbox(run_id)
        name = f"build-{short(run_id)}"
        return self._engine.networks.connect(run_id, container_name=name, network=network)

    def _write(self, prepared: Prepared, endpoint: Endpoint | None) -> None:
        self._sandbox.state.mkdir(mode=0o700)
        self._sandbox.write(self._spec(prepared), self._files(endpoint))

    def _spec(self, prepared: Prepared) -> dict[str, Any]:
        request, engine = self._request, self._engine
        own_network = None
        if request.network != "host":
            own_network = engine.networks.sandbox_path(request.id)
        return build_spec(
            SpecInput(
                config=self._config,
                host=self._host,
                args=request.argv,
                user=prepared.user,
                hostname=hostname_of(request),
                rootfs=request.root,
                namespaces=Namespaces(
                    network=own_network,
                    cgroup=None if self._host.cgroupns_mode == "host" else NEW,
                ),
                mounts=prepared.mounts,
                cgroup_path=self._memory.runtime_group,
                profile=decide_profile(self._host, engine.host),
                devices=resolve_devices(self._host),
                device_number=device_number,
                can_limit_swap=engine.can_limit_swap,
            )
        )

    def _files(self, endpoint: Endpoint | None) -> dict[str, str]:
        request, defaults = self._request, self._engine.defaults
        shares_host = request.network == "host"
        hostname = hostname_of(request)
        return {
            "hostname": render_hostname(hostname),
            "hosts": render_hosts(
                hostname,
                addresses=[endpoint.ip_address] if endpoint else [],
                extra_hosts=request.extra_hosts,
                host_gateway=defaults.host_gateway or _gateway(endpoint),
                **({"base": _read(_HOST_HOSTS)} if shares_host else {}),
            ),
            "resolv.conf": render_resolv_conf(
                _read(_HOST_RESOLV_CONF),
                dns=defaults.dns,
                search=defaults.dns_search,
                options=defaults.dns_options,
                shares_host=shares_host,
                internal=self._engine.has_names(request.id),
                ipv6=endpoint is not None and bool(endpoint.ipv6_address),
            ),
        }

    # -- during ----------------------------------------------------------------------------

    async def _follow(self, sink: Output) -> int:
        """Raises what kept the runtime from starting the program."""
        assert self._program is not None
        complaint = Complaint(sink)
        code = await self._program.follow(complaint)
        error = complaint.settle(code, self._request.argv[0])
        if error is not None:
            raise error
        message = ""
        if code != 0:
            with contextlib.suppress(FileNotFoundError):
                message = read_message(self._sandbox.log.read_bytes())
        if message:
            raise explain(message, program=self._request.argv[0])
        return code

    # -- after -----------------------------------------------------------------------------

    async def _take_down(self) -> tuple[str, ...]:
        """Everything, whatever there is of it. Raises Internal when something cannot be."""
        run_id, sandbox = self._request.id, self._sandbox
        failures: list[BaseException] = []
        if self._program is not None:
            try:
                await self._end_program(self._program)
            except (OSError, TimeoutError) as error:
                failures.append(error)
            self._program.close()
        for agent in self._agents:
            await agent.close()
        self._memory.close()
        undone = await asyncio.gather(
            run_blocking(sandbox.undo),
            run_blocking(self._engine.networks.close_sandbox, run_id),
            run_blocking(self._remove_group),
            return_exceptions=True,
        )
        removed = await asyncio.gather(run_blocking(sandbox.remove), return_exceptions=True)
        failures += [result for result in (*undone, *removed) if isinstance(result, BaseException)]
        for failure in failures:
            _log.error("build step %s: not wholly taken away", short(run_id), exc_info=failure)
        if failures:
            raise Internal(
                f"the step {short(run_id)} could not be taken away: {failures[0]}: what is left "
                "goes when the engine starts again"
            )
        untouched = undone[0]
        assert isinstance(untouched, tuple)
        return untouched

    async def _end_program(self, program: Program) -> None:
        """The runtime has taken its container away, unless it was cut off or killed."""
        if program.child.returncode is not None and not self._has_state():
            return
        group, hierarchies = self._memory.group, self._engine.hierarchies
        killed = await run_blocking(kill_group, hierarchies, group)
        if killed and program.child.returncode is None:
            # The runtime takes its container away as after any other end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RUNTIME_END_S):
                    await program.child.wait()
        if program.child.returncode is None or self._has_state():
            program.child.send_signal(signal.SIGKILL)
            await program.child.wait()
            await end_run(self._runtime, hierarchies, self._sandbox, self._request.id, group)

    def _has_state(self) -> bool:
        return (self._sandbox.state / self._request.id).exists()

    def _remove_group(self) -> None:
        self._engine.hierarchies.remove(self._memory.group)


def _gateway(endpoint: Endpoint | None) -> str:
    return endpoint.gateway if endpoint is not None else "127.0.0.1"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
