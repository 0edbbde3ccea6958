"""The registry in a browser: repositories, a repository's tags, an image. Read, never written.

A browser signs in with Basic, however clients do.
"""

from __future__ import annotations

import contextlib

from estiba.http1 import HttpRequest, HttpResponse
from estiba.model.errors import EstibaError
from estiba.registry.auth.gate import BASIC_CHALLENGE
from estiba.registry.auth.identity import ANONYMOUS, Action, Identity
from estiba.registry.errors import Denied, NotAuthenticated, answer_to
from estiba.registry.lists import visible_repositories
from estiba.registry.page import render
from estiba.registry.page.details import MAX_CONFIG_BYTES, Details, config_of, details_of
from estiba.registry.page.html import SECURITY_POLICY
from estiba.registry.routes import check_digest, check_name
from estiba.registry.service import Service
from estiba.registry.storage.errors import RegistryError

_REPOSITORIES_A_PAGE = 100
_TAGS_A_PAGE = 50
_MAX_REFERRERS = 200
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Pages:
    """Serves `/` and what is below `/r/`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def knows(self, path: str) -> bool:
        return path == render.HOME or path.startswith(render.PREFIX)

    async def answer(
        self, request: HttpRequest, path: str, query: dict[str, list[str]], identity: Identity
    ) -> HttpResponse:
        """A page, or one that says what is wrong."""
        last = (query.get("last") or [""])[0][:256]
        try:
            if path == render.HOME:
                page = await self._home(identity, last)
            else:
                name, at, digest = path.removeprefix(render.PREFIX).partition("@")
                name = check_name(name.split("/"))
                self._check(identity, name)
                if at:
                    page = await self._image(name, check_digest(digest))
                else:
                    page = await self._repository(name, request.headers.get("host", ""), last)
        except EstibaError as error:
            response = answer_to(error, f"the page {path[:200]!r}")
            response.headers.update(_HEADERS)
            response.body = render.problem(f"Error {response.status}", error.message)
            return response
        return HttpResponse(200, dict(_HEADERS), page)

    def _check(self, identity: Identity, name: str | None = None) -> None:
        """Raises NotAuthenticated, Denied. `name` None is the list of all."""
        gate = self._service.gate
        if name is None:
            allowed = gate.htpasswd is None or bool(identity.user)
        else:
            allowed = gate.allows(identity, name, Action.PULL)
        if allowed:
            return
        if gate.htpasswd is not None and identity == ANONYMOUS:
            raise NotAuthenticated("Sign in to see this.", headers=BASIC_CHALLENGE)
        raise Denied("The registry's policy does not show you this.")

    async def _home(self, identity: Identity, last: str) -> bytes:
        self._check(identity)
        names, more = await visible_repositories(
            self._service, identity, _REPOSITORIES_A_PAGE, last
        )
        return render.home(names, names[-1] if more and names else None)

    async def _repository(self, name: str, host: str, last: str) -> bytes:
        return await self._service.work(self._read_repository, name, host, last)

    def _read_repository(self, name: str, host: str, last: str) -> bytes:
        registry = self._service.registry
        page = registry.manifests.tags(name, limit=_TAGS_A_PAGE, last=last)
        tags: list[tuple[str, Details | None]] = []
        for tag in page.names:
            try:
                tags.append((tag, self._details(name, tag)))
            except RegistryError:
                tags.append((tag, None))
        after = page.names[-1] if page.more and page.names else None
        return render.repository(name, host, registry.catalog.size(name), tags, after)

    async def _image(self, name: str, digest: str) -> bytes:
        return await self._service.work(self._read_image, name, digest)

    def _read_image(self, name: str, digest: str) -> bytes:
        details = self._details(name, digest)
        referrers = self._service.registry.manifests.referrers(name, digest)
        return render.image(name, details, list(referrers[:_MAX_REFERRERS]))

    def _details(self, name: str, reference: str) -> Details:
        registry = self._service.registry
        manifest = registry.manifests.get(name, reference)
        digest, size = config_of(manifest)
        config = b""
        if digest and 0 < size <= MAX_CONFIG_BYTES:
            # Configs of artifacts may be anything, and may be missing.
            with contextlib.suppress(EstibaError):
                config = self._read(name, check_digest(digest), size)
        return details_of(manifest, config)

    def _read(self, name: str, digest: str, size: int) -> bytes:
        opened = self._service.registry.blobs.open(name, digest)
        with contextlib.closing(opened):
            pieces = []
            while size > 0 and (piece := opened.read(size)):
                size -= len(piece)
                pieces.append(piece)
        return b"".join(pieces)
