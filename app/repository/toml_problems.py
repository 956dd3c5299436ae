"""Says where a model.toml is wrong: the line, the key, and the nearest key that exists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args, get_origin

import msgspec

from tableside.nearest_names import did_you_mean, listed

_UNKNOWN = re.compile(r"unknown field `(.+?)`")
_PATH = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\.\.\.|\d+)\]")
_HEADER = re.compile(r"^\s*\[+\s*([^\]]*?)\s*\]+\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:"[^"]*"|'[^']*'|[^=#\s])+(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[^=#.\s]+))*)\s*=""")


def explain(problem: msgspec.ValidationError, text: str, kind: type, content: dict[str, object]) -> str:
    """Return the sentence of a validation error with its line and key: `line 3: key ...`.

    text: the file. kind: the Struct that it was decoded to. content: the file as tables and values.
    """
    sentence = str(problem)
    match = _PATH.search(sentence)
    steps = [step[0] or step[1] for step in _STEP.findall(match[1])] if match is not None else []
    unknown = _UNKNOWN.search(sentence)
    if unknown is not None:
        keys = [*steps, unknown[1]]
        known = _fields(kind, steps)
        return f"{_place(text, keys)}{_shown(keys)} is no key.{did_you_mean(unknown[1], known)} Keys: {listed(known)}"
    keys = _wrong_keys(steps, kind, content)
    if match is not None and "[...]" in match[1] and keys:
        sentence = f"{sentence[: match.start()]} - at `$.{'.'.join(keys)}`"
    return f"{_place(text, keys)}{sentence}{_values(sentence, kind, keys)}"


def _values(sentence: str, kind: type, keys: Sequence[str]) -> str:
    """The values of a key that accepts only a few words, and the nearest of them."""
    wrong = re.match(r"Invalid enum value '(.*?)'", sentence)
    if wrong is None or not keys:
        return ""
    for step in keys[:-1]:
        kind = _struct_of(_type_of(kind, step))
    expected = _type_of(kind, keys[-1])
    words = [
        value for each in (expected, *get_args(expected)) if get_origin(each) is Literal for value in get_args(each)
    ]
    return f".{did_you_mean(wrong[1], words)} Words that it takes: {listed(words)}"


def _type_of(kind: type, key: str) -> object:
    return next(each.type for each in msgspec.structs.fields(kind) if each.encode_name == key)


def line_of(text: str, keys: Sequence[str]) -> int:
    """Return the number of the line, from 1, that sets a key, or opens its table; 0 if neither is found.

    A text within several lines may look like a key; the line is a help for a reader and nothing more.
    """
    table: list[str] = []
    opened = 0
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _parts(header[1])
            if table and table == list(keys[: len(table)]):
                opened = number
                if len(table) == len(keys):
                    return number
        elif key is not None:
            path = table + _parts(key[1])
            if path == list(keys[: len(path)]):  # the key, or the inline table that holds it
                return number
    return opened


def _place(text: str, keys: Sequence[str]) -> str:
    line = line_of(text, keys) if keys else 0
    return f"line {line}: " if line else ""


def _shown(keys: Sequence[str]) -> str:
    return f"`{'.'.join(keys)}`"


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", dotted)]


def _fields(kind: type, steps: Sequence[str]) -> list[str]:
    """The keys of the table that `steps` lead to, below the Struct `kind`."""
    for step in steps:
        kind = _struct_of(_type_of(kind, step))
    return [each.encode_name for each in msgspec.structs.fields(kind)]


def _wrong_keys(steps: Sequence[str], kind: type, content: dict[str, object]) -> list[str]:
    """The keys that lead to a wrong value. msgspec says `[...]` for a key of a free table; here it is found."""
    keys: list[str] = []
    value: object = content
    expected: object = kind
    for step in steps:
        if step.isdigit():
            break
        if step != "...":
            expected = _type_of(_struct_of(expected), step)
            keys.append(step)
            value = value.get(step) if isinstance(value, dict) else None
            continue
        if get_origin(expected) is not dict or not isinstance(value, dict):
            break  # an item of a list
        expected = get_args(expected)[1]
        wrong = next((key for key, each in value.items() if not _is_valid(each, expected)), None)
        if wrong is None:
            break
        keys.append(wrong)
        value = value[wrong]
    return keys


def _struct_of(kind: object) -> type:
    """The Struct of a type, or of a union that holds one."""
    return next(each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, msgspec.Struct))


def _is_valid(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
