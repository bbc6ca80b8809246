"""Reads as much of Lua as it takes to say which keys a script touches.

Written for the manner of this project's scripts: what it does not understand, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

TOKEN = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[A-Za-z_]\w*|\d+|\.\.\.|\.\.|[=~<>]=|\S")
OPENING, CLOSING = {"(", "[", "{"}, {")", "]", "}"}
WRAPPERS = {"try"}
"""Functions of the scripts that hand all their arguments on to ``redis.pcall``."""

Expression = tuple[str, ...]


class Call(NamedTuple):
    """One command that a script sends."""

    command: str
    arguments: list[Expression]


class Script:
    """The tokens of one script, without its comments."""

    def __init__(self, text: str) -> None:
        self.tokens = [token for token in TOKEN.findall(text) if not token.startswith("--")]

    def calls(self) -> Iterator[Call]:
        """Yield every command.

        Raises:
            ValueError: A command is not written out as a string.
        """
        for position in range(len(self.tokens)):
            arguments = self._call_at(position)
            if arguments is None or arguments == [("...",)]:
                continue
            (name, *_), rest = arguments[0], arguments[1:]
            if len(arguments[0]) != 1 or name[0] not in "'\"":
                raise ValueError(f"a command must be written out, not {' '.join(arguments[0])}")
            yield Call(name[1:-1], rest)

    def functions_of(self, table: str) -> set[str]:
        """Return the names that are used of a table of functions, such as ``redis``."""
        triples = zip(self.tokens, self.tokens[1:], self.tokens[2:], strict=False)
        return {name for owner, dot, name in triples if (owner, dot) == (table, ".")}

    def comes_from_keys(self, expression: Expression) -> bool:
        """Return whether an expression can only be one of ``KEYS``."""
        if expression[:2] == ("KEYS", "["):
            return self._end(expression, 1) == len(expression) - 1
        if not all(re.fullmatch(r"\w+|\.", token) for token in expression):
            return False
        name = expression[-1]
        values = [value for assigned, value in self._assignments() if assigned == name]
        sources = [value for value in values if value != (name,)]
        return bool(sources) and all(value[0] == "KEYS" and self.comes_from_keys(value) for value in sources)

    def _call_at(self, position: int) -> list[Expression] | None:
        tokens = self.tokens
        if tokens[position : position + 2] == ["redis", "."] and tokens[position + 2] in ("call", "pcall"):
            opening = position + 3
        elif tokens[position] in WRAPPERS and tokens[position - 1] != "function":
            opening = position + 1
        else:
            return None
        if tokens[opening] != "(":
            raise ValueError(f"{tokens[position]} must be called where it is named")
        return self._split(opening + 1, self._end(tokens, opening))

    def _assignments(self) -> Iterator[tuple[str, Expression]]:
        """Yield every name that is assigned to, fields of tables included, with what it gets."""
        tokens = self.tokens
        for position, token in enumerate(tokens):
            if token in ("function", "for"):
                # Parameters and loop variables get what cannot be told.
                last = min(tokens.index(end, position) for end in (")", "in", "=") if end in tokens[position:])
                yield from ((name, ("?",)) for name in tokens[position + 1 : last])
            if token != "=":
                continue
            names = [tokens[position - 1]]
            before = position - 2
            while tokens[before] == "," and re.fullmatch(r"\w+", tokens[before - 1]):
                names.insert(0, tokens[before - 1])
                before -= 2
            # In a table, the comma before a field belongs to the field before it.
            local = tokens[before] == "local"
            names = names if local else names[-1:]
            values = self._values(position + 1)
            for place, name in enumerate(names):
                yield name, values[place] if place < len(values) else ("nil",)

    def _values(self, start: int) -> list[Expression]:
        """Return the expressions from a position on, as far as a statement or a field of a table can go."""
        depth, end = 0, start
        while end < len(self.tokens):
            token = self.tokens[end]
            if token in CLOSING and depth == 0:
                break
            depth += (token in OPENING) - (token in CLOSING)
            if depth == 0 and end > start and self._is_statement(end):
                break
            end += 1
        return self._split(start, end)

    def _is_statement(self, position: int) -> bool:
        keywords = {"local", "if", "for", "while", "return", "end", "else", "elseif", "function", "do", "then"}
        if self.tokens[position] in keywords:
            return True
        joined = {
            ",",
            "(",
            "[",
            "{",
            "+",
            "-",
            "*",
            "/",
            "..",
            "and",
            "or",
            "not",
            "=",
            "==",
            "~=",
            "<",
            ">",
            "<=",
            ">=",
        }
        is_name = re.match(r"\w", self.tokens[position]) is not None and self.tokens[position] not in joined
        return is_name and self.tokens[position - 1] not in joined | {".", "#"}

    def _split(self, start: int, end: int) -> list[Expression]:
        parts: list[list[str]] = [[]]
        depth = 0
        for token in self.tokens[start:end]:
            depth += (token in OPENING) - (token in CLOSING)
            if token == "," and depth == 0:
                parts.append([])
            else:
                parts[-1].append(token)
        return [tuple(part) for part in parts if part]

    @staticmethod
    def _end(tokens: list[str] | Expression, opening: int) -> int:
        depth = 0
        for position in range(opening, len(tokens)):
            depth += (tokens[position] in OPENING) - (tokens[position] in CLOSING)
            if depth == 0:
                return position
        raise ValueError("a bracket is not closed")
