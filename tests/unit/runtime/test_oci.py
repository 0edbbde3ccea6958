"""A runtime that does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.model.errors import DeadlineExceeded, Unavailable
from estiba.runtime import oci
from estiba.runtime.oci import OciRuntime


async def test_a_runtime_that_hangs_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "hanging"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(oci, "_TIMEOUT_S", 0.05)
    with pytest.raises(DeadlineExceeded, match="hanging pause did not end within"):
        await OciRuntime("hanging", program, tmp_path / "root").pause("web")
    with pytest.raises(Unavailable, match="install it"):
        await OciRuntime("none", tmp_path / "none", tmp_path / "root").pause("web")
