"""Routes of execs (OpenAPI tag Exec)."""

from __future__ import annotations

from estiba.api.bodies import console_size, strings_as_lists, terminal_size
from estiba.api.context import Context, answer, decode, empty
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.api.streams import RawStream
from estiba.http1 import HttpResponse
from estiba.model.container import ProcessSpec
from estiba.model.errors import EstibaError

_STDOUT = 1


class ExecRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._execs = backends.execs

    def register(self, router: Router) -> None:
        router.add("ContainerExec", self.create)
        router.add("ExecStart", self.start)
        router.add("ExecResize", self.resize)
        router.add("ExecInspect", self.inspect)

    async def create(self, context: Context) -> HttpResponse:
        body = strings_as_lists(await context.json(), ("Cmd",))
        spec, _ = decode(body, ProcessSpec)
        return answer({"Id": await self._execs.create(context.id, spec)}, 201)

    async def inspect(self, context: Context) -> HttpResponse:
        return answer(await self._execs.inspect(context.id))

    async def resize(self, context: Context) -> HttpResponse:
        height, width = terminal_size(context)
        await self._execs.resize(context.id, height, width)
        return empty(200)

    async def start(self, context: Context) -> HttpResponse:
        body = await context.json()
        exec_id = context.id
        size = console_size(body)
        await self._execs.check_start(exec_id)
        if body.get("Detach"):
            await self._execs.start(exec_id, None, size)
            return empty(200)
        # The form of the stream is the request's to say, whatever the exec was created with.
        tty = bool(body.get("Tty"))
        hijacked = await RawStream.open(context.request, tty=tty, version=context.version)
        try:
            await self._execs.start(exec_id, hijacked, size)
        except EstibaError as error:
            # Where and how Docker says it.
            await hijacked.write(_STDOUT, f"{error.message}\r\n".encode())
        finally:
            await hijacked.close()
        return HttpResponse(hijacked=True)
