"""What the registry's storage refuses, each with its code of distribution-spec 1.1 (errors).

RegistryError                       `code` is the spec's, `detail` goes out as JSON
├── BlobUnknown                     BLOB_UNKNOWN           404
├── UploadUnknown                   BLOB_UPLOAD_UNKNOWN    404
├── UploadInvalid                   BLOB_UPLOAD_INVALID    400
├── OffsetInvalid                   BLOB_UPLOAD_INVALID    416  a chunk out of order
├── DigestInvalid                   DIGEST_INVALID         400  bytes and digest differ
├── ManifestUnknown                 MANIFEST_UNKNOWN       404
├── ManifestInvalid                 MANIFEST_INVALID       400
├── ManifestBlobUnknown             MANIFEST_BLOB_UNKNOWN  400  it names what is not there
├── ManifestTooLarge                MANIFEST_INVALID       413
├── NameUnknown                     NAME_UNKNOWN           404
├── QuotaExceeded                   DENIED                 413
└── ReadOnly                        UNSUPPORTED            405
"""

from __future__ import annotations

from typing import ClassVar

from estiba.model.errors import (
    EstibaError,
    Forbidden,
    InvalidArgument,
    LimitExceeded,
    NotFound,
)


class RegistryError(EstibaError):
    """Root of the storage's refusals."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **detail: str | int) -> None:
        super().__init__(message)
        self.detail: dict[str, str | int] = detail


class BlobUnknown(RegistryError, NotFound):
    """The repository does not hold this blob."""

    code = "BLOB_UNKNOWN"
    status = 404


class UploadUnknown(RegistryError, NotFound):
    """There is no such upload: never begun, finished, cancelled or expired."""

    code = "BLOB_UPLOAD_UNKNOWN"
    status = 404


class UploadInvalid(RegistryError, InvalidArgument):
    """Two requests write to one upload at the same time, or it cannot go on."""

    code = "BLOB_UPLOAD_INVALID"
    status = 400


class OffsetInvalid(RegistryError, InvalidArgument):
    """A chunk does not begin where the upload ends; `offset` is where that is."""

    code = "BLOB_UPLOAD_INVALID"
    status = 416

    def __init__(self, message: str, *, offset: int) -> None:
        super().__init__(message, offset=offset)
        self.offset = offset


class DigestInvalid(RegistryError, InvalidArgument):
    """The bytes that came do not have the digest that was promised."""

    code = "DIGEST_INVALID"
    status = 400


class ManifestUnknown(RegistryError, NotFound):
    """The repository holds no manifest of this tag or digest."""

    code = "MANIFEST_UNKNOWN"
    status = 404


class ManifestInvalid(RegistryError, InvalidArgument):
    """What came is no manifest of the media type that it claims."""

    code = "MANIFEST_INVALID"
    status = 400


class ManifestBlobUnknown(RegistryError, InvalidArgument):
    """The manifest refers to a blob or manifest that the repository does not hold."""

    code = "MANIFEST_BLOB_UNKNOWN"
    status = 400


class ManifestTooLarge(RegistryError, LimitExceeded):
    """Over 4 MiB."""

    code = "MANIFEST_INVALID"
    status = 413


class NameUnknown(RegistryError, NotFound):
    """There is no such repository."""

    code = "NAME_UNKNOWN"
    status = 404


class QuotaExceeded(RegistryError, LimitExceeded):
    """The registry or the part that the repository is in would hold more than it may."""

    code = "DENIED"
    status = 413


class ReadOnly(RegistryError, Forbidden):
    """A pull-through cache takes no pushes."""

    code = "UNSUPPORTED"
    status = 405
