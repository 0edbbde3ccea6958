"""`estiba plugin` and `docker plugin` on a genuine Docker Engine: the same words and answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.daemon import needs_docker
from tests.support.dockerd import GenuineDockerd
from tests.support.parity import compare
from tests.support.plugins.tree import plugin_tree

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GenuineDockerd.is_installed(), reason="dockerd is not installed"),
    needs_docker(28),
]

LINES = """\
plugin ls
plugin list
plugin ls -q
plugin ls -q --no-trunc
plugin ls --no-trunc
plugin ls --format json
plugin ls --format raw
plugin ls --format '{{.Name}} {{.Enabled}} {{.PluginReference}}'
plugin ls --format 'table {{.ID}}\\t{{.Name}}\\t{{.PluginReference}}'
plugin ls -f enabled=true
plugin ls -f enabled=false -q
plugin ls -f capability=volumedriver -q
plugin ls -f colour=red
plugin inspect test/vol
plugin inspect test/vol:latest none
plugin inspect -f {{.Name}} test/vol
plugin inspect none
plugin enable none
plugin enable --timeout -1 test/vol
plugin disable none
plugin disable test/vol
plugin rm none
plugin set none A=b
plugin set test/vol FIXED=2
plugin set test/vol NOTHING=2
plugin set test/vol COLOUR=red
plugin set test/vol
plugin create other nowhere
plugin create UPPER tree
plugin create other file
plugin create
plugin push none
plugin push test/vol@sha256:0000000000000000000000000000000000000000000000000000000000000000
plugin upgrade none
plugin rm
"""


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GenuineDockerd]:
    engine = GenuineDockerd(tmp_path_factory.mktemp("dockerd"))
    tree = plugin_tree(engine.root / "tree")
    (engine.root / "file").write_text("no directory")
    try:
        engine.start()
        engine.docker("plugin", "create", "test/vol", str(tree))
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("line", LINES.splitlines())
def test_the_same_answer(dockerd: GenuineDockerd, line: str) -> None:
    compare(dockerd, line)
