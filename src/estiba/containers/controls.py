"""What is done to a container that is up, and programs run in it besides its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from estiba.containers.attach import Chunk
from estiba.containers.health import MAX_OUTPUT_BYTES, RunProbe
from estiba.containers.ports import Paths
from estiba.containers.record import ContainerRecord, Process
from estiba.containers.specs import SpecMaker
from estiba.kernel import failpoint
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import Hierarchies
from estiba.kernel.pidfd import ProcessIdentity, send_signal
from estiba.model.container import ProcessSpec, Resources
from estiba.model.errors import Conflict, EstibaError, NotFound
from estiba.model.ids import new_id
from estiba.runtime.bundle import Bundle
from estiba.runtime.conmon import Conmon
from estiba.runtime.devices import device_number
from estiba.runtime.execution import ExecRequest, Execution, start_exec
from estiba.runtime.oci import OciRuntime
from estiba.runtime.resources import build_resources, lifted_limits


@dataclass(slots=True)
class KernelControls:
    """`containers.ports.Controls` and `containers.execs.ExecStarter` on the real kernel."""

    paths: Paths
    monitor: Conmon
    runtimes: Mapping[str, OciRuntime]
    specs: SpecMaker

    async def signal(self, record: ContainerRecord, number: int) -> None:
        """A program that is ending already needs no signal."""
        if record.container is not None:
            with contextlib.suppress(ProcessLookupError):
                send_signal(_identity(record.container), number)

    async def pause(self, record: ContainerRecord) -> None:
        await self._runtime(record).pause(record.id)
        failpoint.hit("pause.frozen")

    async def unpause(self, record: ContainerRecord) -> None:
        """A program that is not frozen, or not there any more, is left alone."""
        runtime = self._runtime(record)
        with contextlib.suppress(NotFound):
            if await runtime.state(record.id) == "paused":
                await runtime.resume(record.id)
        failpoint.hit("unpause.thawed")

    async def update(self, record: ContainerRecord, resources: Resources) -> None:
        limits = build_resources(
            record.host_config,
            device_number=device_number,
            can_limit_swap=self.specs.can_limit_swap,
        )
        await self._runtime(record).update(record.id, limits)
        for limit in lifted_limits(resources):
            group = self.specs.cgroup(record)
            await run_blocking(Hierarchies.detect().lift, group, limit)

    async def resize(self, record: ContainerRecord, height: int, width: int) -> None:
        await self.monitor.resize(self._bundle(record), height=height, width=width)

    async def reopen_log(self, record: ContainerRecord) -> None:
        with contextlib.suppress(EstibaError):
            await self.monitor.reopen_log(self._bundle(record))

    async def exec(self, record: ContainerRecord, spec: ProcessSpec) -> ExecHandle:
        """Starts a program.

        Raises InvalidArgument for a user that the image does not know, Conflict when the
        container has just ended.
        """
        bundle = self._bundle(record)
        try:
            process = await run_blocking(self.specs.process, record, spec, bundle.rootfs)
        except FileNotFoundError as error:
            raise Conflict(f"container {record.id} is not running") from error
        execution = await start_exec(
            ExecRequest(
                container_id=record.id,
                exec_id=new_id(),
                bundle=bundle,
                runtime=self._runtime(record),
                process=process,
                stdin=spec.attach_stdin,
                stdout=spec.attach_stdout,
                stderr=spec.attach_stderr,
            )
        )
        return ExecHandle(execution)

    def probe(self, record: ContainerRecord) -> RunProbe:
        """Runs health checks in the container."""

        async def run(argv: list[str], timeout_s: float) -> tuple[int, str]:
            spec = ProcessSpec(cmd=argv, attach_stdout=True, attach_stderr=True)
            handle = await self.exec(record, spec)
            kept = bytearray()
            try:
                async with asyncio.timeout(timeout_s):
                    async for _, data in handle:
                        kept += data[: max(0, MAX_OUTPUT_BYTES - len(kept))]
                    return await handle.wait(), kept.decode(errors="replace")
            except EstibaError as error:
                return getattr(error, "exit_code", 1), error.message
            except BaseException as error:
                await asyncio.shield(handle.kill())
                if isinstance(error, TimeoutError):
                    raise TimeoutError(kept.decode(errors="replace")) from error
                raise
            finally:
                handle.close()

        return run

    def _runtime(self, record: ContainerRecord) -> OciRuntime:
        return self.runtimes[record.runtime]

    def _bundle(self, record: ContainerRecord) -> Bundle:
        return Bundle(self.paths.run(record.id))


class ExecHandle:
    """`containers.execs.ExecProcess` over the runtime's execution."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def pid(self) -> int:
        identity = self._execution.identity()
        return identity.pid if identity else 0

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._execution.__aiter__()

    async def write_stdin(self, data: bytes) -> None:
        await self._execution.write_stdin(data)

    async def close_stdin(self) -> None:
        await self._execution.close_stdin()

    def resize(self, height: int, width: int) -> None:
        self._execution.resize(height=height, width=width)

    async def wait_started(self) -> None:
        await self._execution.wait_started()

    async def wait(self) -> int:
        return await self._execution.wait()

    async def kill(self) -> None:
        await self._execution.kill()

    def close(self) -> None:
        self._execution.close()


def _identity(process: Process) -> ProcessIdentity:
    return ProcessIdentity(process.pid, process.start_time)
