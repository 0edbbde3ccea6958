"""Images that are made only to be put out: in the store as long as a build needs them there.

An image of the same content that is there for its own sake, before or meanwhile, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from estiba.images import removal
from estiba.images.images import Images, Naming, NewImage
from estiba.images.record import ImageRecord
from estiba.model.digest import Digest, digest_of


@dataclass(slots=True)
class Passing:
    """Of one engine. `in_use` gives the containers of an image. All of it blocks."""

    images: Images
    in_use: Callable[[Digest], list[str]]
    _builds: dict[Digest, int] = field(default_factory=dict)
    """How many builds need each image that nobody else wants; under the images' lock."""

    def add(self, new: NewImage, *, stays: bool) -> ImageRecord:
        """An untagged image; without `stays` until `drop`. Raises as `Images.add`."""
        with self.images.lock:
            is_new = self.images.get(digest_of(new.config_json)) is None
            record = self.images.add(new, Naming(), "build")
            if stays:
                self._builds.pop(record.id, None)
            elif is_new or record.id in self._builds:
                self._builds[record.id] = self._builds.get(record.id, 0) + 1
            return record

    def drop(self, records: Iterable[ImageRecord]) -> None:
        """What one build added and needs no more; the last of them removes it."""
        with self.images.lock:
            for record in records:
                left = self._builds.get(record.id, 0) - 1
                if left > 0:
                    self._builds[record.id] = left
                elif left == 0:
                    del self._builds[record.id]
                    # One that has got a name, or a container, is somebody's by now.
                    removal.delete_unused(self.images, record, self.in_use)
