"""A registry as a whole: its catalogue."""

from __future__ import annotations

from estiba.distribution.cancel import CancelToken
from estiba.distribution.credentials import ANONYMOUS, Credentials
from estiba.distribution.settings import RegistrySettings
from estiba.model.errors import NotImplemented


class Registry:
    def __init__(
        self,
        domain: str,
        settings: RegistrySettings,
        credentials: Credentials = ANONYMOUS,
        *,
        cancel: CancelToken | None = None,
    ) -> None:
        self.domain = domain
        self.cancel = cancel or CancelToken()
        self._settings = settings
        self._credentials = credentials

    def catalog(self) -> list[str]:
        """Names of repositories. Raises NotImplemented where the registry lists none."""
        raise NotImplemented("registries cannot be asked yet")
