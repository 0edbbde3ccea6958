"""docker-py's integration tests against a private daemon, without those that cannot pass here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.busybox import standin_tar
from tests.support.daemon import PrivateDaemon
from tests.support.plugins.tree import plugin_tree
from tests.support.registry import OwnRegistry

_HERE = Path(__file__).parent
_IMAGES = ("busybox:latest", "alpine:3.10", "alpine:latest")
"""What the tests use; one busybox stands in for all."""


def deselected() -> list[str]:
    """The tests named in deselected.txt."""
    lines = (_HERE / "deselected.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def push_plugin(daemon: PrivateDaemon, host: str, folder: Path) -> None:
    """What stands in for the plugin that the tests install from Docker Hub."""
    tree = plugin_tree(
        folder,
        network={"type": "host"},
        linux={"capabilities": ["CAP_SYS_ADMIN"]},
        env=[
            {"name": "PLUGIN_SOCKET", "value": "/run/docker/plugins/vol.sock"},
            {"name": "PLUGIN_ROOT", "value": "/data"},
            {"name": "DEBUG", "value": "0", "settable": ["value"]},
        ],
    )
    name = f"{host}/vieux/sshfs:latest"
    for words in (("create", name, str(tree)), ("push", name), ("rm", name)):
        daemon.docker("plugin", *words)


def main(build: Path, suite: Path, arguments: list[str]) -> int:
    # The suite's own leftovers: its tests of contexts keep them beside the tests.
    shutil.rmtree(suite / "contexts", ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix="estiba-conformance-") as root,
        OwnRegistry(Path(root) / "registry") as registry,
    ):
        daemon = PrivateDaemon(Path(root), "--registry-mirror", f"http://{registry.host}")
        daemon.start()
        try:
            push_plugin(daemon, registry.host, Path(root) / "plugin")
            for image in _IMAGES:
                daemon.import_image(image, standin_tar())
            words = [str(build / "venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider"]
            words += ["--timeout", "120", "-q", "-p", "without_swarm"]
            for name in deselected():
                words += ["--deselect", f"tests/integration/{name}"]
            environment = {**daemon.client_environment(), "PYTHONPATH": str(_HERE)}
            words += [*arguments, "tests/integration"]
            return subprocess.run(words, cwd=suite, env=environment, check=False).returncode
        finally:
            daemon.close()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
