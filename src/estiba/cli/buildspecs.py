"""Flags of build that hold several values: outputs, caches, secrets, ssh, attestations.

Reads what a secret names, and nothing else. All raise FlagError or UsageError.
"""

from __future__ import annotations

import binascii
import os

from estiba.cli.parse import Arguments, FlagError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_SECRET = 500 << 10
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")
_FILES = ("tar", "oci", "docker")
"""Outputs that are one file, or what goes to STDOUT."""
_OUTPUTS = ("image", "local", "registry", *_FILES)
_ENTITLEMENTS = ("network.host", "security.insecure")


def attributes(text: str, flag: str) -> dict[str, str]:
    """`key=value,key=value`; a field with a comma stands between double quotes."""
    found = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        if not equals or not key.strip():
            raise FlagError(
                f'invalid argument "{text}" for "{flag}" flag: invalid field \'{field}\' must be '
                "a key=value pair"
            )
        found[key.strip().lower()] = value
    return found


def _fields(text: str) -> list[str]:
    fields, quoted = [""], False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            fields.append("")
        else:
            fields[-1] += character
    return fields


def listed(texts: list[str]) -> list[str]:
    """Words that may stand in one flag with commas between them."""
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


# -- outputs -------------------------------------------------------------------------------


class Output:
    """What is asked of the daemon, and where it goes here: a path, `-`, or nowhere."""

    __slots__ = ("dest", "kind", "sent")

    def __init__(self, kind: str, sent: dict[str, str], dest: str = "") -> None:
        self.kind = kind
        self.sent = {"type": kind, **sent}
        self.dest = dest


def outputs(given: Arguments) -> list[Output]:
    found = [_output(text) for text in given.output]
    if given.push:
        images = [output for output in found if output.kind in ("image", "registry")]
        for output in images:
            output.sent["push"] = "true"
        if not images:
            # As the engine's own builder does it, the image stays in its store too.
            found.append(Output("image", {"push": "true"}))
    if given.load and not any(output.kind == "image" for output in found):
        found.append(Output("image", {}))
    for output in found:
        is_pushed = output.kind == "registry" or output.sent.get("push") in _TRUE
        if is_pushed and not given.tag and not output.sent.get("name"):
            raise UsageError("a name is needed for pushing to a registry: -t NAME")
    if sum(output.dest == "-" for output in found) > 1:
        raise UsageError("only one output can go to STDOUT: give the others a dest=FILE")
    return found


def _output(text: str) -> Output:
    if "=" not in text:
        if not text:
            raise FlagError('invalid argument "" for "-o, --output" flag: nothing is named')
        return Output("tar", {}, "-") if text == "-" else Output("local", {}, text)
    found = attributes(text, "-o, --output")
    kind = found.pop("type", "")
    if kind not in _OUTPUTS:
        known = ", ".join(_OUTPUTS)
        raise FlagError(
            f'invalid argument "{text}" for "-o, --output" flag: unknown type "{kind}": {known}'
            if kind
            else f'invalid argument "{text}" for "-o, --output" flag: type is required: {known}'
        )
    dest = found.pop("dest", "")
    if kind == "local" and dest in ("", "-"):
        raise UsageError("dest is required for local output: -o type=local,dest=DIRECTORY")
    if kind == "docker" and not dest:
        # The engine's own store, where images of this kind are loaded into.
        return Output("image", found)
    if kind in _FILES:
        return Output(kind, found, dest or "-")
    if dest and kind != "local":
        raise UsageError(f"an output of type {kind} takes no dest")
    return Output(kind, found, dest)


# -- caches --------------------------------------------------------------------------------


class Cache:
    """`folder` is the local directory of a cache of type local."""

    __slots__ = ("folder", "sent")

    def __init__(self, sent: dict[str, str], folder: str = "") -> None:
        self.sent = sent
        self.folder = folder


def caches_from(texts: list[str]) -> list[Cache]:
    found = []
    for cache in _caches(texts, "--cache-from", "src"):
        if cache.folder and not os.path.isfile(os.path.join(cache.folder, "index.json")):
            # The first build with this flag comes before the first cache.
            continue
        found.append(cache)
    return found


def caches_to(texts: list[str]) -> list[Cache]:
    return list(_caches(texts, "--cache-to", "dest"))


