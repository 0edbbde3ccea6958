"""The contract of drivers, on files and on a real server that speaks S3."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from tests.support.s3server import S3Server
from tests.unit.registry_storage.conftest import MakeDriver

from estiba.model.errors import Conflict
from estiba.registry.storage.file_driver import FileDriver
from estiba.registry.storage.ports import Driver
from estiba.registry.storage.s3_driver import S3Driver

MIB = 1 << 20


def read_all(driver: Driver, key: str, offset: int = 0) -> bytes:
    with contextlib.closing(driver.open(key, offset)) as opened:
        data = b""
        while piece := opened.read(MIB):
            data += piece
        assert len(data) == max(opened.size - offset, 0)
        return data


def names(driver: Driver, prefix: str) -> list[str]:
    return sorted(f"{e.name}{'' if e.stat else '/'}" for e in driver.list(prefix))


def test_what_is_written_can_be_read(driver: Driver) -> None:
    driver.write("a/b/c", b"hello")
    assert driver.read("a/b/c") == b"hello"
    assert read_all(driver, "a/b/c") == b"hello"
    assert driver.stat("a/b/c").size == 5
    assert abs(driver.stat("a/b/c").mtime - time.time()) < 60
    driver.write("a/b/c", b"other")
    assert driver.read("a/b/c") == b"other"
    driver.write("a/b/empty", b"")
    assert driver.read("a/b/empty") == b""


def test_reading_from_an_offset(driver: Driver) -> None:
    driver.write("a/b", b"0123456789")
    assert read_all(driver, "a/b", 4) == b"456789"
    assert read_all(driver, "a/b", 10) == b""
    assert read_all(driver, "a/b", 99) == b""


def test_a_limit_bounds_what_is_read(driver: Driver) -> None:
    driver.write("a/b", b"0123456789")
    assert driver.read("a/b", limit=10) == b"0123456789"
    with pytest.raises(OSError, match="over 9 bytes"):
        driver.read("a/b", limit=9)


def test_what_is_missing_says_so(driver: Driver) -> None:
    driver.write("a/b/c", b"")
    for key in ("x", "a/b", "a/b/x", "a/b/c/d"):
        with pytest.raises(FileNotFoundError):
            driver.stat(key)
        with pytest.raises(FileNotFoundError):
            driver.read(key) if key != "a/b" else driver.open(key)
        with pytest.raises(FileNotFoundError):
            driver.open(key)
        with pytest.raises(FileNotFoundError):
            driver.open(key, 3)
        with pytest.raises(FileNotFoundError):
            driver.move(key, "y") if key != "a/b" else driver.open(key)
        assert list(driver.list(f"{key}/none")) == []
        driver.delete(key)
    driver.delete_tree("x/y")
    assert driver.read("a/b/c") == b""


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a/.b", "a\0b", "a/b\n", "a" * 2000]
)
def test_no_key_leads_out(driver: Driver, key: str) -> None:
    for operation in (
        driver.read, driver.open, driver.stat, driver.delete, driver.delete_tree,
        driver.append, driver.seal, driver.upload_size, lambda key: list(driver.list(key)),
        lambda key: driver.write(key, b""), lambda key: driver.move(key, "b"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not a key"):
            operation(key)
    driver.write("here", b"")
    with pytest.raises(ValueError, match="not a key"):
        driver.move("here", key)


def test_a_list_is_one_level(driver: Driver) -> None:
    for key in ("r/a/x", "r/a/y/z", "r/ab/x", "r/b", "q/a"):
        driver.write(key, b"12")
    assert names(driver, "r") == ["a/", "ab/", "b"]
    assert names(driver, "r/a") == ["x", "y/"]
    assert [e.stat.size for e in driver.list("r") if e.stat] == [2]
    assert sorted(key for key, _ in driver.walk("r")) == ["r/a/x", "r/a/y/z", "r/ab/x", "r/b"]
    assert {stat.size for _, stat in driver.walk("r/a")} == {2}
    assert list(driver.walk("none")) == []


def test_a_long_list_comes_in_pages_and_goes_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("estiba.registry.storage.s3_driver._PAGE", 4)
    for number in range(22):
        driver.write(f"r/n/{number:02}", b"")
    assert names(driver, "r/n") == [f"{number:02}" for number in range(22)]
    driver.write("r/other", b"")
    driver.delete_tree("r/n")
    assert names(driver, "r/n") == []
    assert names(driver, "r") == ["other"]


def test_a_prefix_goes_with_its_last_object(driver: Driver) -> None:
    driver.write("r/a/b/c", b"")
    driver.write("r/a/d", b"")
    driver.delete("r/a/b/c")
    assert names(driver, "r/a") == ["d"]
    driver.move("r/a/d", "s/d")
    assert names(driver, "r") == []
    driver.delete("s/d")
    driver.write("r/a/b/c", b"again")
    assert driver.read("r/a/b/c") == b"again"


def test_moving_replaces(driver: Driver) -> None:
    driver.write("a", b"1")
    driver.write("b/c", b"2")
    driver.move("a", "b/c")
    assert driver.read("b/c") == b"1"
    with pytest.raises(FileNotFoundError):
        driver.stat("a")


def test_an_upload_goes_on_in_the_next_process(make_driver: MakeDriver) -> None:
    driver, key, data = make_driver(), "u/1/data", b""
    assert driver.upload_size(key) == 0
    for piece in (b"x", b"y" * 100, b"", os.urandom(9 * MIB), b"z", os.urandom(8 * MIB), b"end"):
        appender = driver.append(key)
        assert appender.size == len(data)
        view = memoryview(piece)
        for first in range(0, len(piece), MIB):
            appender.write(view[first : first + MIB])
        data += piece
        assert appender.size == len(data)
        appender.close()
        assert driver.upload_size(key) == len(data)
        driver = make_driver()
        assert driver.upload_size(key) == len(data)
    driver.seal(key)
    driver = make_driver()
    driver.seal(key)
    assert driver.upload_size(key) == len(data)
    assert read_all(driver, key) == data
    driver.move(key, "blobs/1")
    driver.delete_tree("u/1")
    assert names(driver, "u") == []
    assert read_all(driver, "blobs/1") == data


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 16 * MIB])
def test_an_upload_in_one_go(driver: Driver, size: int) -> None:
    data = os.urandom(size)
    if size:
        appender = driver.append("u/data")
        appender.write(data)
        appender.close()
    driver.seal("u/data")
    assert read_all(driver, "u/data") == data


def test_a_large_object_moves(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estiba.registry.storage.s3_driver._COPY_PART", 5 * MIB)
    data = os.urandom(MIB) * 11
    driver.write("a/large", data)
    driver.move("a/large", "b/large")
    assert read_all(driver, "b/large") == data


def test_an_upload_that_is_given_up_leaves_nothing(make_driver: MakeDriver) -> None:
    driver = make_driver()
    appender = driver.append("u/1/data")
    appender.write(os.urandom(9 * MIB))
    appender.close()
    driver.delete_tree("u/1")
    assert names(driver, "u") == []
    assert make_driver().upload_size("u/1/data") == 0


def test_writers_and_removers_of_one_prefix(driver: Driver) -> None:
    """A directory that empties under a writer comes back."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(100 if driver.local else 5):
                driver.write(f"r/deep/{number}/x", b"%d" % turn)
                assert driver.read(f"r/deep/{number}/x") == b"%d" % turn
                driver.delete(f"r/deep/{number}/x")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(driver, "r") == []


