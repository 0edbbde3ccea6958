"""Commands about volumes, as data: a part of `commands`."""

from __future__ import annotations

from estiba.cli.imagecommands import FILTER, FORMAT, INSPECT, PRUNED, QUIET
from estiba.cli.parse import Command

_CLUSTER = "(to come: volumes of a cluster)"

_PAUSE = "--pause  pause the containers that have it meanwhile\n"
_MADE = """\
        --label LIST…  metadata
        -o --opt LIST…  options of the local driver, instead of those that it had
        --plain-options  no options instead of those that it had
        """
_QUIET = "-q --quiet  tell nothing but errors\n"

VOLUME = {
    "backup": Command(
        "[OPTIONS] VOLUME FILE|-|oci://REFERENCE", "Save a volume to a file or a registry",
        "volumes_backup:backup",
        _PAUSE + "--plain  of an encrypted volume too, readable for all\n" + _QUIET,
        least=2, most=2),
    "clone": Command(
        "[OPTIONS] VOLUME NEW", "Copy a volume", "volumes_copies:clone", _PAUSE + _MADE,
        least=2, most=2),
    "create": Command("[OPTIONS] [VOLUME]", "Make a volume", "volumes:create", f"""\
        --availability STATE  active, pause or drain {_CLUSTER}
        --group NAME  group of volumes {_CLUSTER}
        --limit-bytes SIZE  the most {_CLUSTER}
        --required-bytes SIZE  the least {_CLUSTER}
        --scope SCOPE  single or multi {_CLUSTER}
        --secret LIST…  secrets of the driver {_CLUSTER}
        --sharing MODE  none, readonly, onewriter or all {_CLUSTER}
        --topology-preferred LIST…  where it had better be {_CLUSTER}
        --topology-required LIST…  where it must be {_CLUSTER}
        --type TYPE  block or mount {_CLUSTER}
        -d --driver NAME  driver (default local)
        --label LIST…  metadata
        -o --opt LIST…  driver options
        """, most=1),
    "inspect": Command(
        "[OPTIONS] VOLUME [VOLUME...]", "Details of volumes", "inspect:volumes", INSPECT, least=1),
    "ls": Command("[OPTIONS]", "List volumes", "lists:volumes",
        FILTER + FORMAT + QUIET + f"--cluster  only those of a cluster {_CLUSTER}", most=0),
    "prune": Command(
        "[OPTIONS]", "Remove unused volumes", "prune:volumes",
        PRUNED + "-a --all  those with a name too", most=0),
    "rename": Command(
        "VOLUME NEW", "Give a volume another name", "volumes_copies:rename", least=2, most=2),
    "resize": Command(
        "VOLUME SIZE", "Give a volume a larger limit", "volumes_copies:resize", least=2, most=2),
    "restore": Command(
        "[OPTIONS] NEW FILE|-|oci://REFERENCE", "Make a volume of a backup",
        "volumes_backup:restore", _MADE + _QUIET, least=2, most=2),
    "rm": Command(
        "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes", "volumes:rm",
        "-f --force  no error for one that does not exist", least=1),
    "rollback": Command(
        "VOLUME TAG", "Make a volume what it was at a snapshot", "volumes_copies:rollback",
        least=2, most=2),
    "snapshot": Command(
        "[OPTIONS] VOLUME [TAG]", "Keep what a volume holds now", "volumes_copies:snapshot",
        _PAUSE, least=1, most=2),
    "snapshot-rm": Command(
        "VOLUME TAG [TAG...]", "Remove snapshots", "volumes_copies:remove_snapshots", least=2),
    "snapshots": Command(
        "[OPTIONS] VOLUME", "List a volume's snapshots", "volumes_copies:snapshots",
        FORMAT + QUIET, least=1, most=1),
    "update": Command(
        "[OPTIONS] VOLUME", "Change a cluster's volume", "volumes:update",
        f"--availability STATE  active, pause or drain {_CLUSTER}", least=1, most=1),
}  # fmt: skip
