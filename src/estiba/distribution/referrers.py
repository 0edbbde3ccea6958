"""What names a manifest as its subject (distribution-spec 1.1, "Listing Referrers")."""

from __future__ import annotations

from urllib.parse import quote

from estiba.distribution.auth import Scopes
from estiba.distribution.content import OCI_INDEX, Content, Referrer
from estiba.distribution.listing import list_entries
from estiba.distribution.manifests import usable_digest
from estiba.distribution.session import Session
from estiba.model.digest import Digest
from estiba.model.errors import NotFound

_MAX_ANNOTATIONS = 1000


def find_referrers(
    session: Session, name: str, scopes: Scopes, digest: Digest, artifact_type: str
) -> list[Referrer]:
    """Registries without the interface keep them in an index, tagged after the digest."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    what = f"referrers of {digest}"
    paths = (f"{name}/referrers/{digest}{query}", f"{name}/manifests/{digest.replace(':', '-')}")
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
