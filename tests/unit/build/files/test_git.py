"""Git checkouts, from real repositories behind a real server on loopback."""

from __future__ import annotations

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.daemon import wait_until
from tests.support.gitserver import GitServer, commit, git_server, make_repository, run_git

from estiba.build.files import gitcommand
from estiba.build.files.git import Checkout, GitAccess, GitLimits, check_out, resolve_commit
from estiba.build.files.giturls import parse_git_url
from estiba.distribution.cancel import CancelToken
from estiba.model.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    Unavailable,
)

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "served" / "r.git", {"Dockerfile": "FROM x", "d/f": "one"})


@pytest.fixture
def server(tmp_path: Path, repository: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "served") as made:
        yield made


@pytest.fixture
def into(tmp_path: Path) -> Path:
    made = tmp_path / "into"
    made.mkdir()
    return made


def load(server: GitServer, into: Path, end: str = "", **more: object) -> Checkout:
    return check_out(parse_git_url(server.url("r.git") + end), into, **more)  # type: ignore[arg-type]


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_the_head_of_a_repository(server: GitServer, repository: Path, into: Path) -> None:
    done = load(server, into)
    assert done.commit == run_git(repository, "rev-parse", "HEAD")
    assert done.ref == "refs/heads/main"
    assert names(done.root) == ["Dockerfile", "d", "d/f"]
    for path in (done.root, done.root / "d", done.root / "d" / "f"):
        assert path.stat().st_mtime == 1_000_000_000
    assert not (into / "home").exists()


def test_branches_tags_commits_and_directories(
    server: GitServer, repository: Path, tmp_path: Path
) -> None:
    first = run_git(repository, "rev-parse", "HEAD")
    run_git(repository, "tag", "-a", "v1", "-m", "annotated")
    run_git(repository, "checkout", "--quiet", "-b", "side/branch")
    second = run_git(commit(repository, {"d/f": "two"}), "rev-parse", "HEAD")
    run_git(repository, "checkout", "--quiet", "main")
    commit(repository, {"d/f": "three"})
    cases = {
        "#v1": (first, "one"),
        "?tag=v1": (first, "one"),
        "#refs/tags/v1": (first, "one"),
        "#side/branch": (second, "two"),
        "?branch=side/branch": (second, "two"),
        f"#{first}": (first, "one"),
        f"?commit={second}": (second, "two"),
        f"?tag=v1&checksum={first[:12]}": (first, "one"),
    }
    for number, (end, (expected, text)) in enumerate(cases.items()):
        into = tmp_path / f"case{number}"
        into.mkdir()
        done = load(server, into, end)
        assert (done.commit, (done.root / "d" / "f").read_text()) == (expected, text), end
        assert resolve_commit(parse_git_url(server.url("r.git") + end), into) == expected
    into = tmp_path / "sub"
    into.mkdir()
    done = load(server, into, "#v1:d")
    assert names(done.root) == ["f"]


def test_the_git_directory_is_kept_where_it_is_wanted(
    server: GitServer, repository: Path, tmp_path: Path
) -> None:
    cases = [("", False, False), ("", True, True), ("?keep-git-dir=true", False, True),
             ("?keep-git-dir=false", True, False)]  # fmt: skip
    for number, (end, wanted, kept) in enumerate(cases):
        into = tmp_path / f"case{number}"
        into.mkdir()
        done = load(server, into, end, keep_git_dir=wanted)
        assert (done.root / ".git").exists() is kept
        if kept:
            assert run_git(done.root, "log", "--format=%H") == done.commit
            assert run_git(done.root, "status", "--porcelain") == ""
            assert run_git(done.root, "rev-parse", "--abbrev-ref", "HEAD") == "main"


