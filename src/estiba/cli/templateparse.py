"""The grammar of Go's text/template: text to nodes, with the places that errors name.

Errors have Go's words. It never evaluates anything: that is `template`.
"""

from __future__ import annotations

from estiba.cli.templatelex import Token, tokens
from estiba.cli.templatevalue import TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


class Node:
    """Something with a place in the template, that prints as Go prints it."""

    __slots__ = ("kind", "parts", "pos", "text")

    def __init__(self, kind: str, pos: int, text: str, *parts: Any) -> None:
        self.kind = kind
        self.pos = pos
        self.text = text
        self.parts = parts


Block = list[Node]


class Parser:
    """One template; `defined` gathers what `define` and `block` name."""

    def __init__(self, template: str, functions: Collection[str]) -> None:
        self._template = template
        self._functions = functions
        self._tokens = tokens(template)
        self._index = 0
        self._variables = ["$"]
        self._loops = 0
        self.defined: dict[str, Block] = {}

    def parse(self) -> Block:
        """Raises TemplateError naming the line."""
        try:
            nodes, ending = self._block()
            if ending is not None:
                raise TemplateError(f"unexpected {{{{{ending}}}}}")
        except TemplateError as error:
            raise self._located(error) from None
        return nodes

    def _located(self, error: TemplateError) -> TemplateError:
        at = self._tokens[min(self._index, len(self._tokens)) - 1].pos if self._index else 0
        line = 1 + self._template.count("\n", 0, at)
        return TemplateError(f"template: :{line}: {error}")

    # -- tokens ----------------------------------------------------------------------------

    def _next(self) -> Token:
        token = self._peek()
        self._index += 1
        if token.kind == "error":
            raise TemplateError(token.text)
        return token

    def _peek(self) -> Token:
        if self._index < len(self._tokens):
            return self._tokens[self._index]
        return Token("EOF", len(self._template), "EOF")

    def _skip(self) -> Token:
        """The next token that is no space, not yet taken."""
        while self._peek().kind == "space":
            self._index += 1
        return self._peek()

    def _expect_close(self, context: str) -> None:
        self._skip()
        if (token := self._next()).kind != "close":
            raise TemplateError(f"unexpected {_shown(token)} in {context}")

    # -- blocks ----------------------------------------------------------------------------

    def _block(self) -> tuple[Block, str | None]:
        """Nodes up to `end` or `else`, and which of them; None at the end of the template."""
        nodes: Block = []
        while self._peek().kind != "EOF":
            token = self._next()
            if token.kind == "text":
                nodes.append(Node("text", token.pos, token.text))
                continue
            word = self._skip()
            if word.kind == "keyword" and word.text in ("end", "else"):
                self._next()
                if word.text == "end":
                    self._expect_close("end")
                return nodes, word.text
            if word.kind == "keyword":
                self._next()
                nodes += self._keyword(word)
            else:
                pipe = self._pipeline("command", "close")
                nodes.append(Node("action", word.pos, pipe.text, pipe))
        return nodes, None

    def _keyword(self, word: Token) -> Block:
        name = word.text
        if name in ("if", "with", "range"):
            return [self._control(word)]
        if name in ("break", "continue"):
            if not self._loops:
                raise TemplateError(f"{{{{{name}}}}} outside {{{{range}}}}")
            self._expect_close(f"{{{{{name}}}}}")
            return [Node(name, word.pos, name)]
        if name == "template":
            title = self._name("template clause")
            pipe = None
            if self._skip().kind == "close":
                self._next()
            else:
                pipe = self._pipeline("template clause", "close")
            return [Node("template", word.pos, f"template {title}", title, pipe)]
        title = self._name(f"{name} clause")
        pipe = None
        if name == "define":
            self._expect_close("define clause")
        else:
            pipe = self._pipeline("block clause", "close")
        outer, self._variables = self._variables, ["$"]
        self.defined[title] = self._closed_block()
        self._variables = outer
        return [Node("template", word.pos, f"template {title}", title, pipe)] if pipe else []

    def _name(self, context: str) -> str:
        self._skip()
        token = self._next()
        if token.kind != "string":
            raise TemplateError(f"unexpected {_shown(token)} in {context}")
        return str(token.value)

    def _closed_block(self) -> Block:
        nodes, ending = self._block()
        if ending is None:
            raise TemplateError("unexpected EOF")
        if ending == "else":
            raise TemplateError("unexpected {{else}}")
        return nodes

    def _control(self, word: Token) -> Node:
        """if, with, range: the condition, the body, and what stands after `else`."""
        known = len(self._variables)
        pipe = self._pipeline(word.text, "close")
        self._loops += word.text == "range"
        body, ending = self._block()
        self._loops -= word.text == "range"
        otherwise: Block = []
        if ending == "else":
            otherwise = self._otherwise(word.text)
        elif ending is None:
            raise TemplateError("unexpected EOF")
        del self._variables[known:]
        return Node(word.text, word.pos, f"{word.text} {pipe.text}", pipe, body, otherwise)

    def _otherwise(self, word: str) -> Block:
        token = self._skip()
        if token.kind == "keyword" and token.text in ("if", "with") and word != "range":
            # `else if` needs no `end` of its own.
            self._next()
            return [self._control(token)]
        self._expect_close("else")
        return self._closed_block()

    # -- pipelines -------------------------------------------------------------------------

    def _pipeline(self, context: str, end: str) -> Node:
        """`$x := a | b c`. Takes the closing token."""
        start = self._skip().pos
        names, sign = self._declaration(context)
        commands: list[Node] = []
        while True:
            token = self._skip()
            if token.kind == end:
                self._next()
                break
            if token.kind == "|":
                self._next()
                if not commands:
                    raise TemplateError(f"missing value for {context}")
                continue
            commands.append(self._command(context))
        if not commands:
            raise TemplateError(f"missing value for {context}")
        for number, command in enumerate(commands[1:], 2):
            if command.parts[0].kind in ("bool", "dot", "nil", "number", "string"):
                raise TemplateError(f"non executable command in pipeline stage {number}")
        self._variables += names if sign == ":=" else []
        text = " | ".join(command.text for command in commands)
        if names:
            text = f"{', '.join(names)} {sign} {text}"
        return Node("pipe", start, text, names, sign, commands)

    def _declaration(self, context: str) -> tuple[list[str], str]:
        """Takes `$x :=`, `$x =` and, in a range, `$k, $v :=`; nothing when it is none of them."""
        before = self._index
        names: list[str] = []
        while self._skip().kind == "variable":
            token = self._next()
            names.append(token.text)
            sign = self._skip()
            if sign.kind == "," and context == "range" and len(names) < 2:
                self._next()
                continue
            if sign.kind in (":=", "="):
                self._next()
                for name in names if sign.kind == "=" else ():
                    self._check_variable(name)
                return names, sign.kind
            break
        self._index = before
        return [], ""

    def _command(self, context: str) -> Node:
        """Operands up to a pipe or the end."""
        operands: list[Node] = []
        while True:
            token = self._skip()
            if token.kind in ("|", "close", ")", "EOF"):
                break
            operands.append(self._operand(context))
            if self._peek().kind not in ("space", "|", "close", ")"):
                raise TemplateError(f"unexpected {_shown(self._next())} in operand")
        if not operands:
            raise TemplateError(f"unexpected {_shown(self._next())} in {context}")
        return Node(
            "command", operands[0].pos, " ".join(one.text for one in operands), *operands
        )  # fmt: skip

    def _operand(self, context: str) -> Node:
        node = self._term(context)
        if self._peek().kind != "field":
            return node
        first = self._peek().pos
        path = []
        while self._peek().kind == "field":
            path.append(self._next().text[1:])
        dotted = "".join(f".{name}" for name in path)
        if node.kind == "field":
            # Go names the second field as the place of a chain.
            return Node("field", first, node.text + dotted, [*node.parts[0], *path])
        if node.kind == "variable":
            return Node("variable", first, node.text + dotted, node.parts[0], path)
        if node.kind in ("bool", "nil", "number", "string", "dot"):
            raise TemplateError(f"unexpected . after term {node.text!r}".replace("'", '"'))
        return Node("chain", first, node.text + dotted, node, path)

    def _term(self, context: str) -> Node:
        token = self._next()
        kind, text, pos = token.kind, token.text, token.pos
        if kind == "identifier":
            if text not in self._functions:
                raise TemplateError(f'function "{text}" not defined')
            return Node("identifier", pos, text, text)
        if kind == "field":
            return Node("field", pos, text, [text[1:]])
        if kind == "variable":
            self._check_variable(text)
            return Node("variable", pos, text, text, [])
        if kind in ("string", "number", "bool"):
            return Node(kind, pos, text, token.value)
        if kind in (".", "nil"):
            return Node("dot" if kind == "." else "nil", pos, text)
        if kind == "(":
            pipe = self._pipeline("parenthesized pipeline", ")")
            return Node("pipe", pipe.pos, f"({pipe.text})", *pipe.parts)
        raise TemplateError(f"unexpected {_shown(token)} in {context}")

    def _check_variable(self, name: str) -> None:
        if name not in self._variables:
            raise TemplateError(f'undefined variable "{name}"')


def _shown(token: Token) -> str:
    """As Go's parser names a token."""
    if token.kind == "EOF":
        return "EOF"
    if token.kind == "close":
        return '"}}"'
    return f"<{token.text}>" if token.kind == "keyword" else f'"{token.text}"'
