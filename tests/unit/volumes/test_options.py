"""`type`, `device` and `o` of the local driver: the exact call of mount(2) that they mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from estiba.kernel.mounts import MountFlag as F
from estiba.model.errors import FailedPrecondition, InvalidArgument
from estiba.volumes.options import VolumeMount, parse_options, without_secrets

NONE = F(0)


def parsed(kind: str, device: str, words: str = "") -> VolumeMount:
    found = parse_options({"type": kind, "device": device, "o": words})
    assert found is not None
    return found


def names(table: dict[str, str]) -> Callable[[str], str]:
    def resolve(name: str) -> str:
        if name not in table:
            raise OSError("Name or service not known")
        return table[name]

    return resolve


@pytest.mark.parametrize(
    ("words", "flags", "data", "propagation"),
    [
        ("", NONE, "", NONE),
        ("size=1m,uid=5", NONE, "size=1m,uid=5", NONE),
        ("ro,nosuid,nodev,noexec", F.RDONLY | F.NOSUID | F.NODEV | F.NOEXEC, "", NONE),
        ("ro,rw,defaults", NONE, "", NONE),
        ("noatime,sync,dirsync,size=1", F.NOATIME | F.SYNCHRONOUS | F.DIRSYNC, "size=1", NONE),
        ("relatime,norelatime,strictatime,nodiratime", F.STRICTATIME | F.NODIRATIME, "", NONE),
        ("bind,ro", F.BIND | F.RDONLY, "", NONE),
        ("rbind,rslave", F.BIND | F.REC, "", F.SLAVE | F.REC),
        ("bind,unbindable", F.BIND, "", F.UNBINDABLE),
        ("bind,shared", F.BIND, "", F.SHARED),
        (",,mode=755,,", NONE, "mode=755", NONE),
    ],
)
def test_words_are_flags_or_data(words: str, flags: F, data: str, propagation: F) -> None:
    found = parsed("x", "y", words)
    assert (found.flags, found.data, found.propagation) == (flags, data, propagation)


def test_without_them_nothing_is_mounted() -> None:
    assert parse_options({}) is None
    assert parse_options({"type": "", "device": "", "o": ""}) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"type": "x", "device": "y", "o": "remount"}, "makes no sense"),
        ({"type": "x\0", "device": "y"}, 'option "type" has bad characters'),
        ({"type": "x", "device": "y" * 5000}, 'option "device" .* too long'),
        ({"type": "x", "device": "y", "o": "z" * 5000}, 'option "o" .* too long'),
        ({"type": "cifs", "device": "//h:445/share"}, "port not allowed in CIFS device URL"),
        ({"type": "cifs", "device": "//h:x/share"}, "error parsing mount device url"),
        ({"type": "cifs", "device": "//[h/share"}, "error parsing mount device url"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parse_options(options)


@pytest.mark.parametrize(
    ("kind", "device", "words", "asked_device", "asked_data"),
    [
        ("nfs", ":/e", "addr=server,rw,vers=4", ":/e", "addr=10.0.0.7,vers=4"),
        ("nfs4", ":/e", "vers=4,addr=server", ":/e", "vers=4,addr=10.0.0.7"),
        ("nfs", ":/e", "addr=192.168.1.1", ":/e", "addr=192.168.1.1"),
        ("nfs", ":/e", "addr=::1,proto=tcp6", ":/e", "addr=::1,proto=tcp6"),
        ("nfs", ":/e", "clientaddr=server,addr=six", ":/e", "clientaddr=server,addr=fd00::7"),
        ("nfs", ":/e", "", ":/e", ""),
        ("cifs", "//server/share", "username=u", "//10.0.0.7/share", "username=u"),
        ("cifs", "//server/a%20b", "", "//10.0.0.7/a b", ""),
        ("cifs", "//six/share", "", "//[fd00::7]/share", ""),
        ("cifs", "//10.1.1.1/share", "", "//10.1.1.1/share", ""),
        ("cifs", "//server/s", "addr=six", "//server/s", "addr=fd00::7"),
        ("tmpfs", "server", "addr=server", "server", "addr=server"),
    ],
)
def test_the_kernel_is_given_addresses(
    kind: str, device: str, words: str, asked_device: str, asked_data: str
) -> None:
    resolve = names({"server": "10.0.0.7", "six": "fd00::7"})
    asked = parsed(kind, device, words).resolved(resolve)
    assert (asked.device, asked.data) == (asked_device, asked_data)


@pytest.mark.parametrize(
    ("kind", "device", "words"), [("nfs", ":/e", "addr=lost"), ("cifs", "//lost/share", "")]
)
def test_a_server_without_an_address(kind: str, device: str, words: str) -> None:
    with pytest.raises(
        FailedPrecondition,
        match="error resolving passed in network volume address: lost: Name or service not known",
    ):
        parsed(kind, device, words).resolved(names({}))


def test_a_name_that_no_resolver_takes() -> None:
    with pytest.raises(FailedPrecondition, match="error resolving"):
        parsed("nfs", ":/e", f"addr={'a' * 70}.example").resolved()


@pytest.mark.parametrize(
    "text",
    [
        "username=u,password={},vers=3.0",
        "pass={}",
        "PASSWORD={},ro",
        "password2={},uid=1",
        "credentials={}",
        "key={}",
    ],
)
def test_secrets_are_starred_out(text: str) -> None:
    assert without_secrets(text.format("hunter2=!")) == text.format("********")


def test_what_is_no_secret_is_shown() -> None:
    assert without_secrets("username=u,uid=5,keyring") == "username=u,uid=5,keyring"
