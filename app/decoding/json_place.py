"""What is wrong with JSON, and where: the line and column, and the member that it belongs to."""

from __future__ import annotations

import re

import orjson

_MOST_CHARACTERS = 32_768
"""The path is found for places up to here only: it takes some milliseconds of reading what is before them."""
_MARK = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{},:]', re.DOTALL)
_MAX_KEY_CHARACTERS = 60


def describe(text: bytes) -> str:
    """Return what is wrong, such as `unexpected character, expected ',' or ']' at line 3, column 14, in inputs.a[2]`.

    Lines and columns count from 1, columns in characters. Without the path if the place is far behind the beginning, or
    in no array or object. Empty if orjson finds nothing wrong.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError as problem:
        return f"not UTF-8 at {_place(text[: problem.start].decode(), problem.start)}"
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return f"{problem.msg} at {_place(decoded, problem.pos)}"
    return ""


def _place(text: str, at: int) -> str:
    line, begin = text.count("\n", 0, at) + 1, text.rfind("\n", 0, at) + 1
    path = _path(text[:at]) if at <= _MOST_CHARACTERS else ""
    return f"line {line}, column {at - begin + 1}{f', in {path}' if path else ''}"


def _path(text: str) -> str:
    """Return the path of what follows the text. A level is the number of an element, or the last key of an object."""
    levels: list[int | str] = []
    key = ""
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark == "[":
            levels.append(0)
        elif mark == "{":
            levels.append("")
        elif mark in "]}":
            del levels[-1:]
        elif mark == ",":
            _step(levels)
        elif mark == ":":
            levels[-1:] = [key]
        else:
            key = mark[1:-1][:_MAX_KEY_CHARACTERS]
    named = [f"[{level}]" if isinstance(level, int) else f".{level}" for level in levels if level != ""]
    return "".join(named).lstrip(".")


def _step(levels: list[int | str]) -> None:
    """Go on to the next element or member."""
    last = levels[-1] if levels else ""
    levels[-1:] = [last + 1 if isinstance(last, int) else ""]
