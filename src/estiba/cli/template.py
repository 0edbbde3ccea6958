"""Go templates for `--format`: the part of text/template that people use with docker.

Fields, methods of rows, pipelines, variables, if/else if/range/with/else/end, comments, trim
markers, and the functions of Docker's formatter. Compiled to closures, evaluated over JSON values.
Not there: define, template, block, break, continue.
"""

from __future__ import annotations

from estiba.cli.parse import UsageError
from estiba.cli.templatefuncs import FUNCTIONS, Missing, TemplateError, show, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_USER_KEYED = frozenset(
    "Labels Annotations Networks Ports PortBindings ExposedPorts Volumes Sysctls Tmpfs Options "
    "DriverOpts StorageOpt Containers Runtimes Attributes Details Config Env".split()
)
"""Objects whose keys are the users': a key that is not there is no error."""
_PREFIXES = {
    True: ("failed to parse template", "failed to execute template"),
    False: ("template parsing error", "template parsing error"),
}
_NEVER = "define template block break continue".split()


class Scope:
    """The dot and the variables at one place."""

    __slots__ = ("dot", "outer", "variables")

    def __init__(self, dot: Any, outer: Scope | None = None) -> None:
        self.dot = dot
        self.outer = outer
        self.variables: dict[str, Any] = {}

    def lookup(self, name: str) -> Any:
        return self._holder(name).variables[name]

    def assign(self, name: str, value: Any) -> None:
        self._holder(name).variables[name] = value

    def _holder(self, name: str) -> Scope:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.variables:
                return scope
            scope = scope.outer
        raise TemplateError(f"undefined variable {name!r}")


def compile_template(template: str, *, rows: bool = False) -> Callable[[Any], str]:
    """A function from a value to text; both raise UsageError, in docker's words for rows of a
    list or for objects.
    """
    wrong_text, wrong_value = _PREFIXES[rows]
    try:
        tokens = list(_tokens(template))
        reader = _Reader(tokens)
        nodes = reader.block()
        if reader.index < len(tokens):
            raise TemplateError(f"unexpected {{{{{tokens[reader.index][1]}}}}}")
    except TemplateError as error:
        raise UsageError(f"{wrong_text}: template: :1: {error}") from None

    def run(value: Any) -> str:
        scope = Scope(value)
        scope.variables["$"] = value
        try:
            return "".join(node(scope) for node in nodes)
        except TemplateError as error:
            raise UsageError(f"{wrong_value}: template: :1: {error}") from None

    return run


# -- reading -------------------------------------------------------------------------------


def _tokens(template: str) -> Iterator[tuple[str, str]]:
    """("text", …) and ("action", …) in turn."""
    rest = template
    trim = False
    while rest:
        text, opening, rest = rest.partition("{{")
        if trim:
            text = text.lstrip()
        if opening and rest[:1] == "-" and rest[1:2].isspace():
            text, rest = text.rstrip(), rest[1:].lstrip()
        if text:
            yield "text", text
        if not opening:
            return
        end = _end_of_action(rest)
        action, rest = rest[:end], rest[end + 2 :]
        trim = action.endswith("-") and action[-2:-1].isspace()
        action = (action[:-1] if trim else action).strip()
        if not action.startswith("/*"):
            yield "action", action


def _end_of_action(text: str) -> int:
    """Where `}}` stands outside of strings. Raises TemplateError."""
    quote = ""
    index = 0
    while index < len(text):
        character = text[index]
        if quote:
            if character == "\\" and quote == '"':
                index += 1
            elif character == quote:
                quote = ""
        elif character in '"`':
            quote = character
        elif text.startswith("}}", index):
            return index
        index += 1
    raise TemplateError("unclosed action")


