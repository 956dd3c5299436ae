"""The nearest valid name to one that is wrong, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 20
"""A list of valid names in a message has at most so many."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the valid name that is most like `word`; an empty string if none is."""
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, 1, 0.6)
    return f" Did you mean {lower[close[0]]!r}?" if close else ""


def listed(known: Iterable[str]) -> str:
    """Return the names in one line, sorted as they are given, at most SHOWN of them; `none` without one."""
    names = list(known)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
