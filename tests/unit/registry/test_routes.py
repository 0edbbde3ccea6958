"""Paths and the names in them."""

from __future__ import annotations

import pytest

from estiba.registry.errors import NameInvalid, PathUnknown, TagInvalid
from estiba.registry.routes import Endpoint, Route, find_route
from estiba.registry.storage.errors import DigestInvalid, RegistryError, UploadUnknown

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2", Route(Endpoint.BASE)),
        ("/v2/", Route(Endpoint.BASE)),
        ("/v2/_catalog", Route(Endpoint.CATALOG)),
        ("/v2/a/tags/list", Route(Endpoint.TAGS, "a")),
        ("/v2/tags/list/tags/list", Route(Endpoint.TAGS, "tags/list")),
        ("/v2/a/manifests/v1", Route(Endpoint.MANIFEST, "a", "v1")),
        ("/v2/a/b__c/d-e/manifests/" + DIGEST, Route(Endpoint.MANIFEST, "a/b__c/d-e", DIGEST)),
        ("/v2/a/manifests/manifests/list", Route(Endpoint.MANIFEST, "a/manifests", "list")),
        ("/v2/a/blobs/" + DIGEST, Route(Endpoint.BLOB, "a", DIGEST)),
        ("/v2/a/blobs/uploads", Route(Endpoint.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/", Route(Endpoint.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/12-ab", Route(Endpoint.UPLOAD, "a", "12-ab")),
        ("/v2/a/referrers/" + DIGEST, Route(Endpoint.REFERRERS, "a", DIGEST)),
        ("/v2/" + "a" * 255 + "/tags/list", Route(Endpoint.TAGS, "a" * 255)),
    ],
)
def test_paths(path: str, route: Route) -> None:
    assert find_route(path) == route


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/", PathUnknown),
        ("/v1/", PathUnknown),
        ("/v2/a", PathUnknown),
        ("/v2/a/tags", PathUnknown),
        ("/v2/a/nonsense/b", PathUnknown),
        ("/v2/" + "a/" * 600 + "tags/list", PathUnknown),
        ("/v2/tags/list", NameInvalid),
        ("/v2/A/tags/list", NameInvalid),
        ("/v2/../tags/list", NameInvalid),
        ("/v2/a/../../b/tags/list", NameInvalid),
        ("/v2/a/./b/tags/list", NameInvalid),
        ("/v2/a\\..\\b/tags/list", NameInvalid),
        ("/v2/a\r\nSet-Cookie: x/tags/list", NameInvalid),
        ("/v2/a\0/tags/list", NameInvalid),
        ("/v2/_uploads/tags/list", NameInvalid),
        ("/v2/a/_layers/tags/list", NameInvalid),
        ("/v2/a.-b/tags/list", NameInvalid),
        ("/v2/é/tags/list", NameInvalid),
        ("/v2/" + "a" * 256 + "/tags/list", NameInvalid),
        ("/v2/a/manifests/", TagInvalid),
        ("/v2/a/manifests/..", TagInvalid),
        ("/v2/a/manifests/.v1", TagInvalid),
        ("/v2/a/manifests/v1\n", TagInvalid),
        ("/v2/a/manifests/" + "v" * 129, TagInvalid),
        ("/v2/a/manifests/sha256:" + "a" * 63, DigestInvalid),
        ("/v2/a/manifests/sha256:" + "A" * 64, DigestInvalid),
        ("/v2/a/manifests/sha256:../../../x", PathUnknown),
        ("/v2/a/blobs/v1", DigestInvalid),
        ("/v2/a/blobs/sha1:" + "a" * 40, DigestInvalid),
        ("/v2/a/blobs/" + DIGEST + "\n", DigestInvalid),
        ("/v2/a/referrers/x", DigestInvalid),
        ("/v2/a/blobs/uploads/..", UploadUnknown),
        ("/v2/a/blobs/uploads/a_b", UploadUnknown),
    ],
)
def test_paths_that_name_nothing(path: str, error: type[RegistryError]) -> None:
    with pytest.raises(error):
        find_route(path)
