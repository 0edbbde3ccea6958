"""The composition root: storage, gate, hooks and pages behind one dispatcher."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from estiba.http1 import HttpRequest, HttpResponse
from estiba.http1.tls import tls_context
from estiba.kernel.blocking import run_blocking
from estiba.registry.accesslog import AccessLog
from estiba.registry.auth.gate import REALM, Gate
from estiba.registry.auth.htpasswd import Htpasswd
from estiba.registry.auth.policy import EVERYBODY, SIGNED_IN, open_to, read_policy
from estiba.registry.auth.token_endpoint import TokenEndpoint
from estiba.registry.auth.tokens import TokenMaker, read_key
from estiba.registry.config import RegistryConfig
from estiba.registry.dispatch import Dispatcher, metrics_answer
from estiba.registry.errors import PathUnknown, answer_to
from estiba.registry.events import Events, Hook, read_headers
from estiba.registry.listeners import Address, Listeners
from estiba.registry.metrics import Labels, Metrics
from estiba.registry.page.pages import Pages
from estiba.registry.service import Service
from estiba.registry.storage.opening import Storage

_log = logging.getLogger("registry")

_DRAIN_S = 5.0
_HOOKS_S = 3.0


class Server:
    """A whole registry."""

    def __init__(
        self,
        config: RegistryConfig,
        storage: Storage,
        service: Service,
        dispatcher: Dispatcher,
        log: AccessLog,
    ) -> None:
        self._config = config
        self._storage = storage
        self._service = service
        self._dispatcher = dispatcher
        self._log = log
        self._listeners = Listeners()
        service.metrics.add_source(
            "connections", "gauge", "Open connections", lambda: {(): self._listeners.count}
        )

    async def start(self) -> list[Address]:
        """Where clients can reach it. Raises Unavailable, InvalidArgument."""
        self._service.events.start()
        self._storage.start()
        config = self._config
        if config.metrics_address is not None:
            await self._listeners.listen(config.metrics_address, self._serve_metrics)
        return await self._listeners.listen(
            config.address, self._dispatcher.handle, _tls_of(config)
        )

    async def close(self) -> None:
        """Requests under way may end, for a moment; uploads keep what has come."""
        await self._listeners.close(_DRAIN_S)
        await self._service.events.close(_HOOKS_S)
        self._log.flush()
        await run_blocking(self._storage.close)

    async def _serve_metrics(self, request: HttpRequest) -> HttpResponse:
        if request.target.partition("?")[0] != "/metrics" or request.method not in ("GET", "HEAD"):
            return answer_to(PathUnknown("only GET /metrics is served here"), "metrics")
        return metrics_answer(self._service.metrics)


def build(config: RegistryConfig, access_log: int | None) -> Server:
    """Makes a server; nothing runs yet. Raises InvalidArgument."""
    metrics = Metrics()
    headers = {} if config.webhook_headers is None else read_headers(str(config.webhook_headers))
    events = Events([Hook(url, headers) for url in config.webhooks])
    for name in ("delivered", "dropped"):
        metrics.add_source(
            f"events_{name}_total",
            "counter",
            f"Events {name} by web hooks",
            partial(_event_count, events, name),
        )
    gate = _gate_of(config)
    storage = Storage(config.storage)
    _add_quotas(metrics, config, storage)
    service = Service(storage.registry, gate, events, metrics, read_only=config.read_only)
    log = AccessLog(access_log)
    dispatcher = Dispatcher(
        service,
        log,
        tokens=TokenEndpoint(gate, gate.tokens) if gate.tokens is not None else None,
        pages=Pages(service),
        serves_metrics=config.metrics_address is None,
        checks_host=_host_check(config),
    )
    return Server(config, storage, service, dispatcher, log)


def _event_count(events: Events, name: str) -> dict[Labels, float]:
    return {(): events.counts[name]}


def _add_quotas(metrics: Metrics, config: RegistryConfig, storage: Storage) -> None:
    """What is limited, by prefix of repositories; "" is the whole registry."""
    limits = dict(config.storage.limits.prefixes)
    if config.storage.limits.total is not None:
        limits[""] = config.storage.limits.total
    usage = storage.store.usage

    def used() -> dict[Labels, float]:
        return {(("prefix", prefix),): usage.used(prefix) or 0 for prefix in limits}

    def allowed() -> dict[Labels, float]:
        return {(("prefix", prefix),): limit for prefix, limit in limits.items()}

    if limits:
        metrics.add_source("quota_used_bytes", "gauge", "What counts against a quota", used)
        metrics.add_source("quota_bytes", "gauge", "Quotas", allowed)


def _gate_of(config: RegistryConfig) -> Gate:
    htpasswd = None if config.htpasswd is None else Htpasswd(config.htpasswd)
    if config.policy is not None:
        policy = read_policy(config.policy)
    else:
        policy = open_to(SIGNED_IN if htpasswd is not None else EVERYBODY)
    tokens = None
    if config.uses_tokens:
        key = read_key(config.token_key or config.own_root / "token.key")
        tokens = TokenMaker(key, urlsplit(config.public_url).netloc or REALM)
    is_secure = config.tls is not None or config.self_signed
    return Gate(policy, htpasswd, tokens, public_url=config.public_url, is_secure=is_secure)


def _tls_of(config: RegistryConfig) -> ssl.SSLContext | None:
    if config.self_signed:
        from estiba.registry.selfsigned import default_names, ensure_certificate

        names = config.self_signed_names or default_names(config.address.host)
        made = ensure_certificate(config.own_root / "tls", names)
        _log.info("%s", made.advice(names[0], config.address.port))
        return tls_context(made.certificate, made.key, None)
    if config.tls is None:
        return None
    return tls_context(config.tls.certificate, config.tls.key, config.tls.client_ca)


def _host_check(config: RegistryConfig) -> Callable[[str], bool]:
    """Whoever serves anybody on loopback must not be reached by a web page under its own name."""
    if config.htpasswd is not None or not config.address.is_loopback:
        return lambda _: True

    def check(host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            if name == "localhost" or name in config.allowed_hosts:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    return check
