"""`--chmod`: octal and symbolic modes."""

from __future__ import annotations

import stat

import pytest

from estiba.build.files.modes import new_directory_mode, parse_chmod
from estiba.model.errors import InvalidArgument

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("", FILE | 0o4711, 0o4711),
        ("755", FILE | 0o600, 0o755),
        ("0644", FILE | 0o777, 0o644),
        ("4755", FILE | 0o644, 0o4755),
        ("u=rwX,go=rX", FILE | 0o600, 0o644),
        ("u=rwX,go=rX", FILE | 0o700, 0o755),
        ("u=rwX,go=rX", DIRECTORY | 0o600, 0o755),
        ("a+x", FILE | 0o644, 0o755),
        ("+x", FILE | 0o644, 0o755),
        ("go-rwx", FILE | 0o777, 0o700),
        ("g=u", FILE | 0o640, 0o660),
        ("o=", FILE | 0o777, 0o770),
        ("u+s,+t", FILE | 0o755, 0o5755),
        ("g+s", DIRECTORY | 0o755, 0o2755),
        ("ug=rw", DIRECTORY | 0o2755, 0o2665),
        ("u-x+r", FILE | 0o300, 0o600),
    ],
)
def test_modes(text: str, before: int, after: int) -> None:
    assert oct(parse_chmod(text)(before)) == oct(after)


@pytest.mark.parametrize(
    "text", ["888", "rwx", "u=rwz", "u", ",", "u+x,", "77777", "-1", "x" * 999]
)
def test_what_is_no_mode_is_told(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid chmod parameter"):
        parse_chmod(text)


def test_directories_on_the_way_take_octal_modes_alone() -> None:
    assert new_directory_mode("0640") == 0o640
    assert new_directory_mode("4750") == 0o750
    assert new_directory_mode("1777") == 0o777
    assert new_directory_mode("u=rwx,go=") == 0o755
    assert new_directory_mode("") == 0o755
