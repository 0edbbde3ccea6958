"""Go templates for `--format`, evaluated over JSON values.

The whole of text/template but for methods of Go's own types; rows of lists have methods as
functions among their values (`.Label "x"`). Errors have Go's words and places.
"""

from __future__ import annotations

from estiba.cli.parse import UsageError
from estiba.cli.templatefuncs import FUNCTIONS, LAZY, Function
from estiba.cli.templateparse import Block, Node, Parser
from estiba.cli.templatevalue import Missing, TemplateError, absent, go_type, show, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_USER_KEYED = frozenset(
    "Labels Annotations Networks Ports PortBindings ExposedPorts Volumes Sysctls Tmpfs Options "
    "DriverOpts StorageOpt Containers Runtimes Attributes Details".split()
)
"""Objects whose keys are the users': a key that is not there is no error."""
_PREFIXES = {
    True: ("failed to parse template", "failed to execute template"),
    False: ("template parsing error", "template parsing error"),
}
_MOST_DEPTH = 1000
_CALL_ERRORS = (TypeError, ValueError, IndexError, KeyError, AttributeError)


class _Failed(Exception):
    """A template's error with its place."""


class _Break(Exception):
    """The rest of a range is skipped."""


class _Continue(Exception):
    """The rest of a range's body is skipped."""


class Scope:
    """The dot and the variables at one place."""

    __slots__ = ("dot", "outer", "variables")

    def __init__(self, dot: Any, outer: Scope | None = None) -> None:
        self.dot = dot
        self.outer = outer
        self.variables: dict[str, Any] = {} if outer else {"$": dot}

    def holder(self, name: str) -> dict[str, Any]:
        """The variables among which it is: the parser has seen its declaration."""
        scope: Scope = self
        while name not in scope.variables and scope.outer is not None:
            scope = scope.outer
        return scope.variables


def compile_template(template: str, *, rows: bool = False) -> Callable[[Any], str]:
    """A function from a value to text; both raise UsageError, in docker's words for rows of a
    list or for objects.
    """
    wrong_text, wrong_value = _PREFIXES[rows]
    parser = Parser(template, FUNCTIONS.keys())
    try:
        nodes = parser.parse()
    except TemplateError as error:
        raise UsageError(f"{wrong_text}: {error}") from None

    def run(value: Any) -> str:
        try:
            return _Run(template, parser.defined).text(nodes, value)
        except _Failed as error:
            raise UsageError(f"{wrong_value}: {error}") from None

    return run


