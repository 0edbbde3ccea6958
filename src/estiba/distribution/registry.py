"""A registry as a whole: its catalogue, and searching in it."""

from __future__ import annotations

from types import TracebackType

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.listing import PAGE_SIZE, list_entries
from estiba.distribution.session import Session
from estiba.distribution.settings import RegistrySettings
from estiba.distribution.transport import Transport
from estiba.model.errors import InvalidArgument
from estiba.model.reference import parse_reference

_SCOPES = ("registry:catalog:*",)


class Registry:
    """Lives as long as a job; its methods block."""

    def __init__(
        self,
        domain: str,
        settings: RegistrySettings,
        credentials: Credentials = ANONYMOUS,
        *,
        cancel: CancelToken | None = None,
    ) -> None:
        """Raises InvalidArgument for what is no host."""
        if parse_reference(f"{domain}/x").domain != domain:
            raise InvalidArgument(f"invalid registry address: {domain[:64]!r}")
        self.domain = domain
        self.cancel = cancel or CancelToken()
        self._transport = Transport(settings, self.cancel)
        self._session = Session(settings.site(domain), credentials, self._transport)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def catalog(self) -> list[str]:
        """Names of repositories, without the registry's.

        Raises NotFound or Unauthorized where the registry shows no list, LimitExceeded beyond
        100,000 of them.
        """
        path = f"_catalog?n={PAGE_SIZE}"
        what = f"the list of repositories of {self.domain}"
        entries = list_entries(self._session, path, "repositories", what=what, scopes=_SCOPES)
        return [entry for entry in entries if self._is_name(entry)]

    def _is_name(self, entry: object) -> bool:
        try:
            return (
                isinstance(entry, str) and parse_reference(f"{self.domain}/{entry}").path == entry
            )
        except InvalidArgument:
            return False
