"""Which build arguments a RUN may use: those that must be part of its cache key.

An argument is in the environment of all that the step runs, so it is left out of the key only
where nothing that runs can notice it. Whatever is not known to be so counts as use: the worst
outcome is a step done again. Pure: nothing is run and no file is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from estiba.build.dockerfile.heredocs import script_of
from estiba.build.dockerfile.instructions import Heredoc
from estiba.build.shell_text import simple_commands
from estiba.build.shell_words import Command, NotUnderstood, Word

_LIBRARIES = re.compile(
    # libc, the loader and what the basic programs below read, in GNU's and busybox's forms.
    r"LC_\w*|LD_\w*|LANG\w*|LOCPATH|NLSPATH|GCONV_\w*|GETCONF_\w*|MALLOC_\w*|GLIBC_\w*|MUSL_\w*"
    r"|LIBC_\w*|TZ\w*|DATEMSK|HOSTALIASES|LOCALDOMAIN|RES_\w*|RESOLV_\w*|NSS_\w*|NIS_\w*"
    r"|TMP\w*|TEMP|HOME|PATH|USER|LOGNAME|SHELL|TERM\w*|COLUMNS|LINES|\w*POSIX\w*|UNIX95"
    r"|BLOCK_?SIZE|\w+_BLOCK_?SIZE|TIME_STYLE|TABSIZE|QUOTING_STYLE|LS_\w*|DIR_COLORS|COLORTERM"
    r"|NO_COLOR|CLICOLOR\w*|GREP_\w*|VERSION_CONTROL|SIMPLE_BACKUP_SUFFIX|OMP_\w*|GOMP_\w*|KMP_\w*"
    r"|QEMU_\w*|SELINUX\w*|ASAN_\w*|UBSAN_\w*|GCOV_\w*|LLVM_PROFILE_\w*"
    # shells
    r"|IFS|ENV|PS[0-9]\w*|PWD|OLDPWD|CDPATH|OPT(?:IND|ERR|ARG)|BASH\w*|ASH\w*|KSH\w*|ZSH\w*|ZDOTDIR"
    r"|FPATH|FUNCNEST|GLOB\w*|EXECIGNORE|FIGNORE|SHELLOPTS|SHLVL|HIST\w*|MAIL\w*|PPID|[E]?UID"
    r"|RANDOM|SRANDOM|SECONDS|EPOCH\w*|LINENO|REPLY|COMP\w*|PROMPT_\w*|TIMEFORMAT|TMOUT|CHILD_MAX"
    r"|INPUTRC|IGNOREEOF|FCEDIT|EDITOR|VISUAL|PAGER|DIRSTACK|GROUPS|HOSTNAME|HOSTTYPE|MACHTYPE"
    r"|OSTYPE|PIPESTATUS|READLINE_\w*|COPROC\w*|MAPFILE|_"
)
_TAKES_OVER = re.compile(
    r"BASH_ENV|ENV|LD_PRELOAD|LD_AUDIT|FPATH|ZDOTDIR|SHELLOPTS|BASHOPTS|BASH_FUNC_.*"
)
"""Where one of these is set, other code than what is written runs in each program."""
_CHANGES_PROGRAMS = re.compile(r"PATH|LD_\w*|BASH\w*|ENV|FPATH|SHELLOPTS|IFS|POSIX\w*")
_READS_ENVIRONMENTS = re.compile(r"(?<![A-Za-z0-9])(?:proc|fd)(?![A-Za-z0-9])|environ")
"""/dev/fd is a way into /proc too."""
_SHELLS = frozenset({"sh", "bash", "dash", "ash"})
_SHELL_OPTION = re.compile(r"-[ceuxfvE]*c|-[euxfvE]+|-[ceuxfvE]*o")
_SHELL_SETTINGS = frozenset({"pipefail", "errexit", "nounset", "xtrace", "noglob", "verbose"})
_DIRECTORIES = frozenset({"/bin", "/usr/bin", "/sbin", "/usr/sbin"})
_BASIC = frozenset(
    "arch b2sum base32 base64 basename cat chgrp chmod chown cksum comm cp cut date dd df dirname "
    "du echo egrep expand expr false fgrep fold grep groups head id join link ln ls md5sum mkdir "
    "mkfifo mknod mktemp mv nl nproc od paste pathchk pwd readlink realpath rm rmdir seq sha1sum "
    "sha224sum sha256sum sha384sum sha512sum shuf sleep stat sum sync tac tail tee touch tr true "
    "truncate tsort tty uname unexpand uniq unlink wc which whoami yes "
    ": cd exit break continue shift return umask wait ulimit type hash".split()
)
"""Programs and builtins that read no variables but those above and run no other program."""
_NO_READERS = frozenset(
    "arch basename chgrp chmod chown df dirname du echo expr false groups id ls mkdir mkfifo mknod "
    "mktemp nproc pathchk pwd readlink realpath rm rmdir seq sleep stat sync touch true tty uname "
    "unlink which whoami yes : exit break continue shift return umask wait ulimit type hash".split()
)
"""Basic ones that open no file to read it and make no way to one, wherever their words point."""
_RECURSIVE = {"cp": "raR", "grep": "rR", "egrep": "rR", "fgrep": "rR"}
_ROOT_IS_FINE = frozenset(
    "cd chgrp chmod chown df dirname du echo basename ls mkdir rm stat : test [".split()
)
_WORD = re.compile(r"[A-Za-z0-9_]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNARY = frozenset(f"-{letter}" for letter in "bcdefghknprstuwxzGLNOS")
_BINARY = frozenset(
    {"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"}
)
_SED_OPTION = re.compile(r"-[nErsuz]*i?|-i\.\w+|--in-place|--quiet|--regexp-extended")
_SED_SCRIPT = re.compile(
    # Other commands read and write files or run programs.
    r"s(?P<d>[^\w\s\\])(?:(?!(?P=d))[^\\\n]|\\.)*(?P=d)(?:(?!(?P=d))[^\\\n]|\\.)*(?P=d)[gpiI0-9]*"
    r"|(?:\d+|\$|/(?:[^/\\\n]|\\.)*/)?(?:,(?:\d+|\$))?[dpq]"
)


def uses(
    command: str | Sequence[str],
    heredocs: Sequence[Heredoc],
    names: Collection[str],
    *,
    is_shell: bool,
    shell: Sequence[str] = ("/bin/sh", "-c"),
    env: Collection[str] = (),
) -> frozenset[str]:
    """Those of `names` that the step may use.

    `command` is the one text of the shell form or the words of the exec form, `env` the names
    of the image's own variables.
    """
    everything = frozenset(names)
    if not everything or any(_TAKES_OVER.fullmatch(name) for name in (*names, *env)):
        return everything
    words = [command] if isinstance(command, str) else list(command)
    try:
        text, commands = _parsed(words, heredocs, is_shell, tuple(shell))
    except NotUnderstood:
        return everything
    if _READS_ENVIRONMENTS.search(text) or not all(map(_is_basic, commands)):
        return everything
    text = f"{text}\n{text.replace(chr(92) + chr(10), '')}"
    # Once over the text, however many names there are.
    written = frozenset(_WORD.findall(text))
    return frozenset(
        name
        for name in names
        if _LIBRARIES.fullmatch(name) or name in written or not _WORD.fullmatch(name)
    )


def _parsed(
    words: list[str], heredocs: Sequence[Heredoc], is_shell: bool, shell: tuple[str, ...]
) -> tuple[str, list[Command]]:
    if is_shell:
        script = script_of(words[0] if words else "", heredocs)
        if script.is_file and _is_plain_shell(shell):
            interpreter = tuple(script.text.partition("\n")[0].removeprefix("#!").split())
            shell = (*interpreter, "-c")
        if not _is_plain_shell(shell):
            raise NotUnderstood("an interpreter")
        return script.text, simple_commands(script.text)
    if len(words) > 1 and _is_plain_shell(tuple(words[:-1])):
        return words[-1], simple_commands(words[-1])
    command = Command((), tuple(Word(word, is_plain=True) for word in words))
    return "\n".join(words), [command]


def _is_plain_shell(words: tuple[str, ...]) -> bool:
    """Nothing but a POSIX shell told to run a text: no start-up files, no prompt."""
    if not words or _program(words[0]) not in _SHELLS or words[-1:] == ("-o",):
        return False
    rest = list(words[1:])
    has_text = False
    while rest:
        option = rest.pop(0)
        if not _SHELL_OPTION.fullmatch(option):
            return False
        has_text = has_text or "c" in option
        if option.endswith("o") and (not rest or rest.pop(0) not in _SHELL_SETTINGS):
            return False
    return has_text


def _program(word: str) -> str:
    """The name of a program that lies where basic ones do, or ""."""
    directory, slash, name = word.rpartition("/")
    return name if not slash or directory in _DIRECTORIES else ""


# -- commands ------------------------------------------------------------------------------


def _is_basic(command: Command) -> bool:
    """Whether neither it nor what it starts can notice a variable that it does not name."""
    if any(_CHANGES_PROGRAMS.fullmatch(name) for name in command.assigned):
        return False
    if not command.words:
        return True
    first, rest = command.words[0], command.words[1:]
    if first.text is None or not first.is_plain:
        return False
    program = _program(first.text)
    if program in _SPECIAL:
        return _SPECIAL[program](rest)
    return program in _BASIC and _reads_no_environment(program, rest)


def _reads_no_environment(program: str, words: Iterable[Word]) -> bool:
    """Files of the kernel show environments: no way to them may be open."""
    words = tuple(words)
    recursive = _RECURSIVE.get(program, "")
    if recursive and any(_has_option(word, recursive) for word in words):
        return all(_is_inner(word) for word in words)
    for word in words:
        text = word.text
        if text is None and program not in _NO_READERS:
            return False
        if word.has_glob and "/" in re.split(r"[*?\[]", text or "/", maxsplit=1)[-1]:
            return False
        if text is not None and _READS_ENVIRONMENTS.search(text):
            return False
        is_root = text is not None and text.startswith("/") and not text.strip("/.")
        if is_root and program not in _ROOT_IS_FINE:
            return False
    return True


def _has_option(word: Word, letters: str) -> bool:
    if word.text is None:
        return True
    if word.text.startswith("--"):
        return word.text.startswith(("--r", "--a", "--d"))
    return word.text.startswith("-") and any(letter in word.text for letter in letters)


def _is_inner(word: Word) -> bool:
    """An option, or a path that surely is not the root of the file system or above."""
    text = word.text
    if text is None or word.has_glob:
        return False
    if text.startswith("-"):
        return True
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return bool(parts) and ".." not in parts and not _READS_ENVIRONMENTS.search(text)


def _run_by(words: tuple[Word, ...]) -> bool:
    """`command`, `exec` and `busybox`: what they run decides."""
    if not words:
        return True
    text = words[0].text
    if text is None or text.startswith("-"):
        return False
    return _is_basic(Command((), words))


def _command(words: tuple[Word, ...]) -> bool:
    if words and words[0].text in ("-v", "-V"):
        return True
    return _run_by(words)


def _busybox(words: tuple[Word, ...]) -> bool:
    return bool(words) and "/" not in (words[0].text or "/") and _run_by(words)


def _test(words: tuple[Word, ...]) -> bool:
    """Only where it is plain which words are operators: some shells look a variable up by its
    name, and words that split may become more of them."""
    if any(word.splits or (word.has_glob and word.text != "]") for word in words):
        return False
    rest = list(words)
    while rest and rest[0].text == "!" and len(rest) > 1:
        rest.pop(0)
    match len(rest):
        case 0 | 1:
            return True
        case 2:
            return rest[0].text in _UNARY
        case 3:
            return rest[1].text in _BINARY
        case _:
            return False


def _bracket(words: tuple[Word, ...]) -> bool:
    return bool(words) and words[-1].text == "]" and _test(words[:-1])


def _printf(words: tuple[Word, ...]) -> bool:
    return bool(words) and words[0].text is not None and not words[0].text.startswith("-")


def _set(words: tuple[Word, ...]) -> bool:
    """Without arguments it prints all variables."""
    if not words:
        return False
    rest = list(words)
    while rest:
        text = rest.pop(0).text
        if text == "--":
            return True
        if text is None or not re.fullmatch(r"[-+][euxfvE]*o?", text) or text in ("-", "+"):
            return False
        if text.endswith("o") and (not rest or rest.pop(0).text not in _SHELL_SETTINGS):
            return False
    return True


def _export(words: tuple[Word, ...]) -> bool:
    """Without names it prints all variables."""
    for word in words:
        # A value may be known only later, a name not.
        name = _NAME.match(word.text or "")
        if word.splits or name is None or _CHANGES_PROGRAMS.fullmatch(name[0]):
            return False
        if word.text != name[0] and not (word.text or "").startswith(f"{name[0]}="):
            return False
    return bool(words)


def _names(words: tuple[Word, ...]) -> bool:
    rest = [word for word in words if word.text not in ("-r", "-v")]
    return bool(rest) and all(
        word.is_plain
        and _NAME.fullmatch(word.text or "")
        and not _CHANGES_PROGRAMS.fullmatch(word.text or "")
        for word in rest
    )


def _sed(words: tuple[Word, ...]) -> bool:
    texts = [word.text for word in words]
    known = [text for text in texts if text is not None]
    if len(known) != len(texts) or any(word.has_glob and not word.is_quoted for word in words):
        return False
    while known and known[0].startswith("-") and known[0] != "-e":
        if not _SED_OPTION.fullmatch(known.pop(0)):
            return False
    if known[:1] == ["-e"]:
        known.pop(0)
    if not known or not _SED_SCRIPT.fullmatch(known[0]):
        return False
    return not any(text.startswith("-") for text in known[1:])


def _install(words: tuple[Word, ...]) -> bool:
    """`-s` runs another program."""
    for word in words:
        if word.text is None or word.text.startswith("--s"):
            return False
        if word.text.startswith("-") and not word.text.startswith("--") and "s" in word.text:
            return False
    return _reads_no_environment("install", words)


_SPECIAL: Mapping[str, Callable[[tuple[Word, ...]], bool]] = {
    "command": _command,
    "exec": _run_by,
    "busybox": _busybox,
    "test": _test,
    "[": _bracket,
    "printf": _printf,
    "set": _set,
    "export": _export,
    "unset": _names,
    "read": _names,
    "sed": _sed,
    "install": _install,
}
