"""Who may do what."""

from __future__ import annotations

from pathlib import Path

import pytest

from estiba.model.errors import InvalidArgument
from estiba.registry.auth.identity import CATALOG, Action
from estiba.registry.auth.policy import EVERYBODY, SIGNED_IN, open_to, read_policy
from estiba.registry.auth.scopes import granted

POLICY = """
[groups]
builders = ["ana", "ben"]

[[repository]]
match = "public/*"
read = ["anonymous"]
write = ["@builders"]
delete = ["ana"]

[[repository]]
match = "team/**"
read = ["*"]
write = ["@builders", "carl"]

[[repository]]
match = "ana/x.y"
read = ["ana"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize(
    ("user", "repository", "allowed"),
    [
        ("", "public/a", "pull"),
        ("ana", "public/a", "pull push delete"),
        ("ben", "public/a", "pull push"),
        ("carl", "public/a", "pull"),
        ("", "public/a/b", ""),
        ("", "team/a", ""),
        ("zoe", "team/a", "pull"),
        ("carl", "team/a/b", "pull push"),
        ("carl", "team", ""),
        ("ana", "ana/x.y", "pull"),
        ("ana", "ana/xzy", ""),
        ("ana", "other", ""),
        ("anonymous", "team/a", "pull"),
        ("*", "ana/x.y", ""),
        ("@builders", "public/a", "pull"),
    ],
)
def test_rules(path: Path, user: str, repository: str, allowed: str) -> None:
    policy = read_policy(path)
    assert {a for a in Action if policy.allows(user, repository, a)} == set(allowed.split())


def test_without_a_file() -> None:
    assert open_to(EVERYBODY).allows("", "a", Action.DELETE)
    assert open_to(SIGNED_IN).allows("ana", "a", Action.DELETE)
    assert not open_to(SIGNED_IN).allows("", "a", Action.PULL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[repository]]\nmatch = 1", "needs `match`"),
        ("[[repository]]\nmatch = 'a'\nread = 'ana'", "read of 'a' must be a list"),
        ("[[repository]]\nmatch = 'a'\nwrit = []", "a rule has 'writ'"),
        ("[[repository]]\nmatch = 'a'\nread = ['@x']", "no group 'x'"),
        ("[repository]\nmatch = 'a'", r"under \[\[repository\]\]"),
        ("groups = 1", "groups must be a table"),
        ("rules = 1", "the file has 'rules'"),
        ("nonsense", "Expected"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=words) as raised:
        read_policy(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot read the policy"):
        read_policy(tmp_path / "none")


def test_scopes_meet_rights(path: Path) -> None:
    scopes = [
        "repository:team/a:pull,push,delete repository:public/b:*",
        "repository:ana/x.y:pull",
        "registry:catalog:*",
        "repository:../../etc:pull",
        "nonsense",
        "repository:team/a",
    ]
    assert granted(read_policy(path), "ben", scopes) == {
        "team/a": {"pull", "push"},
        "public/b": {"pull", "push"},
        "ana/x.y": set(),
        CATALOG: {"*"},
    }
