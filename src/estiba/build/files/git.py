"""Git repositories as build contexts and for ADD: one commit, as shallow as it comes.

A repository is hostile: what it holds only ever becomes files, and a directory in it is found
by openat2 inside the checkout.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from estiba.build.files.gitcommand import Git, GitAccess, GitLimits
from estiba.build.files.giturls import GitSource
from estiba.distribution.cancel import CancelToken
from estiba.kernel.confined import open_in_root, opened_root
from estiba.kernel.trees import discard_tree, opened_directory, remove_tree, walk
from estiba.model.errors import (
    InvalidArgument,
    NotFound,
    Unavailable,
)

_ADVERTISED = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)")
_TOKEN_USER = "x-access-token"
_DEPTH = "--depth=1"
_SHA256_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Checkout:
    """`root` holds the files; `commit` is the commit's id, `ref` its full name if it has one."""

    root: Path
    commit: str
    ref: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """`commit` is empty when only a fetch can tell: the ref is a commit's id itself then."""

    commit: str
    ref: str


def resolve_commit(
    source: GitSource,
    directory: Path,
    *,
    access: GitAccess = GitAccess(),  # noqa: B008
    limits: GitLimits = GitLimits(),  # noqa: B008
    cancel: CancelToken | None = None,
) -> str:
    """The id of the commit that `source` means now, without loading it. Blocks.

    `directory` is empty and scratch. Raises as `check_out`.
    """
    return _resolve(_git(source, directory, access, limits, cancel), source).commit


def check_out(
    source: GitSource,
    directory: Path,
    *,
    keep_git_dir: bool = False,
    access: GitAccess = GitAccess(),  # noqa: B008
    limits: GitLimits = GitLimits(),  # noqa: B008
    cancel: CancelToken | None = None,
) -> Checkout:
    """Loads the commit into the empty `directory`. Blocks.

    What the address says of the git directory goes before `keep_git_dir`. All times are the
    commit's. Raises NotFound for a ref or directory that is not there, InvalidArgument for
    another commit than wanted, Unavailable with git's words, FailedPrecondition without git,
    DeadlineExceeded, LimitExceeded, Cancelled.
    """
    git = _git(source, directory, access, limits, cancel)
    resolved = _resolve(git, source)
    shown = f"load {source.shown}"
    form = "sha256" if len(resolved.commit) == _SHA256_DIGITS else "sha1"
    git.run("init", "--quiet", f"--object-format={form}", ".", shown=shown)
    git.run("remote", "add", "origin", "--", source.remote, shown=shown)
    commit = _fetch(git, source, resolved, shown)
    _check_commit(source, commit, resolved.commit)
    _place_head(git, resolved, commit, shown)
    if source.submodules and (directory / "work" / ".gitmodules").is_file():
        _load_submodules(git, shown)
    git.check_size(shown)
    keeps = keep_git_dir if source.keep_git_dir is None else source.keep_git_dir
    moment = int(git.run("show", "--no-patch", "--format=%ct", commit, "--", shown=shown))
    work = directory / "work"
    discard_tree(directory / "home")
    _finish(work, keeps=keeps, mtime_ns=max(moment, 0) * 10**9)
    root = _subdirectory(work, source) if source.subdir.strip("/.") else work
    return Checkout(root, commit, resolved.ref)


def _git(
    source: GitSource,
    directory: Path,
    access: GitAccess,
    limits: GitLimits,
    cancel: CancelToken | None,
) -> Git:
    work, home = directory / "work", directory / "home"
    for each in (work, home):
        each.mkdir(exist_ok=True)
    work.chmod(0o755)
    value = access.header or (_basic(access.token) if access.token else source.authorization)
    authorization = (source.origin, value) if value and source.origin else None
    if "\n" in value or "\r" in value:
        raise InvalidArgument("the secret for git holds a line break, so it is no header's value")
    return Git(
        work,
        home,
        access=access,
        authorization=authorization,
        limits=limits,
        cancel=cancel or CancelToken(),
    )


def _basic(token: str) -> str:
    pair = f"{_TOKEN_USER}:{token.strip()}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


# -- which commit --------------------------------------------------------------------------


