"""Files of a context that become a layer's without a copy, and all that keeps one from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from estiba.build.files.copying import put
from estiba.build.files.model import CopyOptions, CopySource
from estiba.build.files.selection import take
from estiba.storage.layers import LayerStore
from estiba.storage.workspaces import Workspaces

pytestmark = pytest.mark.kernel


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "top").write_text("top")
    (root / "deep" / "one").write_text("one")
    (root / "deep" / "er" / "two").write_text("two")
    (root / "deep" / "same").hardlink_to(root / "deep" / "one")
    return root


def copied(
    spaces: Workspaces, context: Path, key: str, *, shares: bool = True, **options: object
) -> Path:
    """The upper directory after a COPY of the context."""
    wanted = CopyOptions(**{"destination": "/app", **options})  # type: ignore[arg-type]
    source = CopySource(root=context, patterns=(".",), shown="x", shares_files=shares)
    spaces.prepare(key, [])
    with spaces.mounted(key) as root:
        put(take([source], wanted), wanted, root, upper=spaces.upper(key))
    return spaces.upper(key) / "app"


def is_shared(context: Path, upper: Path, name: str) -> bool:
    return (context / name).stat().st_ino == (upper / name).stat().st_ino


def test_files_in_directories_that_are_new_are_shared(spaces: Workspaces, context: Path) -> None:
    upper = copied(spaces, context, "a" * 64)
    for name in ("top", "deep/er/two"):
        assert is_shared(context, upper, name)
        assert (upper / name).read_text() == Path(name).name


def test_a_file_of_several_names_is_copied_once(spaces: Workspaces, context: Path) -> None:
    upper = copied(spaces, context, "a" * 64)
    assert not is_shared(context, upper, "deep/one")
    assert (upper / "deep" / "one").read_text() == "one"
    assert (upper / "deep" / "one").stat().st_ino == (upper / "deep" / "same").stat().st_ino


def test_what_one_step_shares_another_copies(spaces: Workspaces, context: Path) -> None:
    """Their layers may lie on one another, and two names of one file would stay one."""
    first, second = copied(spaces, context, "a" * 64), copied(spaces, context, "b" * 64)
    assert is_shared(context, first, "top") and not is_shared(context, second, "top")
    assert (second / "top").read_text() == "top"


def test_a_source_that_may_change_is_copied(spaces: Workspaces, context: Path) -> None:
    upper = copied(spaces, context, "a" * 64, shares=False)
    assert not is_shared(context, upper, "deep/er/two")


@pytest.mark.parametrize(
    "options",
    [{"owner": "7:7"}, {"mode": "0600"}, {"newest_ns": 10**18}],
    ids=["owner", "mode", "time"],
)
def test_a_file_that_must_become_another_is_copied(
    spaces: Workspaces, context: Path, options: dict[str, object]
) -> None:
    before = os.stat(context / "deep" / "er" / "two")
    upper = copied(spaces, context, "a" * 64, **options)
    assert not is_shared(context, upper, "deep/er/two")
    after = os.stat(context / "deep" / "er" / "two")
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )


def test_what_was_there_is_replaced_by_a_copy(
    spaces: Workspaces, layers: LayerStore, context: Path
) -> None:
    first, second = "a" * 64, "b" * 64
    spaces.prepare(first, [])
    with spaces.mounted(first) as root:
        (root / "app" / "deep").mkdir(parents=True)
        (root / "app" / "deep" / "one").write_text("earlier, and longer")
    below = spaces.freeze(first)
    spaces.prepare(second, [below])
    options = CopyOptions(destination="/app")
    source = CopySource(root=context, patterns=(".",), shown="x", shares_files=True)
    with spaces.mounted(second) as root:
        put(take([source], options), options, root, upper=spaces.upper(second))
        assert (root / "app" / "deep" / "one").read_text() == "one"
    upper = spaces.upper(second) / "app"
    assert not is_shared(context, upper, "deep/one")
    assert is_shared(context, upper, "deep/er/two")
    with spaces.view([below, spaces.freeze(second)]) as seen:
        assert (seen / "app" / "deep" / "er" / "two").read_text() == "two"


def test_two_copies_of_one_file_in_a_step_are_two_files(spaces: Workspaces, context: Path) -> None:
    options = CopyOptions(destination="/app/")
    source = CopySource(root=context, patterns=("deep/er", "deep"), shown="x", shares_files=True)
    key = "a" * 64
    spaces.prepare(key, [])
    with spaces.mounted(key) as root:
        put(take([source], options), options, root, upper=spaces.upper(key))
    upper = spaces.upper(key) / "app"
    assert (upper / "two").stat().st_ino != (upper / "er" / "two").stat().st_ino


def test_the_layer_is_the_same_as_that_of_a_copy(
    spaces: Workspaces, layers: LayerStore, context: Path
) -> None:
    digests = []
    for key, shares in (("a" * 64, True), ("b" * 64, False)):
        copied(spaces, context, key, shares=shares)
        for place in (spaces.upper(key), spaces.upper(key) / "app"):
            os.utime(place, (10**9, 10**9))
        digests.append(spaces.commit(spaces.freeze(key), lambda _: None).diff_id)
    assert digests[0] == digests[1]
    assert b"".join(layers.tar(digests[0]))


def test_a_destination_behind_a_link_is_shared_where_it_leads(
    spaces: Workspaces, context: Path
) -> None:
    key = "a" * 64
    spaces.prepare(key, [])
    options = CopyOptions(destination="/link/app")
    source = CopySource(root=context, patterns=(".",), shown="x", shares_files=True)
    with spaces.mounted(key) as root:
        (root / "real").mkdir()
        (root / "link").symlink_to("/real")
        put(take([source], options), options, root, upper=spaces.upper(key))
    upper = spaces.upper(key)
    assert is_shared(context, upper / "real" / "app", "deep/er/two")
    assert (upper / "link").is_symlink()
