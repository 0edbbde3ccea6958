"""Go templates for `--format`: the part of text/template that people use with docker.

Fields, pipelines, if, range, with, variables, comments, trim markers, and the functions of
Docker's formatter. Compiled to a tree, evaluated over JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from estiba.cli.parse import UsageError

Node = Callable[["Scope"], str]


class Scope:
    """The dot, the root and the variables at one place."""

    def __init__(self, dot: Any, variables: dict[str, Any]) -> None:
        self.dot = dot
        self.variables = variables

    def within(self, dot: Any) -> Scope:
        return Scope(dot, dict(self.variables))


def render(template: str, value: Any) -> str:
    """Raises UsageError for a template that cannot be read or evaluated."""
    return compile_template(template)(value)


def compile_template(template: str) -> Callable[[Any], str]:
    """A function from a value to text."""
    tokens = _tokens(template.replace("\\t", "\t").replace("\\n", "\n"))
    nodes, end = _block(tokens, 0)
    if end < len(tokens):
        raise UsageError(f"template parsing error: unexpected {{{{{tokens[end][1]}}}}}")

    def run(value: Any) -> str:
        return "".join(node(Scope(value, {"$": value})) for node in nodes)

    return run


# -- reading -------------------------------------------------------------------------------


def _tokens(template: str) -> list[tuple[str, str]]:
    """("text", …) and ("action", …) in turn."""
    tokens: list[tuple[str, str]] = []
    rest = template
    trim = False
    while rest:
        text, opening, rest = rest.partition("{{")
        if trim:
            text = text.lstrip()
        if opening and rest.startswith("- "):
            text, rest = text.rstrip(), rest[2:]
        if text:
            tokens.append(("text", text))
        if not opening:
            break
        action, closing, rest = rest.partition("}}")
        if not closing:
            raise UsageError("template parsing error: unclosed action")
        trim = action.endswith(" -")
        action = action.removesuffix(" -").strip()
        if not action.startswith("/*"):
            tokens.append(("action", action))
    return tokens


def _block(tokens: list[tuple[str, str]], index: int) -> tuple[list[Node], int]:
    """Nodes up to `end` or `else`, and where that stands."""
    nodes: list[Node] = []
    while index < len(tokens):
        kind, text = tokens[index]
        if kind == "text":
            nodes.append(lambda scope, text=text: text)  # type: ignore[misc]
            index += 1
            continue
        word, _, rest = text.partition(" ")
        if word in ("end", "else"):
            return nodes, index
        if word in ("if", "range", "with"):
            node, index = _control(word, rest.strip(), tokens, index + 1)
            nodes.append(node)
            continue
        nodes.append(_action(text))
        index += 1
    return nodes, index


def _control(
    word: str, condition: str, tokens: list[tuple[str, str]], index: int
) -> tuple[Node, int]:
    body, index = _block(tokens, index)
    otherwise: list[Node] = []
    if index < len(tokens) and tokens[index][1].startswith("else"):
        rest = tokens[index][1][4:].strip()
        if rest.startswith("if "):
            node, index = _control("if", rest[3:], tokens, index + 1)
            return _make_control(word, condition, body, [node]), index
        otherwise, index = _block(tokens, index + 1)
    if index >= len(tokens):
        raise UsageError(f"template parsing error: {word} without end")
    return _make_control(word, condition, body, otherwise), index + 1


def _make_control(word: str, condition: str, body: list[Node], otherwise: list[Node]) -> Node:
    names, pipeline = _declaration(condition)

    def run(nodes: list[Node], scope: Scope) -> str:
        return "".join(node(scope) for node in nodes)

    def branch(scope: Scope) -> str:
        value = pipeline(scope)
        if word == "range":
            pairs = list(_items(value))
            if not pairs:
                return run(otherwise, scope)
            return "".join(run(body, _bound(scope, names, pair)) for pair in pairs)
        if not _truth(value):
            return run(otherwise, scope)
        inner = scope.within(value if word == "with" else scope.dot)
        if names:
            inner.variables[names[-1]] = value
        return run(body, inner)

    return branch


def _bound(scope: Scope, names: list[str], pair: tuple[Any, Any]) -> Scope:
    inner = scope.within(pair[1])
    for name, value in zip(reversed(names), reversed(pair), strict=False):
        inner.variables[name] = value
    return inner


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list | str):
        return list(enumerate(value))
    return []


def _declaration(text: str) -> tuple[list[str], Callable[[Scope], Any]]:
    """`$k, $v := pipeline`."""
    left, assigned, right = text.partition(":=")
    if not assigned or not left.strip().startswith("$"):
        return [], _pipeline(text)
    return [name.strip() for name in left.split(",")], _pipeline(right.strip())


def _action(text: str) -> Node:
    names, pipeline = _declaration(text)

    def run(scope: Scope) -> str:
        value = pipeline(scope)
        if names:
            scope.variables[names[0]] = value
            return ""
        return show(value)

    return run


# -- pipelines -----------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    """Words of an action; strings and brackets stay whole."""
    words: list[str] = []
    current = ""
    depth = 0
    quote = ""
    escaped = False
    for character in text:
        if quote:
            current += character
            if escaped:
                escaped = False
            elif character == "\\" and quote == '"':
                escaped = True
            elif character == quote:
                quote = ""
        elif character in "\"'`":
            quote = character
            current += character
        elif character == "|" and not depth:
            words += [current, "|"] if current else ["|"]
            current = ""
        elif character.isspace() and not depth:
            if current:
                words.append(current)
            current = ""
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
            current += character
    if quote or depth:
        raise UsageError(f"template parsing error: unclosed quote or bracket in {text!r}")
    return [*words, current] if current else words


def _pipeline(text: str) -> Callable[[Scope], Any]:
    stages: list[list[str]] = [[]]
    for word in _words(text):
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    if not all(stages):
        raise UsageError(f"template parsing error: missing value in {text!r}")
    calls = [_call(stage) for stage in stages]

    def run(scope: Scope) -> Any:
        value: list[Any] = []
        for call in calls:
            value = [call(scope, value)]
        return value[0]

    return run


def _call(words: list[str]) -> Callable[[Scope, list[Any]], Any]:
    name, *rest = words
    function = FUNCTIONS.get(name)
    operands = [_operand(word) for word in (rest if function else words)]
    if function is None and rest:
        if name.startswith((".", "$")):
            raise UsageError(f"template: {name} is not a function")
        raise UsageError(f'template parsing error: function "{name}" not defined')

    def run(scope: Scope, piped: list[Any]) -> Any:
        values = [operand(scope) for operand in operands]
        if function is None:
            return values[0]
        try:
            return function(*values, *piped)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise UsageError(f"template: error calling {name}: {error}") from error

    return run


def _operand(word: str) -> Callable[[Scope], Any]:
    if word.startswith("("):
        close = word.rindex(")")
        inner, path = _pipeline(word[1:close]), word[close + 1 :]
        return lambda scope: _walk(inner(scope), path)
    if word[0] in "\"'":
        return _constant(json.loads('"' + word[1:-1].replace("\\'", "'") + '"'))
    if word[0] == "`":
        return _constant(word[1:-1])
    if word in ("true", "false", "nil"):
        return _constant({"true": True, "false": False, "nil": None}[word])
    if word.lstrip("-").replace(".", "", 1).isdecimal():
        return _constant(float(word) if "." in word else int(word))
    if word.startswith("$"):
        name, dot, path = word.partition(".")
        return lambda scope: _walk(scope.variables.get(name), dot + path)
    if word.startswith("."):
        return lambda scope: _walk(scope.dot, word)
    function = FUNCTIONS.get(word)
    if function is not None:
        return lambda scope: function()
    raise UsageError(f'template parsing error: function "{word}" not defined')


def _constant(value: Any) -> Callable[[Scope], Any]:
    return lambda scope: value


def _walk(value: Any, path: str) -> Any:
    for part in [part for part in path.split(".") if part]:
        if isinstance(value, dict):
            if part not in value:
                value = _method(value, part)
                continue
            value = value[part]
        elif value is None:
            return None
        else:
            raise UsageError(f"template: can't evaluate field {part} in {type(value).__name__}")
    return value


def _method(value: dict[str, Any], part: str) -> Any:
    """A field in another case, or a method of Docker's formatters such as `.Label "x"`."""
    for key in value:
        if key.lower() == part.lower():
            return value[key]
    return None


# -- values --------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as Go's fmt prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(show(item) for item in value)}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{show(item)}' for key, item in sorted(value.items()))}]"
    return str(value)


def _truth(value: Any) -> bool:
    return bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*bounds)] if len(bounds) > 1 else value[bounds[0] :]


def _pad(text: Any, before: int, after: int) -> str:
    return " " * before + str(text) + " " * after


def _printf(form: str, *values: Any) -> str:
    converted = form.replace("%v", "%s").replace("%q", '"%s"')
    shown = tuple(show(v) if not isinstance(v, int | float) else v for v in values)
    return converted % shown


def _and(*values: Any) -> Any:
    return next((value for value in values if not _truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if _truth(value)), values[-1])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "join": lambda value, separator=" ": separator.join(show(item) for item in value or []),
    "split": lambda text, separator: text.split(separator),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": lambda text: text.title(),
    "truncate": lambda text, size: text[:size],
    "pad": _pad,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": lambda *values: "".join(show(value) for value in values),
    "printf": _printf,
    "len": lambda value: len(value or ""),
    "index": _index,
    "slice": _slice,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "and": _and,
    "or": _or,
    "not": lambda value: not _truth(value),
}
