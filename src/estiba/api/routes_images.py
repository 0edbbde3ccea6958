"""Routes of images (OpenAPI tag Image)."""

from __future__ import annotations

import msgspec

from estiba.api.context import Context, answer, empty, first, progress, stream
from estiba.api.ports import Backends
from estiba.api.router import Router
from estiba.http1 import HttpResponse
from estiba.model.container import Config
from estiba.model.decoding import from_json
from estiba.model.errors import InvalidArgument
from estiba.model.image import Platform

_TAR = "application/x-tar"


class ImageRoutes:
    """Registers itself with a router."""

    def __init__(self, backends: Backends) -> None:
        self._images = backends.images
        self._transfers = backends.transfers
        self._registries = backends.registries

    def register(self, router: Router) -> None:
        for operation, handler in (
            ("ImageList", self.list_all),
            ("ImageInspect", self.inspect),
            ("ImageHistory", self.history),
            ("ImageAttestations", self.attestations),
            ("ImageTag", self.tag),
            ("ImageDelete", self.delete),
            ("ImagePrune", self.prune),
            ("ImageLoad", self.load),
            ("ImageGet", self.save),
            ("ImageGetAll", self.save),
            ("ImageCreate", self.create),
            ("ImagePush", self.push),
            ("ImageSearch", self.search),
            ("DistributionInspect", self.inspect_remote),
        ):
            router.add(operation, handler)

    async def list_all(self, context: Context) -> HttpResponse:
        listed = await self._images.list_all(
            all=context.flag("all"),
            filters=context.filters(),
            shared_size=context.flag("shared-size"),
            manifests=context.flag("manifests"),
        )
        if context.version < (1, 44):
            for image in listed:
                image["VirtualSize"] = image["Size"]
        return answer(listed)

    async def inspect(self, context: Context) -> HttpResponse:
        view = await self._images.inspect(_name(context), _asked(context))
        if context.version < (1, 44):
            view["VirtualSize"] = view["Size"]
        # Gone from Docker with 1.45, but docker-compose 1.29 asks for the newest and reads it: of
        # its volumes those that a new container takes over from the old one.
        config = msgspec.to_builtins(Config()) | (view["Config"] or {})
        view |= {"Container": "", "ContainerConfig": config}
        return answer(view)

    async def history(self, context: Context) -> HttpResponse:
        return answer(await self._images.history(_name(context), _asked(context)))

    async def attestations(self, context: Context) -> HttpResponse:
        found = await self._images.attestations(
            _name(context),
            _asked(context),
            types=[text for text in context.texts("type") if text],
            statements=context.flag("statement"),
        )
        return answer(found)

    async def tag(self, context: Context) -> HttpResponse:
        repository = context.text("repo")
        if not repository:
            raise InvalidArgument("the repository of the new tag must be given (repo=)")
        await self._images.tag(_name(context), repository, context.text("tag"))
        return empty(201)

    async def delete(self, context: Context) -> HttpResponse:
        removed = await self._images.remove(
            _name(context),
            force=context.flag("force"),
            prune=not context.flag("noprune"),
            platforms=_platforms(context, "platforms"),
        )
        return answer(removed)

    async def prune(self, context: Context) -> HttpResponse:
        return answer(await self._images.prune(context.filters()))

    async def load(self, context: Context) -> HttpResponse:
        lines = self._transfers.load(
            context.body, quiet=context.flag("quiet"), platforms=_platforms(context, "platform")
        )
        # Clients take the answer's head for the end of it, and leave.
        return stream(await first(progress(lines)), "application/json")

    async def save(self, context: Context) -> HttpResponse:
        if "name" in context.parameters:
            names = [context.parameters["name"]]
        else:
            names = [
                name for text in context.texts("names") for name in text.split(",") if name.strip()
            ]
        if not names:
            raise InvalidArgument("no images to save: give names=")
        pieces = await self._transfers.save(
            names, platforms=_platforms(context, "platform"), form=context.text("format")
        )
        return stream(pieces, _TAR)

    async def create(self, context: Context) -> HttpResponse:
        source = context.text("fromSrc")
        image = context.text("fromImage")
        if image:
            return await self._pull(context, image)
        platform = self._transfers.platform(context.text("platform"))
        if not source:
            raise InvalidArgument("either fromImage or fromSrc must be given")
        lines = self._transfers.import_(
            context.body,
            source=source,
            repository=context.text("repo"),
            tag=context.text("tag"),
            message=context.text("message"),
            changes=context.texts("changes"),
            platform=platform,
        )
        # Clients take the answer's head for the end of an import that has nothing to tell before.
        return stream(progress(await first(lines)), "application/json")

    async def _pull(self, context: Context, image: str) -> HttpResponse:
        asked = context.text("platform")
        platform = self._transfers.platform(asked) if asked else None
        lines = self._registries.pull(image, context.text("tag"), platform, _auth(context))
        # What fails before there is anything to tell has a status of its own.
        return stream(progress(await first(lines)), "application/json")

    async def push(self, context: Context) -> HttpResponse:
        lines = self._registries.push(
            _name(context), context.text("tag"), _asked(context), _auth(context)
        )
        return stream(progress(lines), "application/json")

    async def search(self, context: Context) -> HttpResponse:
        term = context.text("term")
        if not term:
            raise InvalidArgument("the term to search for must be given (term=)")
        found = await self._registries.search(
            term, context.number("limit") or 0, context.filters(), _auth(context)
        )
        return answer(found)

    async def inspect_remote(self, context: Context) -> HttpResponse:
        return answer(await self._registries.inspect(_name(context), _auth(context)))


def _auth(context: Context) -> str:
    return context.request.headers.get("x-registry-auth", "")


def _asked(context: Context) -> Platform | None:
    return next(iter(_platforms(context, "platform")), None)


def _platforms(context: Context, name: str) -> list[Platform]:
    """Parameters that are JSON objects. Raises InvalidArgument."""
    try:
        return [from_json(text, Platform) for text in context.texts(name) if text]
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid platform: {error}") from error


def _name(context: Context) -> str:
    return context.parameters["name"]
