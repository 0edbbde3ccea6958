"""An engine that does nothing but one step, for a test to kill.

python -m tests.kernel.build.running.step_to_kill BASE LOWER BRIDGE RUNTIME
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.kernel.build.running.running_lab import make_engine, make_lab, make_networks, tell

from estiba.build.ports import BindMount, CacheMount, SecretMount, TmpfsMount


async def main(base: Path, lower: Path, bridge: str, runtime: str) -> None:
    networks = make_networks(base, bridge)
    engine = make_engine(base, networks, parent=f"/estiba-test-{bridge}", runtime=runtime)
    lab = make_lab(base, lower, engine)
    mounts = (
        BindMount("/in", lower),
        BindMount("/rw", lower, writable=True),
        CacheMount("/cache", "c", sharing="locked"),
        TmpfsMount("/t"),
        SecretMount(b"hush", target="/run/secrets/s"),
    )
    script = "trap '' HUP TERM PIPE; (setsid sleep 1000 &); echo running; sleep 1000"
    with lab.tree() as tree:
        request = lab.request(tree, "/bin/sh", "-c", script, mounts=mounts, network="bridge")
        print("begun", flush=True)
        await lab.executor.run(request, tell)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
