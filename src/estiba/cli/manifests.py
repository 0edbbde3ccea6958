"""manifest create, annotate, inspect, push and rm: made here, pushed to the registry itself."""

from __future__ import annotations

import sys
from dataclasses import replace

from estiba.cli import manifeststore
from estiba.cli.manifeststore import Entry, NoManifest
from estiba.cli.parse import Arguments, UsageError
from estiba.cli.refs import reference
from estiba.client.errors import ClientError
from estiba.client.http import Client
from estiba.client.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from estiba.model.reference import Reference

_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_INDENT = "   "
"""Docker's own: a list's digest is that of its text."""
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")
_MACHINES = {
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 ppc64le mips64 mips64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm",
    "plan9": "386 amd64",
    "solaris": "amd64",
    "windows": "386 amd64",
}


def create(client: Client, given: Arguments) -> int:
    name, *members = given.words
    try:
        target = reference(name).tagged
    except UsageError as error:
        raise UsageError(f"error parsing name for manifest list {name}: {error}") from None
    if manifeststore.exists(target) and not given.amend:
        raise UsageError("refusing to amend an existing manifest list with no --amend flag")
    for word in members:
        member = reference(word).tagged
        try:
            entry = manifeststore.get(target, member)
        except NoManifest:
            entry = _registry().fetch(member, insecure=given.insecure)
        manifeststore.save(target, member, entry)
    print(f"Created manifest list {target}")
    return 0


def _registry() -> Any:
    """What speaks with registries: only some of the commands need it."""
    from estiba.cli import manifestregistry

    return manifestregistry


def annotate(client: Client, given: Arguments) -> int:
    target, member = (_annotated(word, kind) for word, kind in zip(
        given.words, ("manifest list", "manifest"), strict=True))  # fmt: skip
    try:
        entry = manifeststore.get(target, member)
    except NoManifest:
        raise UsageError(
            f"manifest for image {given.words[1]} does not exist in {given.words[0]}"
        ) from None
    before = entry.descriptor.get("platform") or {"architecture": "", "os": ""}
    asked = {
        "architecture": given.arch,
        "os": given.os,
        "os.version": given.os_version,
        "variant": given.variant,
    }
    platform = before | {key: value for key, value in asked.items() if value}
    features = [word for text in given.os_features for word in text.split(",")]
    if features:
        platform["os.features"] = list(dict.fromkeys([*before.get("os.features", []), *features]))
    if platform["architecture"] not in _MACHINES.get(platform["os"], "").split():
        raise UsageError(
            f"manifest entry for image has unsupported os/arch combination: {given.os}/{given.arch}"
        )
    descriptor = entry.descriptor | {"platform": ordered_platform(platform)}
    manifeststore.save(target, member, replace(entry, descriptor=descriptor))
    return 0


def _annotated(word: str, kind: str) -> Reference:
    try:
        return reference(word).tagged
    except UsageError as error:
        raise UsageError(f"annotate: error parsing name for {kind} {word}: {error}") from None


def ordered_platform(view: dict[str, Any]) -> dict[str, Any]:
    """With the image-spec's members alone, in its order; empty ones only where it wants them."""
    found = {key: view.get(key) for key in _PLATFORM_KEYS}
    required = ("architecture", "os")
    return {key: found[key] or "" for key in found if found[key] or key in required}


def inspect(client: Client, given: Arguments) -> int:
    *lists, word = given.words
    wanted = reference(word).tagged
    if lists:
        _show(manifeststore.get(reference(lists[0]).tagged, wanted), given)
        return 0
    try:
        found: Entry | list[Entry] = manifeststore.get_all(wanted)
    except NoManifest:
        found = _registry().fetch_any(wanted, insecure=given.insecure)
    if isinstance(found, Entry):
        _show(found, given)
    elif given.verbose:
        print(dumps([entry.view for entry in found], indent="\t", html=True))
    else:
        try:
            print(list_text(wanted, found)[1])
        except UsageError as error:
            raise UsageError(f"failed to assemble ManifestDescriptor: {error}") from None
    return 0


def _show(entry: Entry, given: Arguments) -> None:
    view = entry.view if given.verbose else loads(entry.raw)
    print(dumps(view, indent="\t", html=bool(given.verbose)))


def list_text(target: Reference, entries: list[Entry]) -> tuple[str, str]:
    """Media type and text of a list. Raises UsageError for manifests of another registry."""
    descriptors = []
    for entry in entries:
        domain = reference(entry.reference).domain
        if domain != target.domain:
            raise UsageError(
                "cannot use source images from a different registry than the target image: "
                f"{domain} != {target.domain}"
            )
        view = entry.descriptor
        descriptor = {key: view[key] for key in ("mediaType", "size", "digest")}
        platform = ordered_platform(view.get("platform") or {})
        descriptors.append(descriptor | {"platform": platform})
    is_oci = bool(entries) and descriptors[0]["mediaType"] == _OCI_MANIFEST
    kind = _OCI_INDEX if is_oci else _DOCKER_LIST
    content = {"schemaVersion": 2, "mediaType": kind, "manifests": descriptors}
    return kind, dumps(content, indent=_INDENT, html=True)


def push(client: Client, given: Arguments) -> int:
    target = reference(given.words[0]).tagged
    entries = manifeststore.get_all(target)
    if not entries:
        raise UsageError(f"{target} not found")
    for entry in entries:
        platform = entry.descriptor.get("platform") or {}
        if not platform.get("architecture") or not platform.get("os"):
            raise UsageError(
                f"manifest {entry.reference} must have an OS and Architecture to be pushed to a "
                "registry"
            )
    kind, text = list_text(target, entries)
    print(_registry().push(target, entries, kind, text.encode(), insecure=given.insecure))
    if given.purge:
        manifeststore.remove(target)
    return 0


def rm(client: Client, given: Arguments) -> int:
    code = 0
    for word in given.words:
        try:
            manifeststore.remove(reference(word).tagged)
        except ClientError as error:
            print(error, file=sys.stderr)
            code = 1
    return code