class _Run:
    """One evaluation of a template."""

    def __init__(self, template: str, defined: dict[str, Block]) -> None:
        self._template = template
        self._defined = defined
        self._found: list[str] = []
        self._depth = 0

    def text(self, nodes: Block, value: Any) -> str:
        """Raises _Failed."""
        self._block(nodes, Scope(value))
        return "".join(self._found)

    def _fail(self, node: Node, message: str) -> _Failed:
        """Go's place: the line, and the bytes before it there."""
        before = self._template[: node.pos]
        line = before.count("\n") + 1
        column = len(before.rpartition("\n")[2].encode(errors="surrogateescape"))
        return _Failed(f'template: :{line}:{column}: executing "" at <{node.text}>: {message}')

    # -- blocks ----------------------------------------------------------------------------

    def _block(self, nodes: Block, scope: Scope) -> None:
        for node in nodes:
            kind = node.kind
            if kind == "text":
                self._found.append(node.text)
            elif kind == "action":
                self._action(node.parts[0], scope)
            elif kind == "range":
                self._range(node, scope)
            elif kind in ("if", "with"):
                self._branch(node, scope)
            elif kind == "template":
                self._template_call(node, scope)
            elif kind == "break":
                raise _Break
            else:
                raise _Continue

    def _action(self, pipe: Node, scope: Scope) -> None:
        value = self._pipe(pipe, scope)
        if pipe.parts[0]:
            return
        last = pipe.parts[2][-1]
        plain = len(last.parts) == 1 and last.parts[0].kind in ("field", "variable", "chain")
        field = last.text.rpartition(".")[2] if plain else ""
        try:
            self._found.append(show(value, field))
        except TemplateError as error:
            raise self._fail(last.parts[0] if plain else last, str(error)) from None

    def _branch(self, node: Node, scope: Scope) -> None:
        pipe, body, otherwise = node.parts
        inner = Scope(scope.dot, scope)
        value = self._pipe(pipe, inner)
        if not truth(value):
            self._block(otherwise, inner)
            return
        if node.kind == "with":
            inner.dot = value
        self._block(body, inner)

    def _range(self, node: Node, scope: Scope) -> None:
        pipe, body, otherwise = node.parts
        names, sign = pipe.parts[0], pipe.parts[1]
        outer = Scope(scope.dot, scope)
        value = self._commands(pipe, outer)
        items = self._items(pipe, value)
        if not items:
            self._block(otherwise, outer)
            return
        try:
            for key, item in items:
                inner = Scope(item, outer)
                for name, one in zip(reversed(names), (item, key), strict=False):
                    target = inner.variables if sign == ":=" else outer.holder(name)
                    target[name] = one
                try:
                    self._block(body, inner)
                except _Continue:
                    continue
        except _Break:
            return

    def _items(self, pipe: Node, value: Any) -> list[tuple[Any, Any]]:
        if isinstance(value, dict):
            return sorted(value.items())
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(index, index) for index in range(value)]
        if value is None or isinstance(value, Missing):
            return []
        raise self._fail(pipe, f"range can't iterate over {show(value)}")

    def _template_call(self, node: Node, scope: Scope) -> None:
        name, pipe = node.parts
        if name not in self._defined:
            raise self._fail(node, f'template "{name}" not defined')
        self._depth += 1
        if self._depth > _MOST_DEPTH // 10:
            raise self._fail(node, "exceeded maximum template depth")
        self._block(self._defined[name], Scope(self._pipe(pipe, scope) if pipe else None))
        self._depth -= 1

    # -- values ----------------------------------------------------------------------------

    def _pipe(self, pipe: Node, scope: Scope) -> Any:
        names, sign, _ = pipe.parts
        value = self._commands(pipe, scope)
        for name in names:
            target = scope.variables if sign == ":=" else scope.holder(name)
            target[name] = value
        return value

    def _commands(self, pipe: Node, scope: Scope) -> Any:
        piped: list[Any] = []
        for command in pipe.parts[2]:
            piped = [self._command(command, scope, piped)]
        return piped[0]

    def _command(self, command: Node, scope: Scope, piped: list[Any]) -> Any:
        head, *rest = command.parts
        if head.kind == "identifier":
            return self._function(command, scope, piped)
        if head.kind == "nil":
            raise self._fail(command, "nil is not a command")
        target = self._value(head, scope)
        if callable(target):
            arguments = [self._value(node, scope) for node in rest] + piped
            return self._called(head, head.text.rpartition(".")[2], Function(target, 1, 1),
                                arguments)  # fmt: skip
        if rest or piped:
            raise self._fail(head, f"can't give argument to non-function {head.text}")
        return target

    def _function(self, command: Node, scope: Scope, piped: list[Any]) -> Any:
        head, *rest = command.parts
        name = head.parts[0]
        function = FUNCTIONS[name]
        try:
            function.check(name, len(rest) + len(piped))
        except TemplateError as error:
            raise self._fail(head, str(error)) from None
        if name in LAZY:
            value = None
            for node in rest:
                value = self._value(node, scope)
                if truth(value) is LAZY[name]:
                    return value
            return piped[0] if piped else value
        return self._called(
            command, name, function, [self._value(node, scope) for node in rest] + piped
        )

    def _called(self, node: Node, name: str, function: Function, arguments: list[Any]) -> Any:
        try:
            function.check(name, len(arguments))
            return function.call(*arguments)
        except TemplateError as error:
            raise self._fail(node, str(error)) from None
        except _CALL_ERRORS as error:
            raise self._fail(node, f"error calling {name}: {error}") from None

    def _value(self, node: Node, scope: Scope) -> Any:
        kind, parts = node.kind, node.parts
        if kind == "field":
            return self._walk(node, scope.dot, parts[0])
        if kind == "variable":
            return self._walk(node, scope.holder(parts[0])[parts[0]], parts[1])
        if kind == "chain":
            return self._walk(node, self._value(parts[0], scope), parts[1])
        if kind == "dot":
            return scope.dot
        if kind == "nil":
            return None
        if kind == "pipe":
            return self._pipe(node, scope)
        if kind == "identifier":
            return self._called(node, parts[0], FUNCTIONS[parts[0]], [])
        return parts[0]

    def _walk(self, node: Node, value: Any, path: list[str]) -> Any:
        """Follows fields. Raises _Failed where there is no object."""
        parents = ["", ""]
        for name in path:
            if isinstance(value, dict):
                value = _field(value, name, parents)
            elif isinstance(value, Missing):
                value = Missing(name)
            elif value is None:
                raise self._fail(node, f"nil pointer evaluating field {name}")
            else:
                message = f"can't evaluate field {name} in type {go_type(value)}"
                raise self._fail(node, message)
            parents = [parents[1], name]
        return value


def _field(value: dict[str, Any], name: str, parents: list[str]) -> Any:
    if name in value:
        return value[name]
    if parents[1] in _USER_KEYED or parents == ["LogConfig", "Config"]:
        return Missing(name, allowed=True)
    # Go's fields and their JSON names differ in case: `ID` and `Id`, `APIVersion`.
    wanted = name.lower()
    return next((value[key] for key in value if key.lower() == wanted), absent(name))
