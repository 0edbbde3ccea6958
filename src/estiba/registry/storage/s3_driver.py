"""Objects in a bucket that speaks S3; several instances may serve one.

Nothing is kept in the process. An upload `key` under way is, in the bucket:

    <key>.multipart        id of the multipart upload that will become <key>
    <key>.tail.<offset>    the bytes after its parts, too few for a part (5 MiB at least);
                           of no account unless the parts end at <offset>

A crash between two requests leaves the parts as the truth: the upload ends where they and a
tail that fits them end. boto3 is imported when the first driver is made.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from estiba.kernel import failpoint
from estiba.model.errors import InvalidArgument
from estiba.registry.storage.keys import check_key
from estiba.registry.storage.ports import MAX_MANIFEST_BYTES, Entry, Stat

_MIN_PART = 8 << 20
_PARTS_OF_A_SIZE = 1000
_COPY_PART = 64 << 20
_PAGE = 1000
_LOCATION_SECONDS = 1200
_MISSING = {"NoSuchKey", "NotFound", "404", "NoSuchUpload"}


@dataclass(frozen=True, slots=True)
class S3Settings:
    """`prefix` is docker-registry's `rootdirectory`. Without keys boto3 looks for them itself."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    redirect: bool = False


def client_of(settings: S3Settings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise InvalidArgument(
            "storage in S3 needs the library boto3: install estiba[s3]"
        ) from error
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region or os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=Config(
            max_pool_connections=64,
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 5},
            # Blobs have their digest; not every server knows the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        ),
    )


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    """FileNotFoundError for what is not there, OSError for every other failure."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _MISSING:
            raise FileNotFoundError(errno.ENOENT, "no such object", key) from error
        raise OSError(errno.EIO, f"the object storage refused: {error}", key) from error
    except BotoCoreError as error:
        raise OSError(errno.EIO, f"the object storage does not answer: {error}", key) from error


@dataclass(slots=True)
class OpenedObject:
    """`Opened` of an object under download."""

    body: Any
    size: int
    key: str
    fd: int | None = None

    def read(self, limit: int, /) -> bytes:
        with _translated(self.key):
            data: bytes = self.body.read(limit)
        return data

    def close(self) -> None:
        self.body.close()


@dataclass(frozen=True, slots=True)
class _State:
    """An upload as the bucket has it."""

    upload: str | None = None
    parts: tuple[dict[str, Any], ...] = ()
    parts_end: int = 0
    tail_size: int = 0
    sealed: int | None = None

    @property
    def size(self) -> int:
        return self.parts_end + self.tail_size if self.sealed is None else self.sealed


class S3Appender:
    """`Appender` that sends a part whenever enough for one has come."""

    fd = None

    def __init__(self, driver: S3Driver, key: str, state: _State) -> None:
        self._driver = driver
        self._key = key
        self._upload = state.upload
        self._number = len(state.parts)
        self._parts_end = state.parts_end
        self._buffer = bytearray()
        self._tail_begin = state.parts_end
        self._tail_size = state.tail_size
        self._changed = False
        self.size = state.size

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        if not self._changed:
            if self._tail_size:
                tail = _tail(self._key, self._tail_begin)
                self._buffer += self._driver.read(tail, limit=self._tail_size)
            self._changed = True
        self._buffer += data
        self.size += len(data)
        while len(self._buffer) >= self._part_size:
            self._send_part()

    @property
    def _part_size(self) -> int:
        """Grows with the count: 10,000 parts are the limit of S3, and not that of a blob."""
        return _MIN_PART * (1 + self._number // _PARTS_OF_A_SIZE)

    def _send_part(self) -> None:
        size = self._part_size
        with memoryview(self._buffer) as view:
            body = bytes(view[:size])
        if self._upload is None:
            self._upload = self._driver.begin_parts(self._key)
        self._driver.send_part(self._key, self._upload, self._number + 1, body)
        del self._buffer[:size]
        self._number += 1
        self._parts_end += size

    def close(self) -> None:
        if not self._changed:
            return
        self._changed = False
        if self._buffer:
            self._driver.write(_tail(self._key, self._parts_end), bytes(self._buffer))
        if self._tail_size and self._tail_begin != self._parts_end:
            self._driver.delete(_tail(self._key, self._tail_begin))
        self._tail_begin, self._tail_size = self._parts_end, len(self._buffer)
        self._buffer.clear()

    def abandon(self) -> None:
        self._changed = False
        self._buffer.clear()


def _tail(key: str, offset: int) -> str:
    return f"{key}.tail.{offset}"


def _multipart(key: str) -> str:
    return f"{key}.multipart"


class S3Driver:
    """`Driver` over a bucket."""

    local = False

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        prefix = settings.prefix.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = client_of(settings)

    def close(self) -> None:
        self._client.close()

    def check(self) -> None:
        """Raises OSError when the bucket cannot be reached."""
        with _translated(self._bucket):
            self._client.head_bucket(Bucket=self._bucket)

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def read(self, key: str, *, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """Raises OSError(EFBIG) for an object over `limit` bytes."""
        with contextlib.closing(self.open(key)) as opened:
            if opened.size > limit:
                raise OSError(errno.EFBIG, f"over {limit} bytes", key)
            return opened.read(limit)

    def open(self, key: str, offset: int = 0) -> OpenedObject:
        extra = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and offset >= (size := self.stat(key).size):
            return OpenedObject(io.BytesIO(), size, key)
        with _translated(key):
            answer = self._client.get_object(**self._where(key), **extra)
        return OpenedObject(answer["Body"], offset + int(answer["ContentLength"]), key)

    def write(self, key: str, data: bytes, *, durable: bool = True) -> None:
        with _translated(key):
            self._client.put_object(**self._where(key), Body=data)

    def stat(self, key: str) -> Stat:
        with _translated(key):
            answer = self._client.head_object(**self._where(key))
        return Stat(int(answer["ContentLength"]), answer["LastModified"].timestamp())

    def list(self, prefix: str) -> Iterator[Entry]:
        start = f"{self._prefix}{check_key(prefix)}/"
        for page in self._pages(start, Delimiter="/"):
            for common in page.get("CommonPrefixes", ()):
                yield Entry(common["Prefix"][len(start) : -1], None)
            for item in page.get("Contents", ()):
                if name := item["Key"][len(start) :]:
                    yield Entry(name, Stat(int(item["Size"]), item["LastModified"].timestamp()))

    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        for page in self._pages(f"{self._prefix}{check_key(prefix)}/"):
            for item in page.get("Contents", ()):
                found = Stat(int(item["Size"]), item["LastModified"].timestamp())
                yield item["Key"].removeprefix(self._prefix), found

    def _pages(self, start: str, **arguments: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_objects_v2")
        with _translated(start):
            yield from paginator.paginate(
                Bucket=self._bucket,
                Prefix=start,
                PaginationConfig={"PageSize": _PAGE},
                **arguments,
            )

    def delete(self, key: str) -> None:
        """Harmless when there is nothing."""
        with _translated(key):
            self._client.delete_object(**self._where(key))

    def delete_tree(self, prefix: str) -> None:
        """Deletes what is below `prefix`, and ends the multipart uploads there."""
        start = f"{self._prefix}{check_key(prefix)}/"
        names = [item["Key"] for page in self._pages(start) for item in page.get("Contents", ())]
        for name in names:
            if name.endswith(".multipart"):
                self._abort(name.removeprefix(self._prefix).removesuffix(".multipart"))
        for first in range(0, len(names), _PAGE):
            batch = [{"Key": name} for name in names[first : first + _PAGE]]
            with _translated(prefix):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True}
                )
            if answer.get("Errors"):
                raise OSError(errno.EIO, "the object storage keeps some objects", prefix)

    def _abort(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            upload = self.read(_multipart(key)).decode()
            with _translated(key):
                self._client.abort_multipart_upload(**self._where(key), UploadId=upload)

    @cached_property
    def _copying(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=_COPY_PART, multipart_chunksize=_COPY_PART, max_concurrency=8
        )

    def move(self, source: str, destination: str) -> None:
        with _translated(source):
            self._client.copy(
                self._where(source),
                **self._where(destination),
                Config=self._copying,
            )
        failpoint.hit("registry.copied")
        self.delete(source)

    # Uploads that grow.

    def _state(self, key: str) -> _State:
        """Two requests for a small upload, four and more for one with parts."""
        tails: dict[int, int] = {}
        sealed, has_parts = None, False
        start = self._prefix + check_key(key)
        for page in self._pages(start):
            for item in page.get("Contents", ()):
                name, size = item["Key"][len(start) :], int(item["Size"])
                if not name:
                    sealed = size
                elif name == ".multipart":
                    has_parts = True
                elif name.startswith(".tail.") and name[6:].isdigit():
                    tails[int(name[6:])] = size
        if sealed is not None:
            return _State(sealed=sealed)
        if not has_parts:
            return _State(tail_size=tails.get(0, 0))
        upload = self.read(_multipart(key)).decode()
        parts = tuple(self._parts(key, upload))
        end = sum(int(part["Size"]) for part in parts)
        return _State(upload, parts, end, tails.get(end, 0))

    def _parts(self, key: str, upload: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator("list_parts")
        with _translated(key):
            for page in paginator.paginate(**self._where(key), UploadId=upload):
                yield from page.get("Parts", ())

    def begin_parts(self, key: str) -> str:
        with _translated(key):
            answer = self._client.create_multipart_upload(**self._where(key))
        upload: str = answer["UploadId"]
        self.write(_multipart(key), upload.encode())
        return upload

    def send_part(self, key: str, upload: str, number: int, body: bytes) -> None:
        with _translated(key):
            self._client.upload_part(
                **self._where(key), UploadId=upload, PartNumber=number, Body=body
            )
        failpoint.hit("registry.part")

    def append(self, key: str) -> S3Appender:
        state = self._state(key)
        if state.sealed is not None:
            raise OSError(errno.EROFS, "the upload is sealed", key)
        return S3Appender(self, key, state)

    def upload_size(self, key: str) -> int:
        return self._state(key).size

    def seal(self, key: str) -> None:
        state = self._state(key)
        if state.sealed is not None:
            return
        tail = b""
        if state.tail_size:
            tail = self.read(_tail(key, state.parts_end), limit=state.tail_size)
        if state.upload is None:
            self.write(key, tail)
            return
        parts = [{"ETag": p["ETag"], "PartNumber": p["PartNumber"]} for p in state.parts]
        if tail or not parts:
            number = len(parts) + 1
            with _translated(key):
                last = self._client.upload_part(
                    **self._where(key), UploadId=state.upload, PartNumber=number, Body=tail
                )
            parts.append({"ETag": last["ETag"], "PartNumber": number})
        with _translated(key):
            self._client.complete_multipart_upload(
                **self._where(key), UploadId=state.upload, MultipartUpload={"Parts": parts}
            )

    def location(self, key: str, *, method: str) -> str | None:
        if not self._settings.redirect:
            return None
        operation = "head_object" if method == "HEAD" else "get_object"
        with _translated(key):
            address: str = self._client.generate_presigned_url(
                operation, Params=self._where(key), ExpiresIn=_LOCATION_SECONDS
            )
        return address
