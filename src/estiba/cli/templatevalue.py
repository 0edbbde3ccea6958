"""Values in templates: what is missing, what is true, and how Go prints them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POINTERS = frozenset(
    "Health Healthcheck Init MemorySwappiness OomKillDisable PidsLimit StopTimeout SizeRw "
    "SizeRootFs UsageData ClusterVolume Platform IPAMConfig BindOptions VolumeOptions "
    "TmpfsOptions ImageManifestDescriptor Descriptor".split()
)
_MAPS = frozenset(
    "Labels Annotations Options Volumes ExposedPorts PortBindings Tmpfs Sysctls StorageOpt "
    "DriverOpts Status Ports".split()
)
_LISTS = frozenset(
    "Aliases Binds CapAdd CapDrop DNSNames DeviceRequests Entrypoint Env GroupAdd Links Mounts "
    "OnBuild RepoDigests SecurityOpt Shell VolumesFrom Warnings".split()
)
_TEXTS = frozenset(
    "Author Comment DockerVersion Domainname Isolation MacAddress Name OsVersion Parent "
    "Propagation Source StopSignal User Variant WorkingDir".split()
)
_FLAGS = frozenset("ArgsEscaped NetworkDisabled".split())


class TemplateError(Exception):
    """A template that cannot be read, or that fails on a value."""


class Row(dict[str, object]):
    """A row of a list: its functions are methods, and its JSON is in the order of the keys."""


class Missing:
    """A field that an object does not have: false in a condition, an error when it is shown.

    It is `allowed` where the keys are the users'.
    """

    def __init__(self, name: str, *, allowed: bool = False) -> None:
        self.name = name
        self.allowed = allowed


def absent(name: str) -> Any:
    """The nothing of a field that the API leaves out when it is empty, or Missing."""
    if name in _POINTERS or name in _MAPS or name in _LISTS:
        return None
    if name in _TEXTS:
        return ""
    return False if name in _FLAGS else Missing(name)


def show(value: Any, field: str = "") -> str:
    """A value as Go's fmt prints it. `field` tells what kind of nothing a null is."""
    if isinstance(value, Missing):
        if value.allowed:
            return "<no value>"
        raise TemplateError(f'map has no entry for key "{value.name}"')
    if value is None:
        if not field:
            return "<no value>"
        return "<nil>" if field in _POINTERS else "map[]" if field in _MAPS else "[]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return show_float(value)
    if isinstance(value, list):
        return f"[{' '.join(show(item) for item in value)}]"
    if isinstance(value, dict):
        items = ((key, item) for key, item in sorted(value.items()) if not callable(item))
        return f"map[{' '.join(f'{key}:{_shown_in_map(item, key)}' for key, item in items)}]"
    return str(value)


def _shown_in_map(value: Any, key: str) -> str:
    """`map[80/tcp:{}]`: an empty object is Go's struct{} but where its kind is known."""
    return "{}" if value == {} and key not in _MAPS else show(value, key)


def show_float(value: float) -> str:
    """The shortest digits that mean it, with an exponent below 1e-4 and from 1e+06 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    sign = "-" if str(value).startswith("-") else ""
    digits, exponent = _digits(abs(value))
    if not digits:
        return f"{sign}0"
    if -4 <= exponent < 6:
        if exponent < 0:
            return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
        whole, rest = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
        return f"{sign}{whole}.{rest}" if rest else f"{sign}{whole}"
    mantissa = f"{digits[0]}.{digits[1:]}" if digits[1:] else digits
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _digits(value: float) -> tuple[str, int]:
    """Significant digits, and the power of ten of the first."""
    mantissa, _, power = repr(value).partition("e")
    whole, _, rest = mantissa.partition(".")
    digits = (whole + rest).lstrip("0")
    first = len(whole) - 1 - (len(whole + rest) - len(digits))
    return digits.rstrip("0"), first + int(power or 0)


def truth(value: Any) -> bool:
    return bool(value) and not isinstance(value, Missing)


def _all_texts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def go_type(value: Any) -> str:
    """For messages and %T."""
    if value is None or isinstance(value, Missing):
        return "<nil>"
    if isinstance(value, list):
        return "[]string" if _all_texts(value) else "[]interface {}"
    if isinstance(value, dict):
        texts = _all_texts(list(value.values()))
        return "map[string]string" if texts else "map[string]interface {}"
    names = {bool: "bool", int: "int", float: "float64", str: "string"}
    return names.get(type(value), "func")
