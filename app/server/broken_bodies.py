"""What gunicorn raises while the application reads a chunked body that is not valid HTTP.

gunicorn makes these errors 400 where it reads a head itself. While the application reads a body they are raised in the
application, which would take them for a fault of its own.
"""

from __future__ import annotations

from gunicorn.http.errors import (
    ChunkMissingTerminator,
    InvalidChunkExtension,
    InvalidChunkSize,
    LimitRequestHeaders,
    ParseException,
)

BROKEN: tuple[type[Exception], ...] = (ParseException,)
_OF_CHUNKS = (InvalidChunkSize, ChunkMissingTerminator, InvalidChunkExtension)


def describe(problem: Exception) -> str:
    """Return what is wrong with the body. The bytes themselves, which the exception has, are the client's."""
    if isinstance(problem, _OF_CHUNKS):
        return (
            "the chunks of the body are not valid HTTP: each is its size in hexadecimal digits, a line end, so many "
            "bytes, and a line end; the last one has the size 0"
        )
    if isinstance(problem, LimitRequestHeaders):
        return "the trailers after the body are too large or too many; send what they say before the body"
    return "the trailers after the body are not valid HTTP: each line is NAME: VALUE, and none is about the body"
