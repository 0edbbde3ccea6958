"""The commands of plugins, as data."""

from __future__ import annotations

from estiba.cli.imagecommands import FILTER, FORMAT, NO_TRUNC, QUIET
from estiba.cli.parse import Command

_GRANT = "--grant-all-permissions  grant all that the plugin asks for\n"
_TRUST = "--disable-content-trust=true  no verification of signatures\n"

PLUGIN = {
    "create": Command(
        "[OPTIONS] PLUGIN PLUGIN-DATA-DIR",
        "Create a plugin from a directory with config.json and rootfs", "plugins:create",
        "--compress  send the directory compressed", least=2),
    "disable": Command(
        "[OPTIONS] PLUGIN", "Disable a plugin", "plugins:disable",
        "-f --force  although it is in use", least=1, most=1),
    "enable": Command(
        "[OPTIONS] PLUGIN", "Enable a plugin", "plugins:enable",
        "--timeout N  seconds that a call to it may take (default 30)", least=1, most=1),
    "inspect": Command(
        "[OPTIONS] PLUGIN [PLUGIN...]", "Details of plugins", "plugins:inspect",
        "-f --format TEMPLATE  Go template, or json", least=1),
    "install": Command(
        "[OPTIONS] PLUGIN [KEY=VALUE...]", "Install a plugin from a registry", "plugins:install",
        "--alias NAME  what it is called here\n--disable  do not enable it\n" + _GRANT + _TRUST,
        least=1),
    "ls": Command(
        "[OPTIONS]", "List plugins", "plugins:ls", FILTER + FORMAT + NO_TRUNC + QUIET, most=0),
    "push": Command(
        "[OPTIONS] PLUGIN[:TAG]", "Push a plugin to a registry", "plugins:push", _TRUST,
        least=1, most=1),
    "rm": Command(
        "[OPTIONS] PLUGIN [PLUGIN...]", "Remove plugins", "plugins:rm",
        "-f --force  although it is enabled or in use", least=1),
    "set": Command(
        "PLUGIN KEY=VALUE [KEY=VALUE...]", "Change settings of a plugin", "plugins:set_",
        least=2),
    "upgrade": Command(
        "[OPTIONS] PLUGIN [REMOTE]", "Upgrade a plugin", "plugins:upgrade",
        "--skip-remote-check  from any repository, without asking\n" + _GRANT + _TRUST,
        least=1, most=2),
}  # fmt: skip
