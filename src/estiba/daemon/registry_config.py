"""The settings that say how registries are reached."""

from __future__ import annotations

import os
from pathlib import Path

from estiba.distribution.proxies import Proxies
from estiba.distribution.settings import DEFAULT_CERTS_DIRS, RegistrySettings
from estiba.model.reference import DEFAULT_DOMAIN


def registry_settings(merged: dict[str, object]) -> RegistrySettings:
    """Raises InvalidArgument for a mirror that is no URL."""

    def many(name: str) -> list[str]:
        value = merged.get(name, [])
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]

    mirrors: dict[str, tuple[str, ...]] = {}
    for item in many("registry-mirror"):
        host, equals, url = item.partition("=")
        if not equals or "://" in host:
            host, url = DEFAULT_DOMAIN, item
        mirrors[host] = (*mirrors.get(host, ()), url)
    given = Proxies.from_environment(os.environ)
    settings = RegistrySettings(
        certs_dirs=tuple(map(Path, many("registry-certs-dir"))) or DEFAULT_CERTS_DIRS,
        insecure=tuple(many("insecure-registry")),
        mirrors=mirrors,
        proxies=Proxies(
            str(merged.get("http-proxy", given.http)),
            str(merged.get("https-proxy", given.https)),
            str(merged.get("no-proxy", given.bypass)),
        ),
        attempts=max(1, int(str(merged.get("max-download-attempts", "5")))),
    )
    for urls in mirrors.values():
        for url in urls:
            settings.mirror(url)
    return settings
