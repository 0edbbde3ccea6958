"""Genuine registries with roots and ports of their own, and whom they trust.

`GenuineRegistry` is Debian's docker-registry: plain or with TLS, open, with passwords, or with
bearer tokens of a `TokenService`.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import datetime
import ipaddress
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID

from tests.support.daemon import DEADLINE_S, wait_until
from tests.support.scripted import Ask, Reply, ScriptedServer, scripted

Json = dict[str, object]


class Authority:
    """A certificate authority that lasts as long as a test."""

    def __init__(self, root: Path, name: str = "authority") -> None:
        self.root = root
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._subject, self._key.public_key())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        certificate = builder.add_extension(usage, True).sign(self._key, hashes.SHA256())
        self.certificate = root / f"{name}.crt"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Files of a certificate for `hosts`, names or addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key())
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, False)
        signed = builder.sign(self._key, hashes.SHA256())
        files = self.root / f"{name}.cert", self.root / f"{name}.key"
        files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(_pem(key))
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(own, False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def bcrypt(password: str) -> str:
    """As `htpasswd -B` writes it, by the C library."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    made = crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu")
    assert isinstance(made, bytes)
    return made.decode()


class TokenService:
    """Gives bearer tokens, signed as docker-registry wants them, to `users`.

    Everybody may pull from `library/…`; users may do anything. The refresh token of a user is
    `refresh-NAME`.
    """

    issuer, service = "estiba-test", "registry.test"

    def __init__(self, root: Path, users: Mapping[str, str]) -> None:
        self._users = dict(users)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.issuer)])
        now = datetime.datetime.now(datetime.UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = root / "tokens.crt"
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self._x5c = base64.b64encode(signed.public_bytes(serialization.Encoding.DER)).decode()
        self.life_s = 300

    def __call__(self, ask: Ask) -> Reply:
        query = ask.body.decode() if ask.method == "POST" else urllib.parse.urlsplit(ask.path).query
        fields = urllib.parse.parse_qs(query)
        user = self._user(ask, fields)
        if user is None:
            return Reply(status=401, body=b'{"details":"incorrect username or password"}')
        scopes = " ".join(fields.get("scope", [])).split()
        answer: Json = {"token": self.token(user, scopes), "expires_in": self.life_s}
        if user and fields.get("offline_token") == ["true"]:
            answer["refresh_token"] = f"refresh-{user}"
        return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(answer).encode())

    def _user(self, ask: Ask, fields: Mapping[str, list[str]]) -> str | None:
        """Empty for nobody, None for wrong credentials."""
        if fields.get("grant_type") == ["refresh_token"]:
            user = fields["refresh_token"][0].removeprefix("refresh-")
            return user if user in self._users else None
        given = ask.header("Authorization")
        if not given:
            return ""
        user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        return user if self._users.get(user) == password else None

    def token(self, user: str, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            wanted = actions.split(",")
            allowed = wanted if user else [a for a in wanted if a == "pull" and "library/" in name]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": user, "aud": self.service, "access": access}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + self.life_s, "jti": str(now)}
        head = _base64url(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}).encode())
        signed = f"{head}.{_base64url(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class GenuineRegistry:
    """`host` is `ADDRESS:PORT`; the port is chosen at the first start."""

    def __init__(
        self,
        root: Path,
        *,
        certificate: tuple[Path, Path] | None = None,
        clients: Path | None = None,
        users: Mapping[str, str] | None = None,
        auth: Json | None = None,
        storage: Json | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """`auth` is that section of the configuration; so is `storage`, instead of files.

        `clients` is an authority that vouches for those who may use it.
        """
        self.address = address
        self.root = root
        self.log = root / "registry.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        http: Json = {"addr": f"{address}:0", "host": ""}
        if certificate is not None:
            tls: Json = {"certificate": str(certificate[0]), "key": str(certificate[1])}
            http["tls"] = tls | ({"clientcas": [str(clients)]} if clients else {})
        root.mkdir(parents=True, exist_ok=True)
        if users is not None:
            passwords = root / "htpasswd"
            lines = (f"{name}:{bcrypt(password)}\n" for name, password in users.items())
            passwords.write_text("".join(lines))
            auth = {"htpasswd": {"realm": "test", "path": str(passwords)}}
        place = storage or {"filesystem": {"rootdirectory": str(root / "data")}}
        storage = {
            **place,
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        }
        config: Json = {"version": "0.1", "log": {"level": "info"}, "storage": storage}
        config |= {"http": http} | ({"auth": auth} if auth else {})
        # JSON is YAML.
        (root / "config.yml").write_text(json.dumps(config))

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("docker-registry") is not None

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"

    def start(self) -> None:
        """Once more after `stop`: on the same port."""
        if self.port:
            config = self.root / "config.yml"
            config.write_text(config.read_text().replace(f"{self.address}:0", self.host))
        self.log.unlink(missing_ok=True)
        command = ["docker-registry", "serve", str(self.root / "config.yml")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = int(wait_until(self._listens, what="docker-registry"))

    def _listens(self) -> str | None:
        assert self.process is not None
        assert self.process.poll() is None, f"docker-registry ended:\n{self.log.read_text()}"
        match = re.search(r"listening on [0-9.]+:([0-9]+)", self.log.read_text())
        return match[1] if match else None

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE_S)


@contextlib.contextmanager
def genuine_registry(
    root: Path,
    *,
    certificate: tuple[Path, Path] | None = None,
    clients: Path | None = None,
    users: Mapping[str, str] | None = None,
    auth: Json | None = None,
    address: str = "127.0.0.1",
) -> Iterator[GenuineRegistry]:
    registry = GenuineRegistry(
        root, certificate=certificate, clients=clients, users=users, auth=auth, address=address
    )
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


@contextlib.contextmanager
def token_registry(
    root: Path, users: Mapping[str, str]
) -> Iterator[tuple[GenuineRegistry, ScriptedServer]]:
    """One that wants bearer tokens, and the service that gives them."""
    service = TokenService(root, users)
    with scripted(service) as server:
        auth: Json = {
            "token": {
                "realm": f"http://{server.host}/token",
                "service": service.service,
                "issuer": service.issuer,
                "rootcertbundle": str(service.certificate),
            }
        }
        with genuine_registry(root / "registry", auth=auth) as registry:
            yield registry, server
