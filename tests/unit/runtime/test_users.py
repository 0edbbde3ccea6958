"""Who a program runs as, by the image's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.runtime.users import User, decide_user, resolve_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
mail:x:8:12:mail:/var/mail:/bin/sh
1000:x:55:56::/strange:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
app:x:2000:2001::/home/later:/bin/sh
broken:x:notanumber:1:::
short:x
huge:x:4294967295:1::/:
digits:x:@:1::/:
""".replace("@", "7" * 5000)
GROUP = """\
root:x:0:
mail:x:12:
audio:x:29:app,mail
video:x:44:app
nomembers:x:50
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("mail", User(8, 12, (12, 29), "/var/mail")),
        ("8", User(8, 12, (12, 29), "/var/mail")),
        ("app", User(1000, 1001, (1001, 29, 44), "/home/app")),
        ("1000", User(55, 56, (56,), "/strange")),  # a name that looks like a number wins
        ("4711", User(4711, 0, (0,), "/")),
        ("4711:42", User(4711, 42, (42,), "/")),
        ("app:mail", User(1000, 12, (12,), "/home/app")),
        ("app:77", User(1000, 77, (77,), "/home/app")),
        (":audio", User(0, 29, (29,), "/root")),
    ],
)
def test_user_and_group(user: str, expected: User) -> None:
    assert decide_user(PASSWD, GROUP, user) == expected


def test_more_groups_by_name_and_number_without_repeats() -> None:
    user = decide_user(PASSWD, GROUP, "app", ["video", "50", "99"])
    assert user.groups == (1001, 29, 44, 50, 99)


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("root:nobody", [], "unable to find group nobody: no matching entries in group file"),
        ("root", ["nobody"], "unable to find group nobody: no matching entries in group file"),
        ("broken", [], "unable to find user broken"),
        ("2147483648", [], "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", [], "must be in range"),
        ("-1", [], "must be in range"),
        ("9" * 5000, [], "unable to find user 999"),
        ("huge", [], "must be in range"),
        ("٣", [], "unable to find user"),
    ],
)
def test_what_cannot_be(user: str, groups: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        decide_user(PASSWD, GROUP, user, groups)


def test_an_image_without_files_knows_numbers_only(tmp_path: Path) -> None:
    assert resolve_user(tmp_path, "7:8", ["9"]) == User(7, 8, (8, 9), "/")
    with pytest.raises(InvalidArgument, match="unable to find user app"):
        resolve_user(tmp_path, "app")


def test_links_of_the_image_stay_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("host:x:123:123::/:/bin/sh\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to(outside)
    with pytest.raises(InvalidArgument, match="unable to find user host"):
        resolve_user(root, "host")
    (root / "real").write_text("own:x:5:6::/own:/bin/sh\n")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/real")
    assert resolve_user(root, "own") == User(5, 6, (6,), "/own")


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    (tmp_path / "etc/group").mkdir()
    assert resolve_user(tmp_path, "5") == User(5, 0, (0,), "/")