def test_submodules_come_along(server: GitServer, repository: Path, tmp_path: Path) -> None:
    make_repository(tmp_path / "served" / "sub.git", {"inner": "inner"})
    run_git(repository, "submodule", "--quiet", "add", "../sub.git", "mods/sub")
    commit(repository, {})
    for number, (end, expected) in enumerate([("", True), ("?submodules=false", False)]):
        into = tmp_path / f"case{number}"
        into.mkdir()
        done = load(server, into, end)
        assert (done.root / "mods/sub/inner").exists() is expected
        assert not any(".git" in Path(name).parts for name in names(done.root))


def test_no_submodule_reads_files_of_the_host(
    server: GitServer, repository: Path, tmp_path: Path, into: Path
) -> None:
    secret = make_repository(tmp_path / "secret", {"canary": "canary"})
    run_git(repository, "submodule", "--quiet", "add", str(secret), "stolen")
    commit(repository, {})
    with pytest.raises(Unavailable, match="transport 'file' not allowed"):
        load(server, into)
    assert not any("canary" in name for name in names(into))


def test_nothing_of_a_repository_is_run(
    server: GitServer, repository: Path, tmp_path: Path, into: Path
) -> None:
    mark = tmp_path / "mark"
    commit(
        repository,
        {
            ".gitattributes": "* filter=evil\n",
            ".gitmodules": f'[submodule "x"]\npath = x\nurl = ext::sh -c "touch {mark}"\n'
            f"update = !touch {mark}\n",
            ".gitconfig": f'[filter "evil"]\nsmudge = touch {mark}\n',
            "hooks/post-checkout": f"#!/bin/sh\ntouch {mark}\n",
        },
    )
    load(server, into)
    assert not mark.exists()