def test_a_file_can_be_sent_by_its_descriptor(tmp_path: Path) -> None:
    with contextlib.closing(FileDriver(tmp_path)) as driver:
        driver.write("a/b", b"hello")
        with contextlib.closing(driver.open("a/b")) as opened:
            assert opened.fd is not None
            assert os.pread(opened.fd, 10, 0) == b"hello"


def test_a_root_belongs_to_one_process(tmp_path: Path) -> None:
    with (
        contextlib.closing(FileDriver(tmp_path)),
        pytest.raises(Conflict, match="another registry serves"),
    ):
        FileDriver(tmp_path)
    FileDriver(tmp_path).close()


def test_symlinks_in_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    with contextlib.closing(FileDriver(tmp_path / "root")) as driver:
        (tmp_path / "root/a").symlink_to(outside)
        (tmp_path / "root/file").symlink_to(outside / "secret")
        for attempt in (
            lambda: driver.read("a/secret"), lambda: driver.read("file"),
            lambda: driver.write("a/x", b""), lambda: driver.stat("file"),
            lambda: driver.append("a/x"), lambda: driver.append("file"),
            lambda: driver.move("a/secret", "b"), lambda: list(driver.list("a")),
            lambda: driver.delete("a/secret"), lambda: driver.delete_tree("a/secret"),
        ):  # fmt: skip
            with contextlib.suppress(OSError):
                assert attempt() in (None, [])
        assert names(driver, "estiba") == ["tmp/"]
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    FileDriver(tmp_path).close()
    (tmp_path / "estiba/tmp/half").write_text("x")
    (tmp_path / "estiba/tmp/tree/below").mkdir(parents=True)
    with contextlib.closing(FileDriver(tmp_path)) as driver:
        assert names(driver, "estiba/tmp") == []


def test_a_part_that_was_sent_before_a_crash_counts(s3: S3Server) -> None:
    """The tail of before no longer fits then; the parts say where the upload ends."""
    settings = s3.settings()
    driver = S3Driver(settings)
    appender = driver.append("u/data")
    appender.write(b"a" * 10)
    appender.close()
    appender = driver.append("u/data")
    appender.write(b"b" * (9 * MIB))
    # No close: the process dies here.
    after = S3Driver(settings)
    size = after.upload_size("u/data")
    assert size == 8 * MIB
    going_on = after.append("u/data")
    going_on.write(b"c" * 10)
    going_on.close()
    after.seal("u/data")
    assert read_all(after, "u/data") == b"a" * 10 + b"b" * (8 * MIB - 10) + b"c" * 10


def test_a_download_can_be_redirected(s3: S3Server) -> None:
    driver = S3Driver(s3.settings(redirect=True))
    driver.write("a/b", b"x")
    address = driver.location("a/b", method="GET")
    assert address is not None and address.startswith(s3.address) and "Signature" in address
    assert S3Driver(s3.settings()).location("a/b", method="GET") is None


def test_a_server_that_is_gone_is_an_error_of_the_host() -> None:
    from estiba.registry.storage.s3_driver import S3Settings

    settings = S3Settings("b", endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    with pytest.raises(OSError, match="does not answer"):
        S3Driver(settings).stat("a")
