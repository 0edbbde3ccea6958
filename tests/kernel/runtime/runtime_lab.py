"""Containers of one test, made without an engine, that leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from estiba.kernel import pidfd
from estiba.kernel.blocking import run_blocking
from estiba.kernel.cgroup import Hierarchies
from estiba.model.container import Config, HostConfig
from estiba.runtime.bundle import Bundle
from estiba.runtime.conmon import Conmon
from estiba.runtime.devices import device_number, resolve_devices
from estiba.runtime.execution import ExecRequest, Execution, start_exec
from estiba.runtime.monitor import ExitStatus, Monitored, MonitorRequest
from estiba.runtime.mounts import SpecMount
from estiba.runtime.namespaces import NEW, Namespaces
from estiba.runtime.oci import OciRuntime
from estiba.runtime.process import build_env, build_process
from estiba.runtime.spec import SpecInput, build_spec
from estiba.runtime.users import User
from estiba.security.profiles.profile import decide_profile, read_host

HOST = read_host()
HIERARCHIES = Hierarchies.detect()
CGROUP_PARENT = f"/estiba-test-runtime-{os.getpid()}"
UNTIL_RESIZED = 'until [ "$(stty size)" = "44 111" ]; do :; done'
"""For a shell: a size and the input after it go different ways through conmon and runc."""


@dataclass
class Container:
    """One container of a test."""

    lab: Lab
    id: str
    bundle: Bundle
    request: MonitorRequest
    spec: dict[str, Any]
    monitored: Monitored | None = None

    async def create(self) -> Monitored:
        self.monitored = await self.lab.monitor.start(self.request)
        return self.monitored

    async def start(self) -> None:
        await self.lab.runtime.start(self.id, program=self.request.program)

    async def wait(self, timeout_s: float = 20.0) -> ExitStatus:
        assert self.monitored is not None
        waiting = self.lab.monitor.wait_exit(self.id, self.bundle, self.monitored.monitor)
        return await asyncio.wait_for(waiting, timeout_s)

    async def run(self) -> ExitStatus:
        await self.create()
        await self.start()
        return await self.wait()

    def log(self) -> str:
        """The log's messages without their headers, pieces of a line joined."""
        assert self.request.log_path is not None
        records = [line.split(" ", 3) for line in self.request.log_path.read_text().splitlines()]
        return "".join(text if tag == "P" else f"{text}\n" for _, _, tag, text in records)

    async def exec(
        self, *args: str, tty: bool = False, stdin: bool = False, **kw: Any
    ) -> Execution:
        user = kw.pop("user", User())
        process = build_process(
            args=args,
            env=build_env(kw.pop("env", []), hostname="h", tty=tty, home=user.home),
            cwd=kw.pop("cwd", "/"),
            user=user,
            capabilities=self.spec["process"]["capabilities"]["bounding"],
            no_new_privileges=False,
            tty=tty,
            console_size=kw.pop("size", (0, 0)),
        )
        return await start_exec(
            ExecRequest(
                container_id=self.id,
                exec_id=uuid.uuid4().hex * 2,
                bundle=self.bundle,
                runtime=self.lab.runtime,
                process=process,
                stdin=stdin,
                **kw,
            )
        )


@dataclass
class Lab:
    """Makes containers for one test with one runtime."""

    runtime: OciRuntime
    monitor: Conmon
    base: Path
    root: Path
    containers: list[Container] = field(default_factory=list)

    def container(
        self,
        *args: str,
        config: dict[str, Any] | None = None,
        host: dict[str, Any] | None = None,
        mounts: tuple[SpecMount, ...] = (),
        user: User | None = None,
        log: bool = True,
        change: Callable[[dict[str, Any]], None] | None = None,
        **inputs: Any,
    ) -> Container:
        container_id = uuid.uuid4().hex * 2
        # As long as a real path, so that sockets below it exceed 108 bytes.
        bundle = Bundle(self.base / "containers" / container_id)
        wanted, host_config = Config(**config or {}), HostConfig(**host or {})
        namespaces = inputs.pop("namespaces", Namespaces(network=NEW))
        spec = build_spec(
            SpecInput(
                config=wanted,
                host=host_config,
                args=list(args),
                user=user or User(),
                hostname="lab",
                rootfs=self.root,
                namespaces=namespaces,
                mounts=mounts,
                cgroup_path=f"{CGROUP_PARENT}/{container_id}",
                profile=decide_profile(host_config, HOST),
                devices=resolve_devices(host_config),
                device_number=device_number,
                **inputs,
            )
        )
        if change is not None:
            change(spec)
        bundle.write(spec)
        request = MonitorRequest(
            container_id=container_id,
            bundle=bundle,
            runtime=self.runtime,
            program=args[0],
            log_path=bundle.path / "container.log" if log else None,
            tty=wanted.tty,
            open_stdin=wanted.open_stdin,
            stdin_once=wanted.stdin_once,
        )
        container = Container(self, container_id, bundle, request, spec)
        self.containers.append(container)
        return container

    async def clean(self) -> None:
        for container in self.containers:
            await self.runtime.delete(container.id, force=True)
            await run_blocking(HIERARCHIES.remove, f"{CGROUP_PARENT}/{container.id}")
            if container.monitored is not None:
                with contextlib.suppress(ProcessLookupError):
                    await asyncio.wait_for(pidfd.wait_exit(container.monitored.monitor), 10)


def container_groups() -> list[Path]:
    parents = HIERARCHIES.directories(CGROUP_PARENT)
    return [group for parent in parents for group in parent.glob("*/")]
