"""The registry's command line; every flag is named in docs/registry.md."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from estiba.model.errors import InvalidArgument
from estiba.registry.listeners import Address, parse_address
from estiba.registry.storage.settings import (
    StorageSettings,
    add_serving_flags,
    add_storage_flags,
    storage_settings,
)

DEFAULT_ADDRESS = "127.0.0.1:5000"
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; with `client_ca` clients must show a certificate that it signed."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Everything the wiring needs, checked."""

    root: Path
    storage: StorageSettings
    address: Address
    metrics_address: Address | None = None
    htpasswd: Path | None = None
    policy: Path | None = None
    uses_tokens: bool = False
    token_key: Path | None = None
    public_url: str = ""
    allow_anonymous: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    tls: TlsFiles | None = None
    self_signed: bool = False
    self_signed_names: list[str] = field(default_factory=list)
    read_only: bool = False
    webhooks: list[str] = field(default_factory=list)
    webhook_headers: Path | None = None
    access_log: str = "-"
    log_level: str = "info"

    @property
    def own_root(self) -> Path:
        """Keys and certificates, beside what the images are stored in."""
        return self.root / "estiba"


def parser() -> argparse.ArgumentParser:
    """Every flag, with its help."""
    cli = argparse.ArgumentParser(prog="estiba registry", description="A registry of your own.")
    commands = cli.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a registry",
        description="Serve a registry (OCI distribution-spec 1.1, Docker Registry HTTP API V2).",
        argument_default=argparse.SUPPRESS,
    )
    _add_flags(serve)
    add_storage_flags(serve)
    add_serving_flags(serve)
    collect = commands.add_parser(
        "gc",
        help="collect garbage once, in a root that nobody serves or in a bucket",
        argument_default=argparse.SUPPRESS,
    )
    collect.add_argument("--root", type=Path, required=True, metavar="DIR", help="as of serve")
    add_storage_flags(collect)
    return cli


def _add_flags(serve: argparse.ArgumentParser) -> None:
    add = serve.add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="where everything is stored")
    add("--addr", metavar="HOST:PORT", help=f"where to listen (default {DEFAULT_ADDRESS})")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate, with its chain")
    add("--tls-key", type=Path, metavar="FILE", help="its key")
    add("--tls-client-ca", type=Path, metavar="FILE", help="clients need a certificate of this CA")
    add(
        "--self-signed",
        nargs="?",
        const="",
        metavar="NAME[,NAME…]",
        help="TLS by a CA made in the root, for these names and addresses",
    )
    add("--htpasswd", type=Path, metavar="FILE", help="people, as `htpasswd -B` writes them")
    add(
        "--auth",
        choices=("basic", "token"),
        help="how clients show who they are (default basic)",
    )
    add("--policy", type=Path, metavar="FILE", help="who may do what (TOML)")
    add("--token-key", type=Path, metavar="FILE", help="secret of the tokens (default in the root)")
    add("--public-url", metavar="URL", help="how clients reach this server, if by another name")
    add("--allow-anonymous", action="store_true", help="everybody who reaches it may do everything")
    add("--allow-host", action="append", metavar="NAME", help="Host header accepted on loopback")
    add("--read-only", action="store_true", help="refuse pushes and deletes")
    add("--webhook", action="append", metavar="URL", help="told of pushes, pulls and deletes")
    add("--webhook-headers", type=Path, metavar="FILE", help="secret headers, NAME: VALUE a line")
    add("--metrics-addr", metavar="HOST:PORT", help="serve /metrics there, and not on --addr")
    add("--access-log", metavar="FILE", help="where to, - is stdout (default), none is nowhere")
    add("--log-level", choices=LOG_LEVELS, help="of the log on stderr (default info)")


def load(arguments: argparse.Namespace) -> RegistryConfig:
    """Raises InvalidArgument naming the flag that is wrong."""
    given = vars(arguments)
    config = RegistryConfig(
        root=given["root"].absolute(),
        storage=storage_settings(given["root"].absolute(), given),
        address=parse_address(given.get("addr", DEFAULT_ADDRESS)),
        metrics_address=_optional_address(given.get("metrics_addr")),
        htpasswd=given.get("htpasswd"),
        policy=given.get("policy"),
        uses_tokens=given.get("auth") == "token",
        token_key=given.get("token_key"),
        public_url=given.get("public_url", ""),
        allow_anonymous=given.get("allow_anonymous", False),
        allowed_hosts=frozenset(name.lower() for name in given.get("allow_host", [])),
        tls=_tls(given),
        self_signed="self_signed" in given,
        self_signed_names=[name for name in given.get("self_signed", "").split(",") if name],
        read_only=given.get("read_only", False),
        webhooks=given.get("webhook", []),
        webhook_headers=given.get("webhook_headers"),
        access_log=given.get("access_log", "-"),
        log_level=given.get("log_level", "info"),
    )
    _check(config, given)
    return config


def _check(config: RegistryConfig, given: dict[str, object]) -> None:
    """What does not go together. Raises InvalidArgument."""
    if "auth" in given and config.htpasswd is None:
        raise InvalidArgument("--auth needs --htpasswd FILE: it says who there is")
    if config.allow_anonymous and config.htpasswd is not None:
        raise InvalidArgument(
            "--allow-anonymous and --htpasswd contradict each other: let everybody read with "
            "--policy, where `anonymous` is everybody"
        )
    mutual = config.tls is not None and config.tls.client_ca is not None
    is_open = config.htpasswd is None and not mutual and not config.allow_anonymous
    if is_open and not config.address.is_loopback:
        raise InvalidArgument(
            f"{config.address} can be reached by others, who could push and delete: use "
            "--htpasswd FILE, or --allow-anonymous if everybody may"
        )
    if config.self_signed and config.tls is not None:
        raise InvalidArgument("--self-signed and --tls-cert contradict each other: use one")
    url = urlsplit(config.public_url)
    if config.public_url and (
        url.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:\[\]-]+", url.netloc)
    ):
        raise InvalidArgument(f"invalid --public-url {config.public_url!r}: expected https://HOST")


def _tls(given: dict[str, Path]) -> TlsFiles | None:
    certificate, key = given.get("tls_cert"), given.get("tls_key")
    if certificate is None and key is None:
        if "tls_client_ca" in given:
            raise InvalidArgument("--tls-client-ca needs --tls-cert and --tls-key")
        return None
    if certificate is None or key is None:
        raise InvalidArgument("--tls-cert and --tls-key go together")
    return TlsFiles(certificate, key, given.get("tls_client_ca"))


def _optional_address(text: str | None) -> Address | None:
    return None if text is None else parse_address(text)
