from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.distribution.settings import RegistrySettings
from estiba.managed.catalog import Catalog
from estiba.managed.sandbox import Paths
from estiba.model.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from estiba.store import Store
from estiba.store.events import EventBus

CONFIG = {"entrypoint": ["/x"], "interface": {"socket": "x.sock", "types": []}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "estiba.db", EventBus())
    yield store
    store.close()


def opened(root: Path, store: Store) -> Catalog:
    catalog = Catalog(Paths(root / "data", root / "exec"), store, RegistrySettings(), "1")
    catalog.open()
    return catalog


def archive() -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in (("config.json", json.dumps(CONFIG).encode()), ("rootfs/x", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return io.BytesIO(out.getvalue())


def test_the_same_tree_gives_the_same_layer_and_a_name_is_given_once(
    tmp_path: Path, store: Store
) -> None:
    catalog = opened(tmp_path, store)
    one, two = catalog.create("a", archive()), catalog.create("b", archive())
    assert one.layers == two.layers
    assert one.config_digest == two.config_digest
    with pytest.raises(AlreadyExists):
        catalog.create("a:latest", archive())
    for text in ("a", "a:latest", one.id, one.id[:12]):
        assert catalog.find(text).id == one.id
    for text in ("other", "a:1", ""):
        with pytest.raises(NotFound):
            catalog.find(text)
    with pytest.raises(InvalidArgument):
        catalog.create(f"a@{one.config_digest}", archive())


def test_the_next_start_deletes_what_no_record_names(tmp_path: Path, store: Store) -> None:
    catalog = opened(tmp_path, store)
    kept = catalog.create("kept", archive())
    content = tmp_path / "data/plugins/content"
    (content / "half/rootfs").mkdir(parents=True)
    (tmp_path / "data/plugins/mounts/gone").mkdir()
    again = opened(tmp_path, store)
    assert [record.name for record in again.all()] == ["kept:latest"]
    assert [path.name for path in content.iterdir()] == [kept.place]
    assert list((tmp_path / "data/plugins/mounts").iterdir()) == []


def test_one_change_of_a_plugin_at_a_time(tmp_path: Path, store: Store) -> None:
    catalog = opened(tmp_path, store)
    record = catalog.create("a", archive())
    with (
        catalog.claimed(record.id),
        pytest.raises(Conflict, match="another change is under way"),
        catalog.claimed(record.id),
    ):
        pass
    with catalog.claimed(record.id):
        catalog.set(record, [])
