"""Content negotiation: which media type an answer has, by the Accept header (RFC 9110, sections 12.4.2 and 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec
from werkzeug.http import parse_list_header, parse_options_header

from tableside.errors import NotAcceptable
from tableside.web.response import JSON
from tableside.web.table_types import CSV

PROBLEM = "application/problem+json"
_ANY = "*/*"
_DEFAULT = frozenset(("", _ANY, JSON))
"""What nearly all clients send. It is recognized without parsing."""
_SYNONYMS = {"*": _ANY, "application/*+json": JSON}
"""Ranges that clients write for others. HttpURLConnection of Java sends `*; q=.2`."""
_QUALITY = re.compile(r"[0-9]{0,4}(?:\.[0-9]{0,9})?", re.ASCII)
_UTF8 = ("utf-8", "utf8")
_MOST_CACHED, _MAX_CACHED_CHARACTERS = 256, 300


class Choice(msgspec.Struct, frozen=True):
    """The media type of an answer. charset: whether the client asked for CSV with a charset parameter. header: whether
    it asked for CSV with a header line; None if it did not say.
    """

    kind: str = JSON
    charset: bool = False
    header: bool | None = None


class _Range(msgspec.Struct, frozen=True):
    """One range of an Accept header, such as `text/*; q=0.5`."""

    kind: str
    quality: float
    charset: str
    header: bool | None

    def specificity(self, kind: str) -> int:
        """Return how closely the range names a media type: 3 exactly, 2 its group, 1 any; 0 if it does not match."""
        if kind == self.kind:
            return 3 if kind != CSV or self.charset in ("", *_UTF8) else 0
        return 1 if self.kind == _ANY else 2 if self.kind == f"{kind.partition('/')[0]}/*" else 0


DEFAULT = Choice()


def choose(accept: str, offered: Sequence[str]) -> Choice:
    """Return the media type of an answer: the one of the highest quality, then the one that is named most exactly, then
    the first of `offered`.

    accept: the header; empty if there is none. `application/problem+json` is about errors only and is left out here.
    Raises NotAcceptable if the client accepts none of them.
    """
    if accept in _DEFAULT:
        return DEFAULT
    if len(accept) > _MAX_CACHED_CHARACTERS:
        return _choose(accept, tuple(offered))
    return _choose_cached(accept, tuple(offered))


def _choose(accept: str, offered: tuple[str, ...]) -> Choice:
    ranges = [found for found in map(_parse, parse_list_header(accept)) if found.kind not in ("", PROBLEM)]
    if not ranges:
        return DEFAULT
    best, rank = None, (0.0, 0)
    for kind in offered:
        specificity, closest = max(
            ((each.specificity(kind), each) for each in ranges), key=lambda found: (found[0], found[1].quality)
        )
        if specificity and (closest.quality, specificity) > rank and closest.quality > 0:
            rank = (closest.quality, specificity)
            is_csv = kind == CSV == closest.kind
            best = Choice(kind, is_csv and bool(closest.charset), closest.header if is_csv else None)
    if best is None:
        raise NotAcceptable(offered)
    return best


_choose_cached = lru_cache(_MOST_CACHED)(_choose)


def _parse(text: str) -> _Range:
    kind, options = parse_options_header(text)
    kind = kind.strip().lower()
    quality = options.get("q", "").strip()
    # What is no number counts as none: a client that writes it wrongly wants the type nevertheless.
    is_number = _QUALITY.fullmatch(quality) is not None and any(map(str.isdigit, quality))
    header = {"present": True, "absent": False}.get(options.get("header", "").lower())
    return _Range(
        _SYNONYMS.get(kind, kind),
        min(float(quality), 1.0) if is_number else 1.0,
        options.get("charset", "").lower(),
        header,
    )
