"""A repository of a registry: manifests, blobs, tags, referrers (distribution-spec 1.1).

Owns which site is asked for what; the conversations are the other modules' of this package.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from estiba.distribution.auth import Scopes
from estiba.distribution.blobs import BlobStream, Hasher, Opened, Patience, open_range
from estiba.distribution.cancel import CancelToken
from estiba.distribution.content import (
    MANIFEST_TYPES,
    MAX_MANIFEST_BYTES,
    Content,
    FetchedManifest,
    Referrer,
)
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.listing import PAGE_SIZE, list_entries
from estiba.distribution.manifests import (
    check_manifest,
    differ,
    digest_like,
    plain_type,
    usable_digest,
)
from estiba.distribution.referrers import find_referrers
from estiba.distribution.session import Session
from estiba.distribution.settings import RegistrySettings, Site
from estiba.distribution.transport import Transport
from estiba.distribution.uploads import (
    Destination,
    Rewinding,
    Source,
    upload_chunks,
    upload_whole,
)
from estiba.model.digest import Digest, parse_digest
from estiba.model.errors import (
    Cancelled,
    DataLoss,
    EstibaError,
    Forbidden,
    InvalidArgument,
    LimitExceeded,
    NotFound,
)
from estiba.model.reference import Reference, parse_reference

_log = logging.getLogger(__name__)
_BLOB_TYPE = "application/octet-stream"
_MAX_SMALL_BLOB_BYTES = 16 << 20
T = TypeVar("T")


class Repository:
    """Lives as long as a job; its methods block and may be called from several threads.

    Pulls ask the mirrors first, in turn, then the registry itself. A mirror that fails, or sends
    other bytes than it should, is not asked again. With `push` the registry alone is asked, for
    the right to write too.

    Every method raises Unauthorized or Forbidden for refused credentials, Unavailable for a
    registry that does not answer in time or as it should, and Cancelled once `cancel` is.
    """

    def __init__(
        self,
        reference: Reference,
        settings: RegistrySettings,
        credentials: Credentials = ANONYMOUS,
        *,
        push: bool = False,
        cancel: CancelToken | None = None,
    ) -> None:
        """Raises InvalidArgument for a name that breaks the grammar of references."""
        checked = parse_reference(reference.repository)
        if (checked.domain, checked.path) != (reference.domain, reference.path):
            raise InvalidArgument(f"invalid reference format: {reference.repository[:128]!r}")
        self.reference = reference
        self.cancel = cancel or CancelToken()
        self._settings = settings
        self._push = push
        self._transport = Transport(settings, self.cancel)
        sites = [settings.site(reference.domain)] if push else settings.sites(reference.domain)
        self._home = Session(sites[-1], credentials, self._transport)
        self._mirrors = [Session(site, ANONYMOUS, self._transport) for site in sites[:-1]]
        self._given_up: set[Site] = set()

    def fork(self, cancel: CancelToken) -> Repository:
        """The same for a part of the job that `cancel` ends.

        What was learned, tokens and connections are shared; `close` is the original's affair.
        """
        twin = copy.copy(self)
        twin.cancel = cancel
        twin._transport = self._transport.fork(cancel)
        twin._home = self._home.fork(twin._transport)
        twin._mirrors = [session.fork(twin._transport) for session in self._mirrors]
        return twin

    def close(self) -> None:
        """Closes idle connections."""
        self._transport.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    # -- manifests ---------------------------------------------------------------------------

    def resolve(self, target: str) -> Content:
        """What a tag or digest stands for now, without fetching it where the registry allows.

        Raises NotFound.
        """
        asked = self._checked(target)
        what = self._manifest_name(target)

        def ask(session: Session) -> Content | None:
            url = session.url(f"{self._name(session)}/manifests/{target}")
            headers = {"Accept": ", ".join(MANIFEST_TYPES)}
            scopes = self._scopes(session)
            try:
                answer = session.call("HEAD", url, what=what, scopes=scopes, headers=headers)
            except (Forbidden, InvalidArgument):
                return None
            with answer:
                digest = usable_digest(answer.header("Docker-Content-Digest"))
                kind, size = plain_type(answer.header("Content-Type")), answer.length
            if digest is None or kind not in MANIFEST_TYPES or size is None:
                return None
            if asked is not None and differ(asked, digest):
                raise DataLoss(f"{what}: the registry says that its digest is {digest}")
            return Content(kind, asked or digest, size)

        return self._read(ask) or self.manifest(target).content

    def manifest(self, target: str, *, accept: Sequence[str] = MANIFEST_TYPES) -> FetchedManifest:
        """A manifest or index by tag or digest.

        Raises NotFound, LimitExceeded beyond 4 MiB, DataLoss for a wrong digest,
        InvalidArgument for Docker's schema 1 and what is no manifest.
        """
        asked = self._checked(target)
        what = self._manifest_name(target)

        def ask(session: Session) -> FetchedManifest:
            url = session.url(f"{self._name(session)}/manifests/{target}")
            headers = {"Accept": ", ".join(accept)}
            scopes = self._scopes(session)
            with session.call("GET", url, what=what, scopes=scopes, headers=headers) as answer:
                return check_manifest(
                    answer.read(MAX_MANIFEST_BYTES),
                    header_type=answer.header("Content-Type"),
                    header_digest=answer.header("Docker-Content-Digest"),
                    asked=asked,
                    what=what,
                )

        return self._read(ask)

    def put_manifest(self, target: str, body: bytes, media_type: str) -> Content:
        """Stores `body` under a tag or its digest. Raises InvalidArgument when refused."""
        what, session = self._manifest_name(target), self._home
        if len(body) > MAX_MANIFEST_BYTES:
            raise LimitExceeded(f"{what} is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
        asked = self._checked(target)
        digest = digest_like(asked or "sha256:", body)
        if asked not in (None, digest):
            raise InvalidArgument(f"{what}: its digest is {digest}")
        url = session.url(f"{self._name(session)}/manifests/{target}")
        headers = {"Content-Type": media_type}
        scopes = self._scopes(session, "pull,push")
        with session.call(
            "PUT", url, what=what, scopes=scopes, headers=headers, body=body
        ) as answer:
            stored = usable_digest(answer.header("Docker-Content-Digest"))
            subject = usable_digest(answer.header("OCI-Subject")) or ""
            answer.close()
        if stored is not None and differ(stored, digest):
            raise DataLoss(f"{what}: the registry stored other bytes, whose digest is {stored}")
        return Content(media_type, digest, len(body), subject)

    def delete_manifest(self, target: str) -> None:
        """By digest, or by tag where the registry untags. Raises NotFound, Forbidden."""
        self._checked(target)
        self._delete(f"manifests/{target}", self._manifest_name(target))

    # -- blobs -------------------------------------------------------------------------------

    def blob(
        self, digest: Digest, size: int, *, offset: int = 0, hasher: Hasher | None = None
    ) -> BlobStream:
        """The bytes from `offset` on. `hasher` has taken those before it.

        Without `hasher` and with an offset the caller checks the digest. Raises NotFound.
        """
        parse_digest(digest)
        if not 0 <= offset <= size:
            raise InvalidArgument(f"blob {digest}: {offset} is not within its {size} bytes")
        what = self._blob_name(digest)

        def reopen(at: int) -> Opened:
            def ask(session: Session) -> Opened:
                path = f"{self._name(session)}/blobs/{digest}"
                scopes = self._scopes(session)
                return open_range(session, path, scopes, what=what, offset=at, size=size)

            return self._read(ask)

        settings = self._settings
        return BlobStream(
            reopen,
            self._give_up,
            None if offset == size else reopen(offset),
            digest=digest,
            size=size,
            offset=offset,
            hasher=hasher,
            patience=Patience(settings.read_timeout_s, settings.attempts, settings.backoff_s),
            cancel=self.cancel,
            what=what,
        )

    def read_blob(self, digest: Digest, size: int) -> bytes:
        """A small blob whole, checked. Raises NotFound, DataLoss, LimitExceeded beyond 16 MiB."""
        if size > _MAX_SMALL_BLOB_BYTES:
            raise LimitExceeded(f"{self._blob_name(digest)} is larger than 16 MiB")
        while True:
            with self.blob(digest, size) as stream:
                try:
                    return b"".join(iter(lambda: stream.read(256 << 10), b""))
                except DataLoss:
                    if not stream.blame():
                        raise

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry itself has it."""
        return self.blob_size(digest) is not None

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes that the registry itself has of it: None when none, 0 when it does not say."""
        session, what = self._home, self._blob_name(parse_digest(digest))
        url = session.url(f"{self._name(session)}/blobs/{digest}")
        scopes = self._scopes(session)
        with session.call("HEAD", url, what=what, scopes=scopes, allow=(404,)) as answer:
            return (answer.length or 0) if answer.status == 200 else None

    def mount_blob(self, digest: Digest, origin: str) -> bool:
        """Takes over a blob of the repository `origin` (a path) of the same registry.

        False when the registry wants it uploaded.
        """
        parse_digest(digest)
        if parse_reference(f"{self.reference.domain}/{origin}").path != origin:
            raise InvalidArgument(f"invalid reference format: {origin[:128]!r}")
        session, what = self._home, self._blob_name(digest)
        scopes = (*self._scopes(session, "pull,push"), f"repository:{origin}:pull")
        query = f"mount={digest}&from={origin}"
        url = session.url(f"{self._name(session)}/blobs/uploads/?{query}")
        with session.call("POST", url, what=what, scopes=scopes) as answer:
            if answer.status == 201:
                return True
            started = session.located(answer)
            answer.close()
        with contextlib.suppress(EstibaError):
            session.call("DELETE", started, what=what, scopes=scopes, once=True).close()
        return False

    def upload_blob(
        self,
        source: Source,
        *,
        size: int | None = None,
        digest: Digest | None = None,
        progress: Callable[[int], None] | None = None,
        reopen: Callable[[], Source] | None = None,
    ) -> Content:
        """Uploads `source`; in one request when `size` and `digest` are known beforehand.

        After a break that goes on where the registry stands if `source` has `seek(offset)`, or
        `reopen` gives it anew from its start; otherwise Unavailable. Without `size` and `digest`
        no more than a chunk, 8 MiB, is kept in memory for that.

        `progress` hears how many bytes the registry has been sent; after a break that may be
        less than before. Raises DataLoss when `source` is not what `size` and `digest` say; the
        registry then keeps nothing.
        """
        session = self._home
        what = self._blob_name(digest) if digest else f"a blob for {self.reference.familiar_name}"
        scopes = self._scopes(session, "pull,push")
        to = Destination(session, self._name(session), scopes, what)
        tell = progress or (lambda _: None)
        rewinding = Rewinding(source, reopen)
        if digest is not None and size is not None:
            upload_whole(to, rewinding, size, parse_digest(digest), tell)
            return Content(_BLOB_TYPE, digest, size)
        algorithm = digest.partition(":")[0] if digest else "sha256"
        found, length = upload_chunks(to, rewinding, algorithm, tell)
        if digest not in (None, found) or size not in (None, length):
            raise DataLoss(f"{what}: its source has {length} bytes and the digest {found}")
        return Content(_BLOB_TYPE, found, length)

    def delete_blob(self, digest: Digest) -> None:
        """Raises NotFound; Forbidden where the registry deletes nothing."""
        self._delete(f"blobs/{parse_digest(digest)}", self._blob_name(digest))

    # -- lists -------------------------------------------------------------------------------

    def tags(self) -> list[str]:
        """Of the registry itself: a mirror may know a part of them only.

        Raises NotFound, LimitExceeded beyond 100,000.
        """
        session, what = self._home, f"repository {self.reference.familiar_name}"
        path = f"{self._name(session)}/tags/list?n={PAGE_SIZE}"
        scopes = self._scopes(session)
        entries = list_entries(session, path, "tags", what=what, scopes=scopes)
        return [entry for entry in entries if self._is_tag(entry)]

    def referrers(self, digest: Digest, artifact_type: str = "") -> list[Referrer]:
        """What names `digest` as its subject; none is an empty list."""
        parse_digest(digest)
        session = self._home
        return find_referrers(
            session, self._name(session), self._scopes(session), digest, artifact_type
        )

    # -- sites and names ---------------------------------------------------------------------

    def _read(self, ask: Callable[[Session], T]) -> T:
        for session in [one for one in self._mirrors if one.site not in self._given_up]:
            try:
                return ask(session)
            except Cancelled:
                raise
            except NotFound as error:
                _log.debug("mirror %s: %s", session.site.host, error)
            except EstibaError as error:
                _log.debug("mirror %s is not asked again: %s", session.site.host, error)
                self._give_up(session)
        return ask(self._home)

    def _give_up(self, session: Session) -> None:
        """A mirror; the forks pass it over too."""
        self._given_up.add(session.site)

    def _delete(self, path: str, what: str) -> None:
        session = self._home
        scopes = self._scopes(session, "delete")
        url = session.url(f"{self._name(session)}/{path}")
        session.call("DELETE", url, what=what, scopes=scopes).close()

    def _name(self, session: Session) -> str:
        prefix = session.site.prefix
        return f"{prefix}/{self.reference.path}" if prefix else self.reference.path

    def _scopes(self, session: Session, actions: str = "") -> Scopes:
        actions = actions or ("pull,push" if self._push else "pull")
        return (f"repository:{self._name(session)}:{actions}",)

    def _checked(self, target: str) -> Digest | None:
        """The digest, if `target` is one; raises InvalidArgument unless it is that or a tag."""
        if ":" in target:
            return parse_digest(target)
        if not self._is_tag(target):
            raise InvalidArgument(f"invalid reference format: bad tag {target[:64]!r}")
        return None

    def _is_tag(self, entry: object) -> bool:
        try:
            return (
                isinstance(entry, str)
                and parse_reference(f"registry.invalid/x:{entry}").tag == entry
            )
        except InvalidArgument:
            return False

    def _manifest_name(self, target: str) -> str:
        joint = "@" if ":" in target else ":"
        return f"manifest for {self.reference.familiar_name}{joint}{target}"

    def _blob_name(self, digest: Digest) -> str:
        return f"blob {digest} of {self.reference.familiar_name}"