def _caches(texts: list[str], flag: str, folder_key: str) -> Iterator[Cache]:
    for text in texts:
        if not text:
            continue
        if "=" not in text:
            for name in text.split(","):
                yield Cache({"type": "registry", "ref": name})
            continue
        sent = attributes(text, flag)
        kind = sent.setdefault("type", "registry")
        if kind not in ("registry", "local", "inline"):
            raise FlagError(
                f'invalid argument "{text}" for "{flag}" flag: unknown type "{kind}": registry, '
                "local or inline"
            )
        folder = sent.pop(folder_key, "") if kind == "local" else ""
        if kind == "local" and not folder:
            raise FlagError(
                f'invalid argument "{text}" for "{flag}" flag: {folder_key} is required: '
                f"type=local,{folder_key}=DIRECTORY"
            )
        if kind == "registry" and not sent.get("ref"):
            raise FlagError(
                f'invalid argument "{text}" for "{flag}" flag: ref is required: '
                "type=registry,ref=NAME"
            )
        yield Cache(sent, folder)


# -- secrets and ssh -----------------------------------------------------------------------


def secrets(texts: list[str]) -> dict[str, str]:
    """From ids to base64. Raises UsageError for what is missing or too big."""
    found: dict[str, str] = {}
    for text in texts:
        name, data = _secret(text)
        if name in found:
            raise UsageError(f"secret {name} is given twice")
        if len(data) > MOST_SECRET:
            raise UsageError(f"secret {name} is too big: more than {MOST_SECRET >> 10} KiB")
        found[name] = binascii.b2a_base64(data, newline=False).decode()
    return found


def _secret(text: str) -> tuple[str, bytes]:
    given = attributes(text, "--secret")
    kind, name = given.pop("type", ""), given.pop("id", "")
    path = given.pop("src", "") or given.pop("source", "")
    variable = given.pop("env", "")
    if given or kind not in ("", "file", "env"):
        wrong = f"unexpected key '{next(iter(given))}'" if given else f'unknown type "{kind}"'
        raise FlagError(
            f'invalid argument "{text}" for "--secret" flag: {wrong}: '
            "id=NAME[,src=FILE][,env=VARIABLE]"
        )
    if not name:
        raise FlagError(f'invalid argument "{text}" for "--secret" flag: id is missing')
    if kind == "env" and not variable:
        variable, path = path or name, ""
    if not variable and not path:
        # As docker has it: a variable of that name, else a file.
        variable, path = (name, "") if name in os.environ else ("", name)
    if variable:
        if variable not in os.environ:
            raise UsageError(f"secret {name}: the environment has no variable {variable}")
        return name, os.fsencode(os.environ[variable])
    try:
        with open(path, "rb") as file:
            return name, file.read(MOST_SECRET + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"secret {name}: cannot read {path}: {reason}") from error


def ssh_sources(texts: list[str]) -> dict[str, list[str]]:
    """From ids to paths of an agent's socket or of keys; the user's own agent without any."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, paths = text.partition("=")
        if not name:
            raise FlagError(f'invalid argument "{text}" for "--ssh" flag: default or ID=PATH')
        if name in found:
            raise UsageError(f"--ssh {name} is given twice")
        found[name] = [path for path in paths.split(",") if path]
    return found


# -- attestations and rights ---------------------------------------------------------------


def attestations(given: Arguments) -> tuple[bool, str]:
    """Whether an SBOM is wanted, and the provenance's mode. The short flags win."""
    sbom, provenance = False, ""
    for text in given.attest:
        wanted = attributes(text, "--attest")
        kind = wanted.pop("type", "")
        disabled = wanted.pop("disabled", "false") in _TRUE
        if kind == "sbom":
            sbom = not disabled
        elif kind == "provenance":
            provenance = "" if disabled else _mode(wanted.get("mode", "min"), text)
        else:
            raise FlagError(
                f'invalid argument "{text}" for "--attest" flag: type=sbom or type=provenance'
            )
    if given.given("sbom"):
        sbom = _boolean(given.sbom, "--sbom")
    if given.given("provenance"):
        text = given.provenance
        if text in _TRUE or text in _FALSE or not text:
            provenance = "min" if text in _TRUE else ""
        else:
            wanted = attributes(text if "=" in text else f"mode={text}", "--provenance")
            provenance = _mode(wanted.get("mode", "min"), text)
    return sbom, provenance


def _mode(mode: str, text: str) -> str:
    if mode not in ("min", "max"):
        raise FlagError(f'invalid argument "{text}": the mode of a provenance is min or max')
    return mode


def _boolean(text: str, flag: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise FlagError(f'invalid argument "{text}" for "{flag}" flag: true or false')


def entitlements(texts: list[str]) -> list[str]:
    found = listed(texts)
    for name in found:
        if name not in _ENTITLEMENTS:
            raise FlagError(
                f'invalid argument "{name}" for "--allow" flag: {" or ".join(_ENTITLEMENTS)}'
            )
    return found
