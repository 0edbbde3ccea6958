"""image outdated: which local tags have a newer image behind them in their registry.

Exit codes as those of diff: 0 all is up to date, 1 something is outdated, 2 it could not be found
out for all.
"""

from __future__ import annotations

import sys

from estiba.cli.output import print_rows, shown_on
from estiba.cli.parse import Arguments
from estiba.cli.refs import reference
from estiba.client.credentials import header
from estiba.client.errors import ClientError, NoDaemon
from estiba.client.http import Client, image_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("STATUS", "Status"),
    ("LOCAL DIGEST", "LocalDigest"),
    ("REMOTE DIGEST", "RemoteDigest"),
)
_UP_TO_DATE, _OUTDATED, _UNKNOWN = "up to date", "outdated", "unknown"
_AT_ONCE = 8
_SHORT = len("sha256:") + 12


def outdated(client: Client, given: Arguments) -> int:
    from concurrent.futures import ThreadPoolExecutor

    wanted = [reference(word) for word in given.words]
    filters = {"reference": dict.fromkeys((name.familiar for name in wanted), True)}
    views = client.get("/images/json", {"filters": filters if wanted else None})
    found = sorted(set(_tags(views)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(lambda entry: _row(client, *entry), found))
    states = {row["Status"] for row in rows}
    shown = [row for row in rows if given.all or row["Status"] != _UP_TO_DATE]
    for row in shown:
        for key in () if given.no_trunc or given.format else ("LocalDigest", "RemoteDigest"):
            row[key] = row[key][:_SHORT]
    if shown or given.format not in ("", "table"):
        print_rows(shown, _COLUMNS, given.format)
    sys.stdout.flush()
    for row in rows:
        if row["Error"]:
            error = shown_on(sys.stderr, row["Error"])
            print(f"{row['Repository']}:{row['Tag']}: {error}", file=sys.stderr)
    return 2 if _UNKNOWN in states else 1 if _OUTDATED in states else 0


def _tags(views: list[dict[str, Any]]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Repository, tag and digests known to the repository; images never pushed nor pulled have none
    and are left out.
    """
    found = []
    for view in views:
        digests: dict[str, list[str]] = {}
        for text in view.get("RepoDigests") or []:
            repository, _, digest = text.partition("@")
            digests.setdefault(repository, []).append(digest)
        for text in view.get("RepoTags") or []:
            repository, _, tag = text.rpartition(":")
            if repository in digests:
                found.append((repository, tag, tuple(digests[repository])))
    return found


def _row(client: Client, repository: str, tag: str, known: tuple[str, ...]) -> dict[str, Any]:
    name = f"{repository}:{tag}"
    remote, error = "", ""
    try:
        sent = header(reference(name).domain)
        answer = client.call("GET", f"/distribution/{image_part(name)}/json", headers=sent).json()
        remote = str(answer["Descriptor"]["digest"])
        status = _UP_TO_DATE if remote in known else _OUTDATED
    except NoDaemon:
        raise
    except (ClientError, KeyError, TypeError) as failure:
        status, error = _UNKNOWN, str(failure) or "the daemon's answer has no digest"
    return {
        "Repository": repository,
        "Tag": tag,
        "Status": status,
        "LocalDigest": remote if remote in known else known[0],
        "RemoteDigest": remote,
        "Error": error,
    }
