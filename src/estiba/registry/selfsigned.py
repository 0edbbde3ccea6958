"""`--self-signed`: a CA of one's own in the registry's root, and a certificate that it signed.

The CA stays for ten years, so that clients are told once; the certificate is made anew when its
names change or its end comes near.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from estiba.kernel.files import write_atomic
from estiba.model.errors import InvalidArgument

_CA_LIFE = timedelta(days=3650)
_LIFE = timedelta(days=397)
_RENEWED_BEFORE = timedelta(days=30)
_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Made:
    """Paths of PEM files."""

    ca: Path
    certificate: Path
    key: Path

    def advice(self, name: str, port: int) -> str:
        """What to do for clients to trust it."""
        host = f"{name}:{port}"
        return (
            f"TLS by a CA of its own: for clients, copy {self.ca} to "
            f"/etc/docker/certs.d/{host}/ca.crt (docker) or "
            f"/etc/containers/certs.d/{host}/ca.crt (podman, skopeo)"
        )


def default_names(host: str) -> list[str]:
    """What clients on this host and near it may call the server."""
    names = [host] if host and not _is_unspecified(host) else []
    return list(dict.fromkeys([*names, socket.gethostname(), "localhost", "127.0.0.1", "::1"]))


def ensure_certificate(directory: Path, names: list[str]) -> Made:
    """What is there, or made now. Raises InvalidArgument when it cannot be."""
    made = Made(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ca, ca_key = _ensure_ca(made.ca, directory / "ca.key")
        if not _is_good(made, ca, names):
            _make(made, ca, ca_key, names)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"--self-signed cannot use {directory}: {error}") from error
    return made


def _ensure_ca(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if path.exists() and key_path.exists():
        loaded = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_path} is not a key of ours")
        return x509.load_pem_x509_certificate(path.read_bytes()), loaded
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"estiba registry of {socket.gethostname()}"[:64])]
    )
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(subject, subject, key, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomic(key_path, _pem(key))
    write_atomic(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return certificate, key


def _make(
    made: Made, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, names: list[str]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        _builder(subject, ca.subject, key, _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(server, critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_atomic(made.key, _pem(key))
    write_atomic(made.certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _is_good(made: Made, ca: x509.Certificate, names: list[str]) -> bool:
    """Whether the certificate fits its key, the CA and the names, for a while yet."""
    if not made.certificate.exists() or not made.key.exists():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
        key = serialization.load_pem_private_key(made.key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(ca)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except Exception:
        return False
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return False
    is_pair = key.public_key() == certificate.public_key()
    lasts = certificate.not_valid_after_utc > datetime.now(UTC) + _RENEWED_BEFORE
    return is_pair and lasts and list(extension.value) == _general_names(names)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: list[str]) -> list[x509.GeneralName]:
    made: list[x509.GeneralName] = []
    for name in names:
        try:
            made.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            made.append(x509.DNSName(name))
    return made


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
