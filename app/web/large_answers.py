"""Answers that do not fit into nginx's buffers leave through a file (`tableside.process.answer_files` says why).

The worker's place is free as soon as the file is written, however slowly the client reads.
"""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from flask import Flask, Response, request
from msgspec.structs import replace

from tableside.disk_errors import DiskFull
from tableside.web import deadlines, error_replies, peer
from tableside.web.extensions import Extensions, extensions
from tableside.web.request import RequestContext
from tableside.web.request_lifecycle import current_trace
from tableside.web.response import Reply, as_response

MAX_BUFFERED_BYTES = 240_000
"""Larger answers are passed on in a file. nginx's buffers for one answer (proxy_buffers) hold this with its head."""
HEADER, LOCATION = "X-Accel-Redirect", "/_answers/"
"""The header by which nginx sends a file in place of a response, and the internal location of the answer files."""


def passed_on(reply: Reply, environ: WSGIEnvironment, parts: Extensions) -> Reply:
    """The reply, or for a large one that nginx is to send, one that names the file with its body.

    Raises DiskFull if the body cannot be written.
    """
    if len(reply.body) <= MAX_BUFFERED_BYTES or reply.status != 200 or not _nginx_sends_files(environ):
        return reply
    headers = ((HEADER, LOCATION + _put(reply.body, parts)), *reply.headers)
    return replace(reply, body=b"", headers=headers)


def _nginx_sends_files(environ: WSGIEnvironment) -> bool:
    """Whether nginx says so; over TCP any client could say it."""
    return peer.is_nginx(environ) and environ.get("HTTP_X_REQUEST_START", "").endswith(deadlines.SENDS_FILES)


def _put(body: bytes, parts: Extensions) -> str:
    try:
        return parts.answer_files.put(body)
    except OSError as problem:
        raise DiskFull("the answer", len(body)) from problem


def pass_on(response: Response) -> Response:
    """`after_request` hook: the same for responses of views that Flask dispatches."""
    size = response.content_length or 0
    if size <= MAX_BUFFERED_BYTES or response.status_code != 200 or request.method == "HEAD":
        return response
    if not _nginx_sends_files(request.environ):
        return response
    response.direct_passthrough = False  # a file of the documentation: it is read here
    parts = extensions()
    body = response.get_data()
    response.close()
    try:
        name = _put(body, parts)
    except DiskFull as problem:
        return as_response(error_replies.to_reply(problem, RequestContext(request.environ, parts, current_trace())))
    response.set_data(b"")
    response.headers[HEADER] = LOCATION + name
    return response


def install(app: Flask) -> None:
    """Pass on every large response that Flask dispatches."""
    app.after_request(pass_on)
