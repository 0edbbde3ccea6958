"""Credential helpers: programs `docker-credential-NAME` that keep secrets in a key store.

A helper is called with get, store, erase or list; what it needs comes on its STDIN and what it has
to say goes to its STDOUT. Secrets are in neither its arguments nor its environment, and its STDERR
stays the user's: it may have to ask for a passphrase.
"""

from __future__ import annotations

from estiba.client.errors import ClientError
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIME_LIMIT_S = 60.0
_MOST_BYTES = 1 << 20
_NOT_FOUND = "credentials not found in native keychain"
_NO_NAME = "no credentials server URL"
_NO_USER = "no credentials username"
_TOKEN_USER = "<token>"


class _Failure(ClientError):
    """The helper's exit code was not 0; `said` is what it wrote."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(f"{reason}, out: `{said}`")
        self.said = said


def get(helper: str, server: str) -> dict[str, str]:
    """The API's fields, empty when the helper has none for it. Raises ClientError."""
    try:
        answer = _parsed(_run(helper, "get", server))
    except _Failure as failure:
        if failure.said in (_NOT_FOUND, _NO_NAME, _NO_USER):
            return {}
        raise ClientError(f"error getting credentials - err: {failure}") from None
    user, secret = str(answer.get("Username", "")), str(answer.get("Secret", ""))
    found = {"serveraddress": server}
    if user == _TOKEN_USER:
        return found | {"identitytoken": secret}
    return {"username": user, "password": secret} | found


def store(helper: str, auth: dict[str, str]) -> None:
    """Raises ClientError."""
    token = auth.get("identitytoken")
    entry = {
        "ServerURL": auth["serveraddress"],
        "Username": _TOKEN_USER if token else auth.get("username", ""),
        "Secret": token or auth.get("password", ""),
    }
    try:
        _run(helper, "store", dumps(entry))
    except _Failure as failure:
        raise ClientError(f"error storing credentials - err: {failure}") from None


def erase(helper: str, server: str) -> None:
    """Raises ClientError."""
    try:
        _run(helper, "erase", server)
    except _Failure as failure:
        if failure.said != _NOT_FOUND:
            raise ClientError(f"error erasing credentials - err: {failure}") from None


def servers(helper: str) -> list[str]:
    """Whom it has credentials for. Raises ClientError."""
    try:
        return sorted(_parsed(_run(helper, "list", "unused")))
    except _Failure as failure:
        raise ClientError(f"error listing credentials - err: {failure}") from None


def _run(helper: str, verb: str, text: str) -> str:
    """What it answered. Raises _Failure."""
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper or "\0" in helper:
        raise _Failure(f"not a credential helper's name: {helper!r}")
    try:
        done = subprocess.run(
            [program, verb],
            input=text.encode(errors="surrogateescape"),
            stdout=subprocess.PIPE,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise _Failure(f'exec: "{program}": executable file not found in $PATH') from None
    except OSError as error:
        raise _Failure(f'exec: "{program}": {str(error.strerror).lower()}') from None
    except subprocess.TimeoutExpired:
        raise _Failure(f"no answer of {program} within {_TIME_LIMIT_S:g} seconds") from None
    said = done.stdout[:_MOST_BYTES].decode(errors="replace").strip()
    if done.returncode < 0:
        raise _Failure(f"signal {-done.returncode}", said)
    if done.returncode:
        raise _Failure(f"exit status {done.returncode}", said)
    return said


def _parsed(text: str) -> dict[str, Any]:
    """Raises _Failure, which shows nothing of an answer that may hold a secret."""
    try:
        answer = loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise _Failure("the helper's answer is not JSON")
    return answer
