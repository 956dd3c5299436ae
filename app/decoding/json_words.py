"""JSON as Python's json module writes it: `NaN`, `Infinity` and `-Infinity` may stand for numbers."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some programs write before UTF-8."""
_TOO_LARGE = b"1" + b"0" * 309
"""A number that no column takes, so that its cell is named."""
_MOST_NAMED = 100
"""So many infinities are named. The request is refused because of them, so the others may be read as null."""


def as_json(text: bytes) -> bytes:
    """Return the text with `null` for NaN, and a number that is too large for Infinity. Strings stay as they are."""
    return _replaced(
        text,
        (
            (b"NaN", b"null", -1),
            (b"Infinity", _TOO_LARGE, _MOST_NAMED),
            (b"-Infinity", b"null", -1),
            (b"Infinity", b"null", -1),
        ),
    )


def of_same_length(text: bytes) -> bytes:
    """Return the text with numbers of the same length for these words, so that what else is wrong keeps its place."""
    return _replaced(text, ((b"NaN", b"111", -1), (b"Infinity", b"11111111", -1)))


def _replaced(text: bytes, words: tuple[tuple[bytes, bytes, int], ...]) -> bytes:
    """Replace words outside of strings. words: each with what takes its place, and how often at most (-1: always)."""
    if not any(word in text for word, _, _ in words):
        return text
    left = [most for _, _, most in words]
    parts = text.split(b'"')
    is_string = False
    for at, part in enumerate(parts):
        if not is_string:
            for index, (word, number, _) in enumerate(words):
                if found := part.count(word):
                    part = part.replace(word, number, left[index])
                    left[index] -= min(left[index], found) if left[index] > 0 else 0
            parts[at] = part
            is_string = True
        else:
            # A quote behind an odd number of backslashes is a character of the string.
            is_string = (len(part) - len(part.rstrip(b"\\"))) % 2 == 1
    return b'"'.join(parts)
