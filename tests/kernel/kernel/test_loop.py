from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support.daemon import wait_until

from estiba.kernel.loop import attached, is_attached

pytestmark = pytest.mark.kernel


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 20)
    return path


def test_a_file_is_a_device_as_long_as_somebody_has_it_open(image: Path) -> None:
    with attached(image) as device:
        assert is_attached(image)
        assert device.open("rb").read(5) == b"begin"
        with attached(image) as same:
            assert same == device, "two devices over one file would be two file systems"
        assert is_attached(image)
    wait_until(lambda: not is_attached(image), what="the device to go")


def test_whoever_is_killed_leaves_no_device(image: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from estiba.kernel.loop import attached
        with attached(Path(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), image], check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not is_attached(image), what="the device to go")


def test_no_file_is_no_device(tmp_path: Path) -> None:
    assert not is_attached(tmp_path / "missing")
    with pytest.raises(FileNotFoundError), attached(tmp_path / "missing"):
        pass