class _Reader:
    """Tokens to nodes: functions from a scope to text."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self.index = 0

    def block(self) -> list[Callable[[Scope], str]]:
        """Nodes up to `end` or `else`."""
        nodes: list[Callable[[Scope], str]] = []
        while self.index < len(self._tokens):
            kind, text = self._tokens[self.index]
            word, _, rest = text.partition(" ")
            if kind == "text":
                nodes.append(_literal(text))
            elif word in ("end", "else"):
                return nodes
            elif word in ("if", "range", "with"):
                self.index += 1
                nodes.append(self._control(word, rest.strip()))
            elif word in _NEVER:
                raise TemplateError(f"{word} is not supported")
            else:
                nodes.append(_action(text))
            self.index += 1
        return nodes

    def _control(self, word: str, condition: str) -> Callable[[Scope], str]:
        """Leaves the index at the `end`."""
        body = self.block()
        otherwise: list[Callable[[Scope], str]] = []
        if self.index >= len(self._tokens):
            raise TemplateError(f"unexpected EOF: {word} without end")
        action = self._tokens[self.index][1]
        self.index += 1
        if action.startswith("else"):
            again, _, rest = action[4:].strip().partition(" ")
            if again:
                if again not in ("if", "with") or word == "range":
                    raise TemplateError(f"unexpected {action!r}")
                otherwise = [self._control(again, rest.strip())]
                return _make_control(word, condition, body, otherwise)
            otherwise = self.block()
            if self.index >= len(self._tokens) or self._tokens[self.index][1] != "end":
                raise TemplateError(f"unexpected EOF: {word} without end")
            self.index += 1
        self.index -= 1
        return _make_control(word, condition, body, otherwise)


def _literal(text: str) -> Callable[[Scope], str]:
    return lambda scope: text


def _make_control(
    word: str,
    condition: str,
    body: list[Callable[[Scope], str]],
    otherwise: list[Callable[[Scope], str]],
) -> Callable[[Scope], str]:
    names, _, pipeline = _declaration(condition)

    def run(nodes: list[Callable[[Scope], str]], scope: Scope) -> str:
        return "".join(node(scope) for node in nodes)

    def each(scope: Scope, key: Any, item: Any) -> str:
        inner = Scope(item, scope)
        for name, value in zip(reversed(names), (item, key), strict=False):
            inner.variables[name] = value
        return run(body, inner)

    def branch(scope: Scope) -> str:
        value = pipeline(scope)
        if word == "range":
            items = list(_items(value))
            if items:
                return "".join(each(scope, key, item) for key, item in items)
            return run(otherwise, Scope(scope.dot, scope))
        holds = truth(value)
        inner = Scope(value if word == "with" and holds else scope.dot, scope)
        for name in names:
            inner.variables[name] = value
        return run(body if holds else otherwise, inner)

    return branch


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(index, index) for index in range(value)]
    if value is None or isinstance(value, Missing):
        return []
    raise TemplateError(f"range can't iterate over {show(value)}")


def _declaration(text: str) -> tuple[list[str], str, Callable[[Scope], Any]]:
    """`$k, $v := pipeline` or `$v = pipeline`."""
    if text.startswith("$"):
        for sign in (":=", "="):
            left, found, right = text.partition(sign)
            names = [name.strip() for name in left.split(",")]
            if found and all(name.startswith("$") and name[1:].isidentifier() for name in names):
                return names, sign, _pipeline(right.strip())
    return [], "", _pipeline(text)


def _action(text: str) -> Callable[[Scope], str]:
    names, sign, pipeline = _declaration(text)
    field = text.rpartition(".")[2] if text[:1] in ".$" and " " not in text else ""

    def run(scope: Scope) -> str:
        value = pipeline(scope)
        if not names:
            return show(value, field)
        if sign == ":=":
            scope.variables[names[0]] = value
        else:
            scope.assign(names[0], value)
        return ""

    return run


# -- pipelines -----------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    """Words of an action; strings and brackets stay whole."""
    words = [""]
    depth = 0
    quote = ""
    escaped = False
    for character in text:
        if quote:
            words[-1] += character
            if escaped:
                escaped = False
            elif character == "\\" and quote == '"':
                escaped = True
            elif character == quote:
                quote = ""
            continue
        if not depth and (character.isspace() or character == "|"):
            words += ["|", ""] if character == "|" else [""]
            continue
        if character in '"`':
            quote = character
        depth += {"(": 1, ")": -1}.get(character, 0)
        words[-1] += character
    if quote or depth:
        raise TemplateError(f"unclosed quote or bracket in {text!r}")
    return [word for word in words if word]


def _pipeline(text: str) -> Callable[[Scope], Any]:
    stages: list[list[str]] = [[]]
    for word in _words(text):
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    if not all(stages):
        raise TemplateError("missing value for command")
    calls = [_call(stage) for stage in stages]

    def run(scope: Scope) -> Any:
        piped: list[Any] = []
        for call in calls:
            piped = [call(scope, piped)]
        return piped[0]

    return run


def _call(words: list[str]) -> Callable[[Scope, list[Any]], Any]:
    name, *rest = words
    function = FUNCTIONS.get(name)
    if function is None and name[0].isalpha() and name not in ("true", "false", "nil"):
        raise TemplateError(f'function "{name}" not defined')
    head = _operand(name) if function is None else _constant(function)
    operands = [_operand(word) for word in rest]

    def run(scope: Scope, piped: list[Any]) -> Any:
        values = [operand(scope) for operand in operands] + piped
        target = head(scope)
        if not callable(target):
            if values:
                raise TemplateError(f"can't give argument to non-function {name}")
            return target
        try:
            return target(*values)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise TemplateError(f"error calling {name}: {error}") from None

    return run


def _operand(word: str) -> Callable[[Scope], Any]:
    if word.startswith("("):
        close = word.rindex(")")
        inner, path = _pipeline(word[1:close]), word[close + 1 :]
        return lambda scope: _walk(inner(scope), path)
    if word[0] == '"':
        return _constant(_unquoted(word))
    if word[0] == "`":
        return _constant(word[1:-1])
    if word in ("true", "false", "nil"):
        return _constant({"true": True, "false": False, "nil": None}[word])
    if word.lstrip("+-").replace(".", "", 1).isdecimal():
        return _constant(float(word) if "." in word else int(word))
    if word.startswith("$"):
        name, dot, path = word.partition(".")
        return lambda scope: _walk(scope.lookup(name), dot + path)
    if word.startswith("."):
        return lambda scope: _walk(scope.dot, word)
    function = FUNCTIONS.get(word)
    if function is None:
        raise TemplateError(f'function "{word}" not defined')
    return lambda scope: function()


def _unquoted(word: str) -> str:
    from estiba.client.jsonlite import loads

    try:
        return str(loads(word))
    except ValueError:
        raise TemplateError(f"bad string {word}") from None


def _constant(value: Any) -> Callable[[Scope], Any]:
    return lambda scope: value


def _walk(value: Any, path: str) -> Any:
    """Raises TemplateError for a field that is not there, but in objects with keys of users'."""
    parent = ""
    for part in path.split("."):
        if not part:
            continue
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, dict) and parent in _USER_KEYED:
            value = Missing(part, allowed=True)
        elif isinstance(value, dict):
            value = _other_case(value, part)
        elif isinstance(value, Missing):
            value = Missing(part)
        elif value is None:
            raise TemplateError(f"nil pointer evaluating field {part}")
        else:
            raise TemplateError(f"can't evaluate field {part} in {show(value)}")
        parent = part
    return value


def _other_case(value: dict[str, Any], part: str) -> Any:
    """Go's fields and their JSON names differ in case: `ID` and `Id`, `APIVersion`."""
    wanted = part.lower()
    return next((value[key] for key in value if key.lower() == wanted), Missing(part))
