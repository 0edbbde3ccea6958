"""`--cache-from` and `--cache-to`, checked before anything is built. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from estiba.model.errors import InvalidArgument
from estiba.model.reference import Reference, parse_reference

INLINE, REGISTRY, LOCAL = "inline", "registry", "local"
MIN, MAX = "min", "max"
_MODES = (MIN, MAX)
_FROM = {REGISTRY: {"ref"}, LOCAL: {"src"}, INLINE: {"ref", "name"}}
_TO = {
    REGISTRY: {"ref", "mode", "ignore-error"},
    LOCAL: {"dest", "mode", "ignore-error"},
    INLINE: {"mode"},
}
_INLINE_ARGUMENT = "BUILDKIT_INLINE_CACHE"


@dataclass(frozen=True, slots=True)
class CacheFrom:
    """`reference` is None for a directory that the client sends.

    `prefers_images`: an image that is here comes before the registry's, otherwise after it.
    """

    type: str
    reference: Reference | None = None
    prefers_images: bool = False

    def __str__(self) -> str:
        return self.reference.familiar if self.reference else self.type


@dataclass(frozen=True, slots=True)
class CacheTo:
    """`index` is its place in the request. With mode=max the steps of all stages go along."""

    index: int
    type: str
    reference: Reference | None = None
    mode: str = MIN
    ignores_errors: bool = True

    def __str__(self) -> str:
        return self.reference.familiar if self.reference else self.type


def parse_cache_from(specs: Sequence[Mapping[str, str]]) -> list[CacheFrom]:
    """Raises InvalidArgument for what is unknown."""
    found = []
    for spec in specs:
        kind = _checked("--cache-from", spec, _FROM)
        name = spec.get("ref") or spec.get("name", "")
        if kind == LOCAL:
            found.append(CacheFrom(LOCAL))
        elif not name:
            raise InvalidArgument(f"--cache-from type={kind} needs ref=NAME")
        else:
            found.append(CacheFrom(kind, parse_reference(name), kind == INLINE))
    return found


def parse_cache_to(
    specs: Sequence[Mapping[str, str]], build_args: Mapping[str, str] | None = None
) -> list[CacheTo]:
    """A build argument may ask for an inline cache too: those who speak the classic form have no
    other way. Raises InvalidArgument for what is unknown.
    """
    asked = (build_args or {}).get(_INLINE_ARGUMENT, "")
    if asked and flag("--build-arg", _INLINE_ARGUMENT, asked):
        specs = [*specs, {"type": INLINE}]
    found = []
    for index, spec in enumerate(specs):
        kind = _checked("--cache-to", spec, _TO)
        mode = spec.get("mode", MIN)
        if mode not in _MODES:
            raise InvalidArgument(f"--cache-to: unknown mode {mode[:32]!r}: use min or max")
        if kind == INLINE and mode == MAX:
            raise InvalidArgument(
                "--cache-to type=inline has the image's own steps only: use type=registry for "
                "mode=max"
            )
        reference = None
        if kind == REGISTRY:
            if not spec.get("ref"):
                raise InvalidArgument("--cache-to type=registry needs ref=NAME")
            reference = parse_reference(spec["ref"]).tagged
            if reference.digest:
                raise InvalidArgument("--cache-to: a cache is stored under a tag, not a digest")
        ignores = flag("--cache-to", "ignore-error", spec.get("ignore-error", "true"))
        found.append(CacheTo(index, kind, reference, mode, ignores))
    return found


def _checked(option: str, spec: Mapping[str, str], known: Mapping[str, set[str]]) -> str:
    kind = spec.get("type", REGISTRY)
    if kind not in known:
        raise InvalidArgument(
            f"{option}: unknown type {kind[:32]!r}: use {', '.join(sorted(known))}"
        )
    check_attributes(f"{option} type={kind}", spec, known[kind])
    return kind


def check_attributes(what: str, spec: Mapping[str, str], known: set[str]) -> None:
    """Raises InvalidArgument that names what could have been meant."""
    for name in spec:
        if name != "type" and name not in known:
            raise InvalidArgument(
                f"{what}: unknown attribute {name[:64]!r}: it takes {', '.join(sorted(known))}"
            )


def flag(what: str, name: str, value: str) -> bool:
    """Raises InvalidArgument."""
    if value.lower() in ("", "1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise InvalidArgument(f"{what}: {name} is true or false, not {value[:32]!r}")
