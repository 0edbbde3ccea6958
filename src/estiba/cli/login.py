"""login and logout. Secrets are read without echo or from STDIN, and are shown nowhere."""

from __future__ import annotations

import os
import sys

from estiba.cli.parse import Arguments, UsageError
from estiba.client import credentials
from estiba.client.errors import ApiError, ClientError, NoDaemon
from estiba.client.host import config_path
from estiba.client.http import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNAUTHORIZED = 401
_NO_TERMINAL = "Error: Cannot perform an interactive login from a non TTY device"
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{path}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/
"""
_OTHER_ACCOUNT = """
 Info -> To login with a different account, run 'estiba logout' followed by 'estiba login'

"""


def login(client: Client, given: Arguments) -> int:
    user, password = _asked(given)
    server = credentials.HUB
    if given.words and given.words[0] != "docker.io":
        server = credentials.hostname(given.words[0])
    known: dict[str, str] = {}
    if not user and not password:
        known, status = _with_stored(client, server)
        if status is not None:
            print(status or "Login Succeeded")
            return 0
    if not (user and password) and not os.isatty(0):
        raise ClientError(_NO_TERMINAL)
    user = user or _ask_user(known.get("username", ""))
    password = password or _ask_password()
    auth = {"username": user, "password": password, "serveraddress": server}
    answer = _checked(client, auth)
    _keep(auth, answer)
    print(answer.get("Status") or "Login Succeeded")
    return 0


def _asked(given: Arguments) -> tuple[str, str]:
    """User and password as far as the command line has them. Raises UsageError."""
    user, password = given.username.strip(), given.password
    if given.given("username") and not user:
        raise UsageError("username is empty")
    if given.password_stdin and given.given("password"):
        raise UsageError("conflicting options: cannot specify both --password and --password-stdin")
    if given.password_stdin and not user:
        raise UsageError("the --password-stdin option requires --username to be set")
    if given.given("password"):
        if not password:
            raise UsageError("password is empty")
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
              file=sys.stderr)  # fmt: skip
    if given.password_stdin:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    return user, password


def _with_stored(client: Client, server: str) -> tuple[dict[str, str], str | None]:
    """What is stored, and the registry's status when that is enough to log in."""
    try:
        known = credentials.find(server)
    except ClientError:
        return {}, None
    if not known.get("username") or not known.get("password"):
        return known, None
    sys.stdout.flush()
    print(f"Authenticating with existing credentials... [Username: {known['username']}]",
          file=sys.stderr)  # fmt: skip
    print(_OTHER_ACCOUNT, file=sys.stderr)
    auth = {**known, "serveraddress": server}
    try:
        answer = _checked(client, auth)
    except ApiError as error:
        if error.status == _UNAUTHORIZED:
            print("Stored credentials invalid or expired", file=sys.stderr)
        else:
            print(f"Login did not succeed, error: Error response from daemon: {error}",
                  file=sys.stderr)  # fmt: skip
        return known, None
    _keep(auth, answer)
    return known, str(answer.get("Status") or "")


def _checked(client: Client, auth: dict[str, str]) -> dict[str, Any]:
    """The registry's answer, asked for by the daemon; by this program where no daemon is.

    Raises ClientError when it refuses.
    """
    try:
        return dict(client.post("/auth", None, auth) or {})
    except NoDaemon:
        if os.environ.get("ESTIBA_AUTOSTART") == "1":
            raise
    from estiba.distribution.credentials import credentials_from
    from estiba.distribution.login import check_credentials
    from estiba.distribution.proxies import Proxies
    from estiba.distribution.settings import RegistrySettings
    from estiba.model.errors import EstibaError

    settings = RegistrySettings(proxies=Proxies.from_environment(os.environ))
    try:
        token = check_credentials(auth["serveraddress"], credentials_from(auth), settings)
    except EstibaError as error:
        raise ClientError(str(error)) from error
    return {"IdentityToken": token}


def _keep(auth: dict[str, str], answer: dict[str, Any]) -> None:
    """Raises ClientError. A token that the registry gave replaces the password."""
    if token := answer.get("IdentityToken"):
        auth = {**auth, "password": "", "identitytoken": str(token)}
    try:
        is_plain = credentials.keep(auth)
    except ClientError as error:
        raise ClientError(f"Error saving credentials: {error}") from error
    if is_plain:
        print(_UNENCRYPTED.format(path=config_path()), file=sys.stderr)


def _ask_user(default: str) -> str:
    """Raises ClientError when there is none."""
    shown = f" ({default})" if default else ""
    print(f"Username{shown}: ", end="", flush=True)
    user = sys.stdin.readline().strip() or default
    if not user:
        raise ClientError("error: username is required")
    return user


def _ask_password() -> str:
    """Without echo: where that cannot be had, it is not asked for. Raises ClientError."""
    import termios

    try:
        before = termios.tcgetattr(0)
        silent = termios.tcgetattr(0)
        silent[3] = int(silent[3]) & ~termios.ECHO
        termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    except termios.error as error:
        raise ClientError(
            f"the terminal's echo cannot be turned off ({error}): use --password-stdin"
        ) from error
    try:
        print("Password: ", end="", flush=True)
        password = sys.stdin.readline().rstrip("\r\n")
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
        print(flush=True)
    if not password:
        raise ClientError("error: password is required")
    return password


def logout(client: Client, given: Arguments) -> int:
    server = given.words[0] if given.words else credentials.HUB
    names = [server]
    shown = server
    if given.words:
        # Older clients kept them under URLs.
        shown = credentials.hostname(server)
        names = list(dict.fromkeys([server, shown, f"http://{shown}", f"https://{shown}"]))
    print(f"Removing login credentials for {shown}")
    failed = {}
    for name in names:
        try:
            credentials.forget(name)
        except ClientError as error:
            failed[name] = error
    if len(failed) == len(names):
        sys.stdout.flush()
        print("WARNING: could not erase credentials:", file=sys.stderr)
        for name, reason in failed.items():
            print(f"{name}: {reason}", file=sys.stderr)
    return 0
