"""pull and push, and the pull of an image that `run` and `create` miss."""

from __future__ import annotations

import sys

from estiba.cli.parse import Arguments, UsageError
from estiba.cli.progress import show_progress
from estiba.cli.refs import default_platform, platform, reference
from estiba.client.credentials import header
from estiba.client.http import Client, image_part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from estiba.model.reference import Reference

_ALL_OR_ONE = "tag can't be used with --all-tags/-a"
_NOTE = """\
Using --platform pushes only the specified platform manifest of a multi-platform image index.
Other components, like attestations, will not be included.
To push the complete multi-platform image, remove the --platform flag."""


def pull(client: Client, given: Arguments) -> int:
    wanted = _chosen(given)
    _pull(client, wanted, default_platform(given.platform), quiet=given.quiet)
    print(wanted)
    return 0


def push(client: Client, given: Arguments) -> int:
    asked = None
    if given.platform:
        client.require("1.46", "--platform")
        asked = platform(given.platform)
        if not given.quiet:
            print(f"\n Info -> {_indented(_NOTE)}\n")
    wanted = _chosen(given)
    query = {"tag": wanted.tag, "platform": asked}
    response = client.call(
        "POST", f"/images/{image_part(wanted.familiar_name)}/push", query,
        headers=header(wanted.domain),
    )  # fmt: skip
    show_progress(response.lines(), quiet=given.quiet)
    if given.quiet:
        print(wanted)
    return 0


def pull_missing(client: Client, image: str, wanted: str, *, quiet: bool) -> None:
    """What `run` and `create` do about an image that is not here; the stream goes to STDERR."""
    _pull(client, reference(image).tagged, default_platform(wanted), quiet=quiet, err=True)


def _indented(text: str) -> str:
    return text.replace("\n", "\n         ")


def _chosen(given: Arguments) -> Reference:
    """Raises UsageError."""
    wanted = reference(given.words[0])
    if given.all_tags:
        if wanted.tag or wanted.digest:
            raise UsageError(_ALL_OR_ONE)
        return wanted
    if not wanted.tag and not wanted.digest and not given.quiet:
        print("Using default tag: latest")
        sys.stdout.flush()
    return wanted.tagged


def _pull(client: Client, wanted: Reference, asked: str, *, quiet: bool, err: bool = False) -> None:
    """Raises ClientError."""
    query = {
        "fromImage": wanted.repository,
        "tag": str(wanted.digest) if wanted.digest else wanted.tag,
        "platform": asked.lower() or None,
    }
    response = client.call("POST", "/images/create", query, headers=header(wanted.domain))
    show_progress(response.lines(), quiet=quiet, err=err)
