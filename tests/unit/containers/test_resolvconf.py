from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.records import make_record

from estiba.containers import resolvconf
from estiba.containers.resolvconf import NAME, Resolver
from estiba.model.container import HostConfig


@pytest.fixture
def served() -> set[str]:
    return set()


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: set[str]) -> Resolver:
    host = tmp_path / "host"
    host.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(resolvconf, "HOSTS_FILE", host)
    return Resolver(dns=["192.0.2.8"], dns_options=["edns0"], has_names=lambda each: each in served)


def test_a_container_that_gets_names_is_told_in_place(
    tmp_path: Path, resolver: Resolver, served: set[str]
) -> None:
    record = make_record()
    resolver.write(tmp_path, record)
    path = tmp_path / NAME
    assert path.read_text() == "nameserver 192.0.2.8\noptions edns0\n"
    before = path.stat().st_ino
    assert not resolver.asks_here(tmp_path)
    served.add(record.id)
    resolver.refresh(tmp_path, record)
    assert resolver.asks_here(tmp_path)
    assert path.read_text() == "nameserver 127.0.0.11\noptions edns0 ndots:0\n"
    assert path.stat().st_ino == before
    served.clear()
    resolver.refresh(tmp_path, record)
    assert path.read_text() == "nameserver 192.0.2.8\noptions edns0\n", "a shorter text is cut"


def test_what_the_user_wrote_stays(tmp_path: Path, resolver: Resolver, served: set[str]) -> None:
    record = make_record()
    resolver.write(tmp_path, record)
    (tmp_path / NAME).write_text("nameserver 192.0.2.77\n")
    served.add(record.id)
    resolver.refresh(tmp_path, record)
    assert (tmp_path / NAME).read_text() == "nameserver 192.0.2.77\n"


def test_a_file_without_end_is_not_read_whole(
    tmp_path: Path, resolver: Resolver, served: set[str]
) -> None:
    """The container's root can make it any size; the engine reads it at each start."""
    record = make_record()
    served.add(record.id)
    resolver.write(tmp_path, record)
    os.truncate(tmp_path / NAME, 1 << 40)
    assert resolver.asks_here(tmp_path)
    with pytest.raises(OSError, match="too large"):
        resolver.refresh(tmp_path, record)


def test_a_container_that_has_no_file_yet(tmp_path: Path, resolver: Resolver) -> None:
    resolver.refresh(tmp_path, make_record())
    assert not (tmp_path / NAME).exists()


def test_a_link_in_its_place_is_not_followed(
    tmp_path: Path, resolver: Resolver, served: set[str]
) -> None:
    record = make_record()
    resolver.write(tmp_path, record)
    victim = tmp_path / "victim"
    os.rename(tmp_path / NAME, victim)
    os.symlink(victim, tmp_path / NAME)
    served.add(record.id)
    with pytest.raises(OSError, match="symbolic link"):
        resolver.refresh(tmp_path, record)
    assert "127.0.0.11" not in victim.read_text()


def test_what_a_container_wishes_goes_before_the_daemons(resolver: Resolver) -> None:
    assert resolver.wishes(HostConfig()).servers == ("192.0.2.8",)
    own = HostConfig(dns=["192.0.2.9"], dns_options=["ndots:3"])
    assert resolver.wishes(own).servers == ("192.0.2.9",)
    assert resolver.wishes(own).options == ("ndots:3",)
