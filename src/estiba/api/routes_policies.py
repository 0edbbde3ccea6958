"""The engine's own routes beside those of networks: policies, explain, graph."""

from __future__ import annotations

from estiba.api.context import Context, answer, empty
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.errors import InvalidArgument

_TYPES = {"text": "text/plain; charset=utf-8", "dot": "text/vnd.graphviz", "svg": "image/svg+xml"}


class PolicyRoutes:
    """Registers itself with a router.

    A network may be called `explain` or `graph`: without what the operation needs, the network
    is meant.
    """

    def __init__(self, backends: Backends) -> None:
        self._policies = backends.policies
        self._networks = backends.networks

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("NetworkExplain", self.explain),
            ("NetworkGraph", self.graph),
            ("NetworkPolicy", self.show),
            ("NetworkPolicySet", self.set),
            ("NetworkPolicyDelete", self.delete),
            ("ContainerEgress", self.set_egress),
        ):
            router.add(operation, handler)

    async def explain(self, context: Context) -> HttpResponse:
        source, target = context.text("from"), context.text("to")
        if not source and not target:
            return await self._inspect("explain", context)
        if not source or not target:
            raise InvalidArgument("explain: say from= and to=")
        return answer(await self._policies.explain(source, target))

    async def graph(self, context: Context) -> HttpResponse:
        form = context.text("format")
        if not form:
            return await self._inspect("graph", context)
        if form != "json" and form not in _TYPES:
            raise InvalidArgument(f"unknown format {form[:32]!r}: json, {', '.join(_TYPES)}")
        found = await self._policies.graph(form)
        if not isinstance(found, str):
            return answer(found)
        return HttpResponse(200, {"Content-Type": _TYPES[form]}, found.encode())

    async def _inspect(self, name: str, context: Context) -> HttpResponse:
        return answer(await self._networks.inspect(name, verbose=context.flag("verbose")))

    async def show(self, context: Context) -> HttpResponse:
        return answer(await self._policies.show(context.id))

    async def set(self, context: Context) -> HttpResponse:
        body = await context.json()
        text = body.get("Text")
        if not isinstance(text, str):
            raise InvalidArgument("invalid JSON: Text must be a string, the policy in its language")
        await self._policies.set(context.id, text)
        return answer(await self._policies.show(context.id))

    async def delete(self, context: Context) -> HttpResponse:
        await self._policies.remove(context.id)
        return empty()

    async def set_egress(self, context: Context) -> HttpResponse:
        body = await context.json()
        text = body.get("Egress")
        if not isinstance(text, str):
            raise InvalidArgument("invalid JSON: Egress must be a string")
        return answer({"Warnings": await self._policies.set_egress(context.id, text) or None})
