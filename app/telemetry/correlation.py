"""Correlation: the ids by which callers find a request again in their own systems.

They are read from the headers when the access line is written, or the answer; a request that sends none costs two
look-ups in a dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

LOGGED = {
    "traceparent": "HTTP_TRACEPARENT",
    "ce_id": "HTTP_CE_ID",
    "correlation_id": "HTTP_X_CORRELATION_ID",
    "inference_id": "HTTP_X_AMZN_SAGEMAKER_INFERENCE_ID",
    "custom_attributes": "HTTP_X_AMZN_SAGEMAKER_CUSTOM_ATTRIBUTES",
}
"""The fields of the access line, each with the header that it holds, by its WSGI key."""
_KEYS = frozenset(LOGGED.values())
NOTHING: Mapping[str, str] = MappingProxyType({})
CORRELATION, ATTRIBUTES = LOGGED["correlation_id"], LOGGED["custom_attributes"]
ECHOED = {CORRELATION: "X-Correlation-ID", ATTRIBUTES: "X-Amzn-SageMaker-Custom-Attributes"}
"""The headers that come back with every answer, errors too: by their WSGI key, the name in the answer.

W3C Trace Context sends `traceparent` only forward, and CloudEvents gives each event an id of its own, the answer too.
"""
MAX_LOGGED_CHARS = 200
"""Longer ids are cut to this many characters in the log, because callers choose them."""
MAX_ECHOED_CHARS = 1024
"""Longer headers do not come back. It is the limit that SageMaker sets for its custom attributes."""
_SENDABLE = re.compile(rf"[ -~]{{1,{MAX_ECHOED_CHARS}}}\Z")


def logged(environ: Mapping[str, object], v2_id: str | None) -> Mapping[str, str]:
    """Return the fields of the access line: those of the headers that were sent, and `id`, the id of a V2 request."""
    if v2_id is None and environ.keys().isdisjoint(_KEYS):
        return NOTHING
    found: dict[str, str] = {}
    if v2_id is not None:
        found["id"] = printable(v2_id)
    for name, key in LOGGED.items():
        value = environ.get(key)
        if value:
            # WSGI gives the bytes of a header as Latin-1 (PEP 3333); callers write UTF-8.
            found[name] = printable(str(value).encode("latin-1", "replace").decode("utf-8", "replace"))
    return found


def printable(text: str) -> str:
    """Return the text cut to MAX_LOGGED_CHARS, with characters that do not print, line feeds too, as escapes."""
    text = text[:MAX_LOGGED_CHARS]
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def echoed(environ: Mapping[str, object]) -> Sequence[tuple[str, str]]:
    """Return the headers of the answer that repeat those of the request.

    One that is too long, or holds other characters than printable ASCII, is left out.
    """
    if CORRELATION not in environ and ATTRIBUTES not in environ:
        return ()
    values = ((name, str(environ.get(key, ""))) for key, name in ECHOED.items())
    return [(name, value) for name, value in values if _SENDABLE.match(value)]
