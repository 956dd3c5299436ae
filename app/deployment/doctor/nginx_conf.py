"""Reads nginx's configuration files: directives with their arguments and blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | (?P<mark>[{};])
    | (?P<word>(?:[^\s{};"'\\]|\\.|\$\{[^}]*\})(?:[^\s{};\\]|\\.|\$\{[^}]*\})*)""",
    re.VERBOSE | re.DOTALL,
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME = re.compile(r"([0-9]+)(ms|[smhdw]?)")
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]+)([kmg]?)\Z", re.IGNORECASE)


class Directive(NamedTuple):
    """A directive: `name args;`, or `name args { block }`."""

    name: str
    args: tuple[str, ...]
    block: tuple[Directive, ...] = ()


@lru_cache(maxsize=4)
def parse(text: str) -> tuple[Directive, ...]:
    """Return the directives of a file. Raises ValueError, which names the line, if it is no nginx configuration."""
    opened: list[list[Directive]] = [[]]
    words: list[list[str]] = [[]]
    for part in _parts(text):
        if not part.is_mark:
            words[-1].append(part.text)
        elif part.text == "{":
            opened.append([])
            words.append([])
        else:
            closes = part.text == "}"
            unfinished = words.pop() if closes else []
            if unfinished or not words or not words[-1]:
                raise ValueError(f"line {part.line}: an unexpected '{part.text}'")
            block = opened.pop() if closes else []
            opened[-1].append(_directive(words, block))
    if len(opened) > 1 or words[-1]:
        raise ValueError("the file ends within a directive")
    return tuple(opened[0])


def _directive(words: list[list[str]], block: Sequence[Directive]) -> Directive:
    (name, *args), words[-1] = words[-1], []
    return Directive(name, tuple(args), tuple(block))


class _Part(NamedTuple):
    """A word, a quoted text without its quotes, or a mark: `{`, `}` or `;`."""

    text: str
    is_mark: bool
    line: int


def _parts(text: str) -> Iterator[_Part]:
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"line {line}: cannot be read")
        if found.lastgroup is not None:
            is_quoted = found.lastgroup == "quoted"
            yield _Part(found[0][1:-1] if is_quoted else found[0], found.lastgroup == "mark", line)
        line += found[0].count("\n")
        at = found.end()


def within(block: Sequence[Directive], *path: str) -> list[Directive]:
    """Return the directives at a path of names, such as `http`, `server`, `listen`."""
    found = [each for each in block if each.name == path[0]]
    return found if len(path) == 1 else [deeper for each in found for deeper in within(each.block, *path[1:])]


def value(block: Sequence[Directive], *path: str) -> str:
    """Return the first argument of the directive at a path; "" if there is none."""
    found = within(block, *path)
    return found[-1].args[0] if found and found[-1].args else ""


def seconds(text: str) -> float:
    """Return the seconds of a time such as `40s`, `500ms` or `1m30s`. Raises ValueError for another text."""
    parts = _TIME.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is no time")
    return sum(int(number) * _SECONDS[unit or "s"] for number, unit in parts)


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as `64m`. Raises ValueError for another text."""
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is no size")
    return int(found[1]) * _BYTES[found[2].lower()]
