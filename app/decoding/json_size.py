"""The memory that JSON takes once it is decoded, and its depth, estimated from a few characters before it is decoded.

The length of the text does not show it: `0,` is two bytes of JSON and a number in a list, `[],` is three bytes and a
list.
"""

from __future__ import annotations

import numpy as np

from tableside.decoding.inflate import CELL_BYTES, FREE_BYTES, SETTING
from tableside.errors import RequestRejected, TooLarge

LIST_BYTES, OBJECT_BYTES, QUOTE_BYTES = 24, 64, 6
"""What an array, an object and each quote of a string count where a cell counts 8 bytes. In memory each takes about
four times as much: a number 24 bytes and a place of 8, an empty list 64 and a place, an object with a member about 240,
a string 49 bytes and its text."""
RATIO = 12
"""JSON may count RATIO times its own length and FREE_BYTES, whatever the limit: the densest table counts 11 times."""
MAX_DEPTH = 64
"""The most levels of arrays and objects within each other. No table needs more than 10."""
_UNCHECKED_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_PREFIX_BYTES = 1 << 16
_COMMA, _OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT, _QUOTE = b',[]{}"'
_BRACKETS = (_OPEN_LIST, _CLOSE_LIST, _OPEN_OBJECT, _CLOSE_OBJECT)
_WEIGHTS = {_COMMA: CELL_BYTES, _OPEN_LIST: LIST_BYTES, _OPEN_OBJECT: OBJECT_BYTES, _QUOTE: QUOTE_BYTES}


def check(text: bytes, limit_bytes: int, lines: int = 0) -> None:
    """Refuse JSON that takes more than `limit_bytes`, counting a cell for each comma and for each of `lines`.

    Characters within strings are counted too. Texts of up to 4096 bytes are not checked. Raises TooLarge, or
    RequestRejected for arrays and objects nested deeper than MAX_DEPTH.
    """
    if len(text) <= _UNCHECKED_BYTES:
        return
    if _is_deep(text[:_PREFIX_BYTES]):  # what is far too deep is refused before all of it is looked at
        raise _too_deep()
    size, opens, limit_bytes = lines * CELL_BYTES, 0, min(limit_bytes, FREE_BYTES + RATIO * len(text))
    for start in range(0, len(text), _CHUNK_BYTES):
        codes = np.frombuffer(text, np.uint8, min(_CHUNK_BYTES, len(text) - start), start)
        counts = {code: int(np.count_nonzero(codes == code)) for code in _WEIGHTS}
        size += sum(weight * counts[code] for code, weight in _WEIGHTS.items())
        opens += counts[_OPEN_LIST] + counts[_OPEN_OBJECT]
        if size > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
    if opens > MAX_DEPTH and _is_deep(text):
        raise _too_deep()


def _too_deep() -> RequestRejected:
    return RequestRejected(f"the body is malformed: nested too deeply; {MAX_DEPTH} levels are allowed")


def _is_deep(text: bytes) -> bool:
    """Whether arrays and objects are nested deeper than MAX_DEPTH in a text, or in the beginning of one."""
    # Strings may hold brackets. They are removed only if the text seems too deep with them, because that takes longer.
    return _depth(text) > MAX_DEPTH and _depth(_without_strings(text)) > MAX_DEPTH


def _without_strings(text: bytes) -> bytes:
    """Return the text between strings: first without what is escaped in them, then every second piece between quotes.

    A regular expression that does the same takes 20 ns for each byte of a string.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(text.split(b'"')[::2]) if b'"' in text else text


def _depth(text: bytes) -> int:
    """Return the largest number of arrays and objects that are open at one place, with brackets in strings counted."""
    deepest = level = 0
    for start in range(0, len(text), _CHUNK_BYTES):
        if all(text.find(code, start, start + _CHUNK_BYTES) < 0 for code in _BRACKETS):
            continue
        codes = np.frombuffer(text, np.uint8, min(_CHUNK_BYTES, len(text) - start), start)
        opens = (codes == _OPEN_LIST) | (codes == _OPEN_OBJECT)
        brackets = np.flatnonzero(opens | (codes == _CLOSE_LIST) | (codes == _CLOSE_OBJECT))
        if len(brackets):
            levels = level + np.cumsum(np.where(opens[brackets], 1, -1))
            deepest, level = max(deepest, int(levels.max())), int(levels[-1])
    return deepest