def test_configuration_of_the_host_and_user_does_not_count(
    server: GitServer, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(f'[url "{tmp_path}/none/"]\ninsteadOf = http://\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert load(server, into).commit


def test_a_directory_in_the_repository_stays_in_it(
    server: GitServer, repository: Path, tmp_path: Path
) -> None:
    (repository / "out").symlink_to("/etc")
    (repository / "inside").symlink_to("/d")
    commit(repository, {})
    for number, (subdir, expected) in enumerate(
        [("out", None), ("../../etc", None), ("inside", "f")]
    ):
        into = tmp_path / f"case{number}"
        into.mkdir()
        if expected is None:
            with pytest.raises(NotFound, match="has no directory"):
                load(server, into, f"#:{subdir}")
        else:
            assert names(load(server, into, f"#:{subdir}").root) == [expected]


def test_what_is_not_there_is_told(server: GitServer, repository: Path, tmp_path: Path) -> None:
    head = run_git(repository, "rev-parse", "HEAD")
    wrong = "0" * 40
    cases = [
        ("#none", NotFound, "has no branch or tag 'none'"),
        (f"#{head[:10]}", NotFound, "a commit is named by its whole id"),
        (f"#{wrong}", (NotFound, Unavailable), wrong),
        ("#main?x", InvalidArgument, "names no branch"),
        (f"?branch=main&commit={wrong}", InvalidArgument, f"leads to commit {head}"),
    ]  # fmt: skip
    for number, (end, error, message) in enumerate(cases):
        into = tmp_path / f"case{number}"
        into.mkdir()
        with pytest.raises(error, match=message):
            load(server, into, end)
    into = tmp_path / "none"
    into.mkdir()
    with pytest.raises(Unavailable, match=r"git cannot ask .*none\.git"):
        check_out(parse_git_url(server.url("none.git")), into)


def test_secrets_are_sent_and_never_shown(
    server: GitServer, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.authorization = "Basic eC1hY2Nlc3MtdG9rZW46dDBrM24="
    lines: list[str] = []
    started = gitcommand.subprocess.Popen

    def watched(arguments: list[str], **more: object) -> object:
        lines.extend(arguments)
        return started(arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(gitcommand.subprocess, "Popen", watched)
    done = load(server, into, keep_git_dir=True, access=GitAccess(token="t0k3n"))
    assert done.commit
    for secret in ("t0k3n", "eC1hY2Nl"):
        assert not any(secret in line for line in lines)
        assert secret not in repr(GitAccess(token="t0k3n"))
        assert secret not in (done.root / ".git" / "config").read_text()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(Unavailable) as caught:
        load(server, other, access=GitAccess(token="wr0ng"))
    assert "wr0ng" not in str(caught.value)
    last = tmp_path / "last"
    last.mkdir()
    url = server.url("r.git").replace("//", "//x-access-token:t0k3n@")
    assert check_out(parse_git_url(url), last).commit == done.commit
    with pytest.raises(InvalidArgument, match="line break"):
        load(server, tmp_path, access=GitAccess(header="a\nX: y"))


def test_a_secret_goes_to_its_own_host_alone(
    server: GitServer, repository: Path, tmp_path: Path, into: Path
) -> None:
    make_repository(tmp_path / "elsewhere" / "sub.git", {"inner": "inner"})
    with git_server(tmp_path / "elsewhere") as other:
        commit(
            repository,
            {".gitmodules": f'[submodule "s"]\npath = s\nurl = {other.url("sub.git")}\n'},
        )
        head = run_git(tmp_path / "elsewhere" / "sub.git", "rev-parse", "HEAD")
        run_git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head},s")
        run_git(repository, "commit", "--quiet", "-m", "module")
        done = load(server, into, access=GitAccess(token="t0k3n"))
        assert (done.root / "s" / "inner").exists()
        assert other.seen and not any(value for _, value in other.seen)
    assert all(value for _, value in server.seen)


def test_no_redirect_takes_a_secret_elsewhere(
    server: GitServer, repository: Path, tmp_path: Path, into: Path
) -> None:
    with git_server(tmp_path / "served") as other:
        server.elsewhere = other.url("").rstrip("/")
        with pytest.raises(Unavailable, match="302"):
            load(server, into, access=GitAccess(token="t0k3n"))
        assert not other.seen
        plain = tmp_path / "plain"
        plain.mkdir()
        assert load(server, plain).commit == run_git(repository, "rev-parse", "HEAD")


def test_a_cancelled_checkout_ends_with_all_its_processes(server: GitServer, into: Path) -> None:
    server.hangs = True
    cancel = CancelToken()

    def end() -> None:
        server.asked.wait(30)
        cancel.cancel()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Cancelled):
        load(server, into, cancel=cancel)
    thread.join()
    # They were killed together; each takes its own time to die.
    wait_until(lambda: not _with_cwd(into), what="git and its helpers to end")


def _with_cwd(directory: Path) -> list[str]:
    """Processes that work below the directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(str(directory)):
                found.append(pid)
        except OSError:
            continue
    return found


def test_time_and_size_are_limited(server: GitServer, tmp_path: Path, into: Path) -> None:
    with pytest.raises(LimitExceeded, match="more than 10 bytes"):
        load(server, into, limits=GitLimits(size_bytes=10))
    server.hangs = True
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DeadlineExceeded, match="took longer"):
        load(server, other, limits=GitLimits(time_s=0.3))


def test_a_host_without_git_is_told(
    server: GitServer, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitcommand, "_PATH", "/nonexistent")
    with pytest.raises(FailedPrecondition, match="git is not installed on the engine's host"):
        load(server, into)


def test_a_server_of_plain_files_will_do(repository: Path, tmp_path: Path) -> None:
    """As any web server is for a bare repository after `git update-server-info`."""
    run_git(repository, "tag", "v1")
    bare = tmp_path / "plain" / "r.git"
    bare.parent.mkdir()
    run_git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    run_git(bare, "update-server-info")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=bare.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        try:
            for number, end in enumerate(("", "#main", "#v1", f"#{'d' * 40}")):
                into = tmp_path / f"plain{number}"
                into.mkdir()
                source = parse_git_url(f"http://127.0.0.1:{web.server_port}/r.git{end}")
                if "dd" in end:
                    with pytest.raises(NotFound):
                        check_out(source, into)
                else:
                    assert names(check_out(source, into).root) == ["Dockerfile", "d", "d/f"]
        finally:
            web.shutdown()