def _resolve(git: Git, source: GitSource) -> Resolved:
    """A branch goes before a tag of the same name, as in `git checkout`."""
    if source.is_commit:
        return Resolved(source.ref, "")
    ref = source.ref
    shown = f"ask {source.remote} for its branches and tags"
    patterns = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]
    listed = git.run("ls-remote", "--symref", "--", source.remote, *patterns, shown=shown)
    named = {
        match[2]: match[1] for match in map(_ADVERTISED.fullmatch, listed.splitlines()) if match
    }
    if not ref:
        head = next(
            (line.split()[1] for line in listed.splitlines() if line[:5] == "ref: "), "HEAD"
        )
        if "HEAD" not in named:
            raise NotFound(f"{source.remote} has no commit yet, or none that it calls its own")
        return Resolved(named["HEAD"], head)
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref, f"refs/{ref}"):
        if name in named:
            return Resolved(named.get(f"{name}^{{}}", named[name]), name)
    hint = ""
    if re.fullmatch(r"[0-9a-f]{7,39}", ref):
        hint = "; a commit is named by its whole id, of 40 digits"
    raise NotFound(f"{source.remote} has no branch or tag {ref!r}{hint}")


def _fetch(git: Git, source: GitSource, resolved: Resolved, shown: str) -> str:
    if resolved.ref:
        wanted = resolved.ref
        spec = wanted if wanted == "HEAD" else f"+{wanted}:{_tracking(wanted)}"
        command = ("fetch", "--quiet", "--no-tags", "origin", spec)
        try:
            git.run(*command, _DEPTH, shown=shown)
        except Unavailable as error:
            if "shallow" not in error.message:
                raise
            # A server of plain files (gitprotocol-http(5), "dumb") has all of it or nothing.
            git.run(*command, shown=shown)
    else:
        try:
            git.run("fetch", "--quiet", _DEPTH, "--no-tags", "origin", resolved.commit, shown=shown)
        except Unavailable:
            # Servers need not give commits by their ids: then the whole history has to come.
            specs = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
            git.run("fetch", "--quiet", "origin", *specs, shown=shown)
            return _commit_of(git, source, resolved.commit, shown)
    return _commit_of(git, source, "FETCH_HEAD", shown)


def _tracking(ref: str) -> str:
    branch = ref.removeprefix("refs/heads/")
    return f"refs/remotes/origin/{branch}" if branch != ref else ref


def _commit_of(git: Git, source: GitSource, name: str, shown: str) -> str:
    try:
        return git.run(
            "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", shown=shown
        ).strip()
    except Unavailable as error:
        raise NotFound(f"{source.remote} has no commit {source.ref or name}") from error


def _check_commit(source: GitSource, commit: str, advertised: str) -> None:
    if source.commit and not commit.startswith(source.commit):
        raise InvalidArgument(
            f"{source.shown} leads to commit {commit}, and {source.commit} is wanted; "
            "either the ref moved or another repository answers"
        )
    if advertised and commit != advertised:
        raise Unavailable(f"{source.shown} moved while it was loaded; try again")


# -- files ---------------------------------------------------------------------------------


def _place_head(git: Git, resolved: Resolved, commit: str, shown: str) -> None:
    branch = resolved.ref.removeprefix("refs/heads/")
    if branch != resolved.ref:
        git.run("checkout", "--quiet", "--force", "-B", branch, commit, "--", shown=shown)
    else:
        git.run("checkout", "--quiet", "--force", "--detach", commit, "--", shown=shown)


def _load_submodules(git: Git, shown: str) -> None:
    base = ("submodule", "--quiet", "update", "--init", "--recursive", "--force", "--checkout")
    try:
        git.run(*base, _DEPTH, shown=shown)
    except Unavailable:
        git.run(*base, shown=shown)


def _finish(work: Path, *, keeps: bool, mtime_ns: int) -> None:
    """One time for all files, so that a checkout made again is the same; git's own out."""
    with opened_directory(work) as top:
        found_git: list[str] = []
        for found in walk(top):
            if found.name == ".git" and not keeps:
                found_git.append(found.path)
            os.utime(
                found.name, ns=(mtime_ns, mtime_ns), dir_fd=found.parent, follow_symlinks=False
            )
        for path in found_git:
            _remove(top, path)
        os.utime(top, ns=(mtime_ns, mtime_ns))


def _remove(top: int, path: str) -> None:
    """Submodules have a file `.git`, others a directory; one may have gone with another."""
    parent, _, name = path.rpartition("/")
    try:
        fd = open_in_root(top, parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(fd)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                remove_tree(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
        os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def _subdirectory(work: Path, source: GitSource) -> Path:
    with opened_root(work) as root:
        try:
            fd = open_in_root(root, source.subdir, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise NotFound(
                f"{source.remote} has no directory {source.subdir!r} at {source.ref or 'HEAD'}"
            ) from error
        try:
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)
