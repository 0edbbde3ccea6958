"""Headers that are written: read back as they were meant, here and by GNU tar and Python."""

from __future__ import annotations

import io
import itertools
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estiba.model.errors import InvalidArgument
from estiba.storage.tar import Entry, Kind, TarReader
from estiba.storage.tarheader import END, Member, header, sparse_map

NAMES = [
    b"x" * first + b"/" + b"y" * last + slash
    for first in (1, 99, 154, 155, 156, 300)
    for last in (1, 98, 99, 100, 101, 300)
    for slash in (b"", b"/")
]
TIMES = (0, 10**9, -5 * 10**9, -5_500_000_000, 1_234_567_890_123_456_789, 2**33 * 10**9)


def read(members: list[Member], xattrs: dict[bytes, bytes] | None = None) -> list[Entry]:
    archive = b"".join(header(member, xattrs) for member in members) + END
    return list(TarReader(io.BytesIO(archive)))


def kind_of(name: bytes) -> Kind:
    return Kind.DIRECTORY if name.endswith(b"/") else Kind.FILE


def test_what_is_written_is_read() -> None:
    members = [
        Member(name, kind_of(name), 0o4755, uid, gid, mtime_ns=time)
        for name, (uid, gid), time in itertools.product(
            NAMES, ((0, 0), (2**21 - 1, 2**21), (2**32 - 2, 7)), TIMES
        )
    ]
    for member, entry in zip(members, read(members), strict=True):
        assert (entry.name, entry.kind, entry.mode) == (member.name, member.kind, 0o4755)
        assert (entry.uid, entry.gid, entry.mtime_ns) == (member.uid, member.gid, member.mtime_ns)


def test_links_devices_attributes_and_sizes() -> None:
    for length in (1, 100, 101, 4000):
        (link,) = read([Member(b"l", Kind.SYMLINK, 0o777, link=b"t" * length)])
        assert (link.kind, link.link) == (Kind.SYMLINK, b"t" * length)
    (device,) = read([Member(b"d", Kind.BLOCK, 0o600, device=(4095, 1048575))])
    assert (device.major, device.minor) == (4095, 1048575)
    values = {b"user.a": b"", b"user.b": b"\0=\n 1", b"user.c": bytes(range(256)) * 4}
    (file,) = read([Member(b"f", Kind.FILE)], values)
    assert file.xattrs == values
    for size in (2**33 - 1, 2**33):
        archive = io.BytesIO(header(Member(b"f", Kind.FILE, size=size)))
        assert next(iter(TarReader(archive))).size == size


@pytest.mark.parametrize("length", range(1, 120))
def test_records_of_any_length(length: int) -> None:
    """The length of a pax record counts its own digits."""
    value = {b"user.x": b"v" * length * 9}
    assert read([Member(b"f", Kind.FILE)], value)[0].xattrs == value


def test_others_read_the_same() -> None:
    names = [*NAMES, "ñandú".encode() * 40, "año".encode(), b"\xff" * 120]
    archive = b"".join(
        header(Member(name, kind_of(name), 0o644, 5, 2**31, mtime_ns=1_500_000_000))
        for name in names
    ) + END  # fmt: skip
    listed = subprocess.run(["tar", "t", "--quoting-style=literal"], input=archive,
                            capture_output=True, check=True)  # fmt: skip
    assert (listed.stderr, listed.stdout.splitlines()) == (b"", names)
    with tarfile.open(fileobj=io.BytesIO(archive)) as python:
        for name, info in zip(names, python, strict=True):
            assert info.name.encode("utf-8", "surrogateescape") == name.rstrip(b"/")
            assert (info.gid, info.mtime) == (2**31, 1.5)


PARTS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=8)


@given(gaps=PARTS, tail=st.integers(0, 3000))
def test_holes_are_read_as_they_were_written(gaps: list[tuple[int, int]], tail: int) -> None:
    """By this reader and by Python's."""
    parts, position, data = [], 0, []
    for number, (gap, length) in enumerate(gaps):
        parts.append((position + gap, length))
        position += gap + length
        data.append(bytes([number + 1]) * length)
    size = position + tail
    parts.append((size, 0))
    plain = bytearray(size)
    for (offset, length), piece in zip(parts, data, strict=False):
        plain[offset : offset + length] = piece
    content = sparse_map(parts) + b"".join(data)
    member = Member(b"sparse", Kind.FILE, 0o644, size=size)
    archive = header(member, sparse=parts) + content + bytes(-len(content) % 512) + END
    reader = TarReader(io.BytesIO(archive))
    (entry,) = [_with_data(one, reader) for one in reader]
    assert entry == (b"sparse", size, bytes(plain))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile("sparse")
        assert file is not None
        assert file.read() == plain


def _with_data(entry: Entry, reader: TarReader) -> tuple[bytes, int, bytes]:
    plain = bytearray(entry.size)
    for offset, length in entry.sparse or []:
        while length:
            piece = reader.data(length)
            plain[offset : offset + len(piece)] = piece
            offset, length = offset + len(piece), length - len(piece)
    return entry.name, entry.size, bytes(plain)


def test_the_last_padding_may_be_missing_but_no_data() -> None:
    whole = header(Member(b"one", Kind.FILE, 0o644, 0, 0, size=5)) + b"first"
    for archive in (whole, whole + bytes(100), whole + bytes(507), whole + bytes(507) + END):
        reader = TarReader(io.BytesIO(archive))
        assert [(entry.name, bytes(reader.data())) for entry in reader] == [(b"one", b"first")]
        assert reader.trailer == archive[len(whole) :]
    with pytest.raises(InvalidArgument, match="cut off"):
        list(TarReader(io.BytesIO(whole[:-1])))
