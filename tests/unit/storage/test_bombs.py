"""Archives that are small and want to become large: memory and time stay within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from estiba.model.errors import EstibaError, InvalidArgument, LimitExceeded
from estiba.storage.compress import Decompressed
from estiba.storage.tar import TarReader

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def header(name: str, kind: bytes, size: int = 0, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT)


def drain(source: Decompressed) -> bytes:
    return b"".join(iter(source.read, b""))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_much_from_little_comes_in_pieces(name: str) -> None:
    whole = 96 << 20
    source = Decompressed(io.BytesIO(COMPRESSORS[name](bytes(whole))))
    sizes = [len(piece) for piece in iter(source.read, b"")]
    assert sum(sizes) == whole
    assert max(sizes) <= 36 << 20


@pytest.mark.parametrize("name", COMPRESSORS)
def test_members_padding_and_damage(name: str) -> None:
    data = random.Random(1).randbytes(300_000)
    packed = COMPRESSORS[name](data)
    assert drain(Decompressed(io.BytesIO(packed))) == data
    assert drain(Decompressed(io.BytesIO(packed + packed + bytes(5000)))) == data + data
    with pytest.raises(InvalidArgument, match="cut off"):
        drain(Decompressed(io.BytesIO(packed[:-20])))
    broken = packed[:10] + b"\xff" * 64 + packed[74:]
    with pytest.raises(InvalidArgument):
        drain(Decompressed(io.BytesIO(broken)))


class Endless:
    """The same bytes again and again."""

    def __init__(self, block: bytes, start: bytes = b"") -> None:
        self._block, self._start = block, start
        self.given = 0

    def read(self, _size: int, /) -> bytes:
        piece, self._start = self._start + self._block, b""
        self.given += len(piece)
        assert self.given < 64 << 20, "the reader does not give up"
        return piece


PAX = header("pax", b"x", 1000) + b"1000 comment=" + b"x" * 986 + b"\n" + bytes(24)
SPARSE = header("sparse", b"S")
SPARSE = SPARSE[:482] + b"\1" + SPARSE[483:]
SUM = sum(SPARSE[:148]) + 256 + sum(SPARSE[156:])
SPARSE = SPARSE[:148] + b"%06o\0 " % SUM + SPARSE[156:]


@pytest.mark.parametrize(
    "source",
    [
        Endless(PAX),
        Endless(header("g", b"g", 512) + bytes(512)),
        Endless(header("long", b"L", 60_000) + b"n" * 60_000 + bytes(416)),
        Endless(bytes(504) + b"\1" + bytes(7), SPARSE),
        Endless(bytes(512)),
    ],
    ids=["pax", "global", "long names", "sparse map", "padding"],
)
def test_endless_headers_are_given_up(source: Endless) -> None:
    with pytest.raises(LimitExceeded):
        list(TarReader(source))


@pytest.mark.parametrize("field", [(124, 12), (136, 12), (329, 8), (100, 8), (108, 8)])
@pytest.mark.parametrize("value", [b"-1", b"+7", b"1_0", b"0o7", b"8", b"\xff" * 12])
def test_numbers_are_octal_digits(field: tuple[int, int], value: bytes) -> None:
    start, length = field
    block = bytearray(header("x", tarfile.CHRTYPE))
    block[start : start + length] = value[:length].ljust(length, b"\0")
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    if start == 136 and value[0] == 0xFF:
        assert next(iter(TarReader(io.BytesIO(bytes(block))))).mtime_ns == -1_000_000_000
        return
    with pytest.raises(InvalidArgument):
        next(iter(TarReader(io.BytesIO(bytes(block)))))


def seed_archives() -> list[bytes]:
    made = []
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name in ("d/", "d/file", "x" * 90 + "/" + "y" * 60):
                info = tarfile.TarInfo(name)
                info.size = 1000
                if form == tarfile.PAX_FORMAT:
                    info.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}
                tar.addfile(info, io.BytesIO(bytes(1000)))
        made.append(buffer.getvalue())
    return made


def test_damage_of_any_kind_is_a_typed_error() -> None:
    choose = random.Random(7)
    seeds = seed_archives()
    for _ in range(2000):
        data = bytearray(choose.choice(seeds))
        for _ in range(choose.randint(1, 5)):
            block = 512 * choose.randrange(len(data) // 512)
            data[block + choose.choice((0, 100, 124, 136, 156, 257, 345))] = choose.randrange(256)
        for block in range(0, len(data), 512):
            if data[block + 257 : block + 262] == b"ustar":
                total = sum(data[block : block + 148]) + 256 + sum(data[block + 156 : block + 512])
                data[block + 148 : block + 156] = b"%06o\0 " % total
        reader = TarReader(io.BytesIO(bytes(data)))
        try:
            for _ in reader:
                while reader.data():
                    pass
        except EstibaError:
            continue


def test_frames_of_zstd_that_mean_nothing() -> None:
    """RFC 8878, 3.1.2: they may come first, last and between."""
    data = random.Random(2).randbytes(10_000)
    frame = COMPRESSORS["zstd"](data)
    nothing = bytes.fromhex("5e2a4d18 05000000") + b"hello"
    assert drain(Decompressed(io.BytesIO(nothing + frame + nothing + frame + nothing))) == data * 2
