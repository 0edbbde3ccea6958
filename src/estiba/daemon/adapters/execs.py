"""Execs for the routes: made, started with a client's streams, inspected."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass
from typing import Any

import msgspec

from estiba.api.streams import ClientStream
from estiba.containers.actor import Actor
from estiba.containers.engine import Engine
from estiba.containers.execs import Exec, ExecProcess, Execs, check_not_started
from estiba.daemon.adapters.streams import take_last_input
from estiba.model.container import ProcessSpec
from estiba.model.detach_keys import DEFAULT, DetachScanner, parse_keys
from estiba.model.errors import Conflict, EstibaError
from estiba.model.state import ContainerState

Json = dict[str, Any]


@dataclass(slots=True)
class ExecStreams:
    """`api.ports.Execs`."""

    engine: Engine
    execs: Execs

    async def create(self, ref: str, spec: ProcessSpec) -> str:
        actor = self.engine.find(ref)
        if spec.detach_keys:
            parse_keys(spec.detach_keys)
        if actor.record.state == ContainerState.PAUSED:
            raise Conflict(f"Container {ref} is paused, unpause the container before exec")
        instance = self.execs.create(actor.record, spec)
        await actor.announce(f"exec_create: {_shown(spec)}", {"execID": instance.id})
        return instance.id

    async def inspect(self, exec_id: str) -> Json:
        instance = self.execs.find(exec_id)
        spec = instance.spec
        return {
            "ID": instance.id,
            "Running": instance.running,
            "ExitCode": instance.exit_code,
            "ProcessConfig": {
                "tty": spec.tty,
                "entrypoint": spec.cmd[0],
                "arguments": spec.cmd[1:],
                "privileged": spec.privileged,
                "user": spec.user,
            },
            "OpenStdin": spec.attach_stdin,
            "OpenStderr": spec.attach_stderr,
            "OpenStdout": spec.attach_stdout,
            "CanRemove": False,
            "ContainerID": instance.container_id,
            "DetachKeys": _detach_keys(spec),
            "Pid": instance.process.pid if instance.process else 0,
        }

    async def check_start(self, exec_id: str) -> None:
        instance = self.execs.find(exec_id)
        self.engine.find(instance.container_id)
        check_not_started(instance)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        instance = self.execs.find(exec_id)
        if instance.process is None or not instance.running:
            raise Conflict(f"exec {exec_id} is not running")
        if instance.spec.tty:
            instance.process.resize(height, width)

    async def start(
        self, exec_id: str, stream: ClientStream | None, console_size: list[int]
    ) -> None:
        instance = self.execs.find(exec_id)
        actor = self.engine.find(instance.container_id)
        spec = instance.spec
        if stream is None:
            spec = msgspec.structs.replace(
                spec, attach_stdin=False, attach_stdout=False, attach_stderr=False
            )
        if any(console_size):
            spec = msgspec.structs.replace(spec, console_size=console_size)
        process = await self.execs.start(instance, actor.record, spec)
        self.engine.world.tasks.spawn(
            _announce_exec(actor, instance), name=f"exec events {exec_id[:12]}"
        )
        try:
            if stream is None:
                await process.wait_started()
            else:
                await self._pump(instance, process, stream)
        finally:
            self.engine.world.tasks.spawn(_see_out(process), name=f"exec rest {exec_id[:12]}")

    async def _pump(self, instance: Exec, process: ExecProcess, stream: ClientStream) -> None:
        async def output() -> None:
            async for number, data in process:
                await stream.write(number, data)
            await process.wait()

        async def input_() -> None:
            keys = b""
            if instance.spec.tty:
                keys = parse_keys(instance.spec.detach_keys or DEFAULT)
            scanner = DetachScanner(keys)
            while data := await stream.read():
                passed, detached = scanner.feed(data)
                await process.write_stdin(passed)
                if detached:
                    work.cancel()
                    return
            await process.close_stdin()

        work = asyncio.create_task(output(), name="exec output")
        others = [asyncio.create_task(stream.wait_gone(), name="exec gone")]
        if instance.spec.attach_stdin:
            others.append(asyncio.create_task(input_(), name="exec input"))
        try:
            while not work.done():
                done, _ = await asyncio.wait([work, *others], return_when=asyncio.FIRST_COMPLETED)
                if any(task.get_name() == "exec gone" for task in done):
                    await take_last_input(others)
                    break
                others = [task for task in others if task not in done]
            if work.done() and not work.cancelled():
                error = work.exception()
                if error is not None and not isinstance(error, ConnectionError):
                    raise error
        finally:
            for task in [work, *others]:
                task.cancel()
            await asyncio.gather(work, *others, return_exceptions=True)


async def _see_out(process: ExecProcess) -> None:
    """Reads away what comes when nobody is attached any more, lest the program stand still."""
    try:
        async for _ in process:
            pass
        with contextlib.suppress(EstibaError):
            await process.wait()
    finally:
        process.close()


def _shown(spec: ProcessSpec) -> str:
    """The command in an event: as Docker's, with the blank that precedes no arguments."""
    return f"{spec.cmd[0]} {' '.join(spec.cmd[1:])}"


def _detach_keys(spec: ProcessSpec) -> str:
    """Bytes in Docker's answer, and so in base64."""
    keys = parse_keys(spec.detach_keys) if spec.detach_keys else b""
    return base64.b64encode(keys).decode()


async def _announce_exec(actor: Actor, instance: Exec) -> None:
    await actor.announce(f"exec_start: {_shown(instance.spec)}", {"execID": instance.id})
    await instance.ended.wait()
    code = str(instance.exit_code if instance.exit_code is not None else 0)
    await actor.announce("exec_die", {"execID": instance.id, "exitCode": code})
