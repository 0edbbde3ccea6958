"""What names a manifest as its subject (distribution-spec 1.1, "Listing Referrers")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from estiba.distribution.auth import Scopes
from estiba.distribution.content import OCI_INDEX, Content, Referrer
from estiba.distribution.listing import list_entries
from estiba.distribution.manifests import usable_digest
from estiba.distribution.session import Session
from estiba.model.digest import Digest
from estiba.model.errors import LimitExceeded, NotFound

if TYPE_CHECKING:
    from estiba.distribution.repository import Repository

_MAX_REFERRERS = 1000
_MAX_ANNOTATIONS = 1000


def find_referrers(
    session: Session, name: str, scopes: Scopes, digest: Digest, artifact_type: str
) -> list[Referrer]:
    """Registries without the interface keep them in an index, tagged after the digest."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    what = f"referrers of {digest}"
    paths = (f"{name}/referrers/{digest}{query}", f"{name}/manifests/{_tag(digest)}")
    for path in paths:
        try:
            entries = list_entries(
                session, path, "manifests", what=what, scopes=scopes, headers={"Accept": OCI_INDEX}
            )
            found = [_referrer(entry) for entry in entries]
        except NotFound:
            continue
        return [
            referrer
            for referrer in found
            if referrer is not None and artifact_type in ("", referrer.artifact_type)
        ]
    return []


def put_referrer(repository: Repository, body: bytes, entry: Referrer, subject: Digest) -> None:
    """Stores a manifest whose subject is `subject`; `entry` describes it.

    A registry that does not list it by itself gets the index that stands in for such a list.
    Raises as `Repository.put_manifest`, and LimitExceeded for a list that is full.
    """
    content = entry.content
    if repository.put_manifest(content.digest, body, content.media_type).subject == subject:
        return
    listed: list[Any] = []
    try:
        fetched = repository.manifest(_tag(subject), accept=(OCI_INDEX,))
        listed = [one for one in json.loads(fetched.body)["manifests"] if isinstance(one, dict)]
    except (NotFound, KeyError, TypeError):
        pass
    if any(one.get("digest") == content.digest for one in listed):
        return
    if len(listed) >= _MAX_REFERRERS:
        raise LimitExceeded(f"{subject} has more than {_MAX_REFERRERS} referrers already")
    listed.append(
        {
            "mediaType": content.media_type,
            "digest": content.digest,
            "size": content.size,
            "artifactType": entry.artifact_type,
            "annotations": entry.annotations,
        }
    )
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    repository.put_manifest(_tag(subject), json.dumps(index).encode(), OCI_INDEX)


def _tag(subject: Digest) -> str:
    """distribution-spec 1.1, "Referrers Tag Schema"."""
    return subject.replace(":", "-")


def _referrer(entry: object) -> Referrer | None:
    """None for what is no descriptor."""
    if not isinstance(entry, dict):
        return None
    kind, size = entry.get("mediaType"), entry.get("size")
    digest = usable_digest(str(entry.get("digest", "")))
    if digest is None or not isinstance(kind, str) or not isinstance(size, int) or size < 0:
        return None
    annotations = entry.get("annotations")
    pairs = annotations.items() if isinstance(annotations, dict) else ()
    texts = {key: value for key, value in pairs if isinstance(value, str)}
    return Referrer(
        Content(kind, digest, size),
        str(entry.get("artifactType") or ""),
        dict(list(texts.items())[:_MAX_ANNOTATIONS]),
    )
