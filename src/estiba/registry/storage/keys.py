"""Where everything stands: docker-registry's own layout (distribution 2.x), and ours beside it.

docker/registry/v2/
    blobs/<alg>/<first two>/<hex>/data
    repositories/<name>/
        _layers/<alg>/<hex>/link                       the repository holds this blob
        _manifests/revisions/<alg>/<hex>/link          … and this manifest
        _manifests/revisions/<alg>/<hex>/mediatype     ours: only where the body does not tell
        _manifests/tags/<tag>/current/link             the manifest of the tag
        _manifests/tags/<tag>/index/<alg>/<hex>/link   … and all that it ever had
        _uploads/<uuid>/{startedat,data}               an upload under way
        _referrers/<alg>/<hex>/<alg>:<hex>             ours: a descriptor whose subject is that
        _referrers/complete                            ours: all older manifests are in there
estiba/
    doomed/<alg>/<hex>                                 a blob that the collection took out of use
    doomed/<alg>/<hex>.since                           … and when, in seconds since 1970
    tmp/                                               files under way (file system only)

A link's content is the digest. A blob is visible through a link only.
"""

from __future__ import annotations

import re

from estiba.model.digest import Digest

ROOT = "docker/registry/v2"
BLOBS = f"{ROOT}/blobs"
REPOSITORIES = f"{ROOT}/repositories"
DOOMED = "estiba/doomed"
TEMPORARY = "estiba/tmp"

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:=-]{0,254}")
_MAX_KEY = 1000


def check_key(key: str) -> str:
    """Returns `key` if it cannot lead out of the root; raises ValueError."""
    if len(key) > _MAX_KEY or not all(map(_COMPONENT.fullmatch, key.split("/"))):
        raise ValueError(f"not a key of the store: {key[:100]!r}")
    return key


def _path(digest: Digest) -> str:
    return digest.replace(":", "/", 1)


def blob(digest: Digest) -> str:
    algorithm, _, value = digest.partition(":")
    return f"{BLOBS}/{algorithm}/{value[:2]}/{value}/data"


def doomed(digest: Digest) -> str:
    return f"{DOOMED}/{_path(digest)}"


def doomed_since(digest: Digest) -> str:
    return f"{DOOMED}/{_path(digest)}.since"


def repository(name: str) -> str:
    return f"{REPOSITORIES}/{name}"


def layers(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_layers"


def layer_link(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_layers/{_path(digest)}/link"


def manifests(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests"


def revisions(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/revisions"


def revision(name: str, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/revisions/{_path(digest)}"


def revision_link(name: str, digest: Digest) -> str:
    return f"{revision(name, digest)}/link"


def media_type(name: str, digest: Digest) -> str:
    return f"{revision(name, digest)}/mediatype"


def tags(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags"


def tag(name: str, tag_: str) -> str:
    return f"{REPOSITORIES}/{name}/_manifests/tags/{tag_}"


def tag_link(name: str, tag_: str) -> str:
    return f"{tag(name, tag_)}/current/link"


def tag_index_link(name: str, tag_: str, digest: Digest) -> str:
    return f"{tag(name, tag_)}/index/{_path(digest)}/link"


def uploads(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads"


def upload(name: str, upload_: str) -> str:
    return f"{REPOSITORIES}/{name}/_uploads/{upload_}"


def upload_data(name: str, upload_: str) -> str:
    return f"{upload(name, upload_)}/data"


def upload_started(name: str, upload_: str) -> str:
    return f"{upload(name, upload_)}/startedat"


def referrers(name: str, subject: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_referrers/{_path(subject)}"


def referrer(name: str, subject: Digest, digest: Digest) -> str:
    return f"{referrers(name, subject)}/{digest}"


def referrers_complete(name: str) -> str:
    return f"{REPOSITORIES}/{name}/_referrers/complete"
