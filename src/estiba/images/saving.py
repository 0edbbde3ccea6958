"""Images into archives that are an OCI layout and a `docker save` archive in one, as Docker
writes since 25.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from estiba.images.attestations import Referrer, referrers_of
from estiba.images.forms import Form, gzip_form, open_part, plain_form, proven_form
from estiba.images.images import Images
from estiba.images.layout import END, LayoutWriter, blob_name, file_member
from estiba.images.record import ImageRecord
from estiba.model.decoding import from_json
from estiba.model.digest import Digest, digest_of
from estiba.model.errors import EstibaError, InvalidArgument, NotFound
from estiba.model.image import MEDIA_INDEX, Descriptor, Index, Platform
from estiba.model.reference import parse_reference

_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
BOTH, DOCKER, OCI = "", "docker", "oci"
FORMATS = (BOTH, DOCKER, OCI)
AS_IT_CAME, GZIP, PLAIN_LAYERS = "", "gzip", "uncompressed"


@dataclass(slots=True)
class Chosen:
    """What goes under the same tags: one image a platform."""

    records: list[ImageRecord]
    tags: list[str] = field(default_factory=list)


def save(
    images: Images, names: list[str], platforms: tuple[Platform, ...] = (), form: str = BOTH
) -> Generator[bytes, None, None]:
    """The archive of the images that `names` name, of all platforms that are here or of
    `platforms`. `form` leaves one half of its indexes out.

    Raises NotFound or InvalidArgument before the first byte.
    """
    if form not in FORMATS:
        raise InvalidArgument(f"unknown archive format {form[:32]!r}: use docker or oci")
    with ExitStack() as leases:
        with images.lock:
            chosen = choose(images, names, platforms)
            records = {record.id: record for one in chosen for record in one.records}.values()
            leases.enter_context(images.kept(*records))
        yield from _Archive(images, _Options()).write(chosen, form)
        for record in records:
            images.usage.note(record.id)
            images.announce(record, "save")


def archive(
    images: Images,
    records: list[ImageRecord],
    tags: list[str],
    form: str,
    *,
    layers: str = AS_IT_CAME,
    annotations: Mapping[str, str] | None = None,
) -> Generator[bytes, None, None]:
    """Images, one a platform, as an archive in which they bear `tags`, whether they do here or not.

    `layers` is how they are compressed; `annotations` go into the manifests. Raises NotFound,
    DataLoss.
    """
    with images.kept(*records):
        options = _Options(layers, dict(annotations or {}))
        yield from _Archive(images, options).write([Chosen(records, tags)], form)


def choose(images: Images, names: list[str], platforms: tuple[Platform, ...] = ()) -> list[Chosen]:
    """Each set of images once, with the tags asked for; a bare repository means all its tags."""
    chosen: dict[tuple[Digest, ...], Chosen] = {}
    for name in names:
        for wanted in images.tags_of(name) or [name]:
            records = _records(images, wanted, platforms)
            one = chosen.setdefault(tuple(r.id for r in records), Chosen(records))
            try:
                tag = parse_reference(wanted).tagged.familiar
            except EstibaError:
                continue
            if tag in records[0].repo_tags and tag not in one.tags:
                one.tags.append(tag)
    return list(chosen.values())


def _records(images: Images, name: str, platforms: tuple[Platform, ...]) -> list[ImageRecord]:
    found = images.find_all(name)
    if not platforms:
        return found
    kept = [r for r in found if any(r.platform.serves(wanted) for wanted in platforms)]
    if not kept:
        asked, own = ", ".join(map(str, platforms)), found[0].platform
        raise NotFound(
            f"image with reference {name} was found but its platform ({own}) does not match the "
            f"specified platform ({asked})"
        )
    return kept


@dataclass(frozen=True, slots=True)
class _Options:
    layers: str = AS_IT_CAME
    annotations: dict[str, str] = field(default_factory=dict)


class _Archive:
    """Writes each blob once. A layout alone has what is stated of the images too."""

    def __init__(self, images: Images, options: _Options) -> None:
        self._images = images
        self._options = options
        self._writer = LayoutWriter()
        self._entries: list[Descriptor] = []
        self._docker: list[dict[str, object]] = []
        self._repositories: dict[str, dict[str, str]] = {}

    def write(self, chosen: list[Chosen], form: str) -> Iterator[bytes]:
        yield self._writer.begin()
        for one in chosen:
            yield from self._write_chosen(one, is_layout=form == OCI)
        if form != DOCKER:
            yield self._writer.index(self._entries)
        if form != OCI:
            yield file_member("manifest.json", json.dumps(self._docker).encode())
            if self._repositories:
                body = json.dumps(self._repositories).encode()
                yield file_member("repositories", body)
        yield END

    def _write_chosen(self, one: Chosen, *, is_layout: bool) -> Iterator[bytes]:
        entries = []
        referrers: list[Referrer] = []
        for record in one.records:
            form = self._form(record)
            yield from self._write_image(record, form)
            entries.append(_descriptor(record, form))
            if is_layout:
                name = parse_reference(one.tags[0]).familiar_name if one.tags else ""
                referrers += referrers_of(self._images, record, entries[-1], name)
            if not record.artifact:
                self._note_docker(record, [part.descriptor.digest for part in form.parts], one.tags)
        top = entries[0]
        if len(entries) > 1:
            body, media_type = self._index_over(one.records, entries)
            top = Descriptor(media_type=media_type, digest=digest_of(body), size=len(body))
            yield from self._write_blob(top.digest, iter([body]), len(body), 0)
        self._entries += _named(top, one.tags)
        for referrer in referrers:
            yield from self._write_referrer(referrer)

    def _note_docker(self, record: ImageRecord, layers: list[Digest], tags: list[str]) -> None:
        """For its two indexes. The older one, which scripts still look for, leads from a name to
        the topmost layer; of several platforms the first one counts.
        """
        self._docker.append(
            {
                "Config": blob_name(record.id),
                "RepoTags": tags or None,
                "Layers": [blob_name(digest) for digest in layers],
            }
        )
        for tag in tags if layers else ():
            reference = parse_reference(tag)
            named = self._repositories.setdefault(reference.familiar_name, {})
            named.setdefault(reference.tag or "latest", layers[-1].partition(":")[2])

    def _form(self, record: ImageRecord) -> Form:
        options, images = self._options, self._images
        if options.layers == GZIP:
            return gzip_form(images, record, options.annotations)
        known = None
        if options.layers == AS_IT_CAME and not options.annotations:
            known = proven_form(images, record)
        return known or plain_form(images, record, options.annotations)

    def _write_referrer(self, referrer: Referrer) -> Iterator[bytes]:
        own = {referrer.descriptor.digest: referrer.body}
        for digest, data in (referrer.blobs | own).items():
            yield from self._write_blob(digest, iter([data]), len(data), 0)
        self._entries.append(referrer.descriptor)

    def _write_image(self, record: ImageRecord, form: Form) -> Iterator[bytes]:
        created_s = max(0, record.created_ns // 10**9)
        for part in form.parts:
            size = part.descriptor.size
            pieces = open_part(self._images, part)
            yield from self._write_blob(part.descriptor.digest, pieces, size, created_s)
        if form.config:
            config = form.config
            yield from self._write_blob(record.id, iter([config]), len(config), created_s)
        document = form.document
        size = len(document.body)
        yield from self._write_blob(document.digest, iter([document.body]), size, created_s)

    def _write_blob(
        self, digest: Digest, pieces: Iterator[bytes], size: int, time_s: int
    ) -> Iterator[bytes]:
        about = Descriptor(media_type="", digest=digest, size=size)
        yield from self._writer.blob(about, pieces, time_s)

    def _index_over(
        self, records: list[ImageRecord], entries: list[Descriptor]
    ) -> tuple[bytes, str]:
        """The index that all came from, or one of our own where there is none."""
        targets = [{origin.target for origin in record.origins} for record in records]
        wanted = {entry.digest for entry in entries}
        for target in sorted(set.intersection(*targets)):
            try:
                body = self._images.content.read(target)
                index = from_json(body, Index)
            except (EstibaError, msgspec.DecodeError):
                continue
            if wanted <= {entry.digest for entry in index.manifests}:
                return body, index.media_type or MEDIA_INDEX
        own = Index(schema_version=2, media_type=MEDIA_INDEX, manifests=entries)
        return msgspec.json.encode(own), MEDIA_INDEX


def _descriptor(record: ImageRecord, form: Form) -> Descriptor:
    return Descriptor(
        media_type=form.document.media_type,
        digest=form.document.digest,
        size=len(form.document.body),
        platform=None if record.artifact else record.platform,
        artifact_type=record.artifact,
    )


def _named(descriptor: Descriptor, tags: list[str]) -> list[Descriptor]:
    entries = []
    for tag in tags:
        reference = parse_reference(tag)
        names = {_IMAGE_NAME: str(reference), _REF_NAME: reference.tag or ""}
        entries.append(msgspec.structs.replace(descriptor, annotations=names))
    return entries or [descriptor]
