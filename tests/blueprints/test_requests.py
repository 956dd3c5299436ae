"""Reading requests and writing replies, below the protocols: bodies, JSON, request ids, stages and status lines."""

from __future__ import annotations

import gzip
import io
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from flask.testing import FlaskClient
from gunicorn.config import Config
from gunicorn.http import RequestParser
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from tableside.blueprints.predict import schemas
from tableside.contracts.schema import Column, Input
from tableside.decoding import json_words
from tableside.errors import RequestRejected, TooLarge, UnsupportedBody
from tableside.settings import Server
from tableside.web.predictions import CELL_BYTES, answer_bytes
from tableside.web.request import Body, parse_json, read_body
from tableside.web.request_ids import RequestIds
from tableside.web.response import Reply, as_response, to_json
from tests.conftest import MakeApp, error_of
from tests.fakes import SUM_OUTPUTS, numbers

LIMITS = Server(max_body_bytes=10, max_inflated_bytes=1000)


def environ(body: bytes, **more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), **more}


@pytest.mark.parametrize("body", [b"", b"x", b"0123456789"])
def test_a_body_within_the_limit_is_read(body: bytes) -> None:
    """A body of at most `max_body_bytes` is read as it is; its content is at most its own length."""
    read = read_body(environ(body), LIMITS)
    assert (read.raw, read.encoding, read.content()) == (body, "", body)
    assert read.max_content_bytes == len(body)


@pytest.mark.parametrize("length", ["11", "99999999999999999999999"])
def test_a_body_over_the_limit_is_not_read(length: str) -> None:
    """A Content-Length above the limit raises RequestEntityTooLarge, before a byte of the body is read."""
    stream = io.BytesIO(b"x" * 20)
    with pytest.raises(RequestEntityTooLarge):
        read_body(environ(b"", CONTENT_LENGTH=length, **{"wsgi.input": stream}), LIMITS)
    assert stream.tell() == 0


CHUNKED = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}


def test_a_chunked_body_over_the_limit_is_refused() -> None:
    """A body without a length is read up to the limit; a longer one raises RequestEntityTooLarge and is never cut."""
    assert read_body(environ(b"0123456789", **CHUNKED), LIMITS).raw == b"0123456789"
    for body in (b"0123456789+", b"x" * 100_000):
        with pytest.raises(RequestEntityTooLarge):
            read_body(environ(body, **CHUNKED), LIMITS)


def test_rows_over_the_limit_are_not_dropped(make_app: MakeApp) -> None:
    """A chunked CSV body above `server.max_body_bytes` answers 413, and not the predictions of its first rows."""
    client = make_app(server__max_body_bytes="160").test_client()
    headers = {"Content-Type": "text/csv"}
    for rows, status in ((10, 200), (11, 413)):
        response = client.post(
            "/models/iris/invocations", input_stream=io.BytesIO(b"5.1,3.5,1.4,0.2\n" * rows), headers=headers,
            environ_overrides=CHUNKED,
        )  # fmt: skip
        assert response.status_code == status, response.get_data(as_text=True)
    assert error_of(response)["max_bytes"] == 160


class BrokenStream(io.BytesIO):
    """A chunked body whose connection ends within a chunk, as gunicorn reports it."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("no more data after: b'3'")


def test_a_chunked_body_that_ends_within_a_chunk_is_an_error() -> None:
    """gunicorn's error for a chunked body that is cut becomes ClientDisconnected."""
    with pytest.raises(ClientDisconnected):
        read_body(environ(b"", **CHUNKED, **{"wsgi.input": BrokenStream()}), LIMITS)


BROKEN = {
    "no size": b"zz\r\n",
    "a prefix of the size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "no line end": b"3\r\nabcX",
    "a bad extension": b"3;a b\r\nabc\r\n0\r\n\r\n",
    "a size without an end": b"1" * 20_000,
    "a trailer about the body": b"0\r\nContent-Length: 5\r\n\r\n",
    "a trailer without a name": b"0\r\n: secret\r\n\r\n",
    "too large trailers": b"0\r\n" + b"A: secret\r\n" * 200_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_chunks_that_are_not_valid_are_400(client: FlaskClient, name: str) -> None:
    """As gunicorn's own reader reports them to the application; the error holds no byte of the body."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    parsed = next(RequestParser(Config(), [head + BROKEN[name]], ("127.0.0.1", 1)))
    broken = {**CHUNKED, "wsgi.input": parsed.body, "HTTP_TRANSFER_ENCODING": "chunked"}
    response = client.post("/v1/models/iris:predict", environ_overrides=broken)
    assert response.status_code == 400
    error = error_of(response)["error"]
    assert ("chunks of the body are not valid HTTP" in error) == ("trailer" not in name)
    assert ("trailers after the body" in error) == ("trailer" in name)
    assert "secret" not in error


def test_a_request_without_length_has_no_body() -> None:
    """Without Content-Length and Transfer-Encoding a request has no body (RFC 9112, section 6.3)."""
    assert read_body(environ(b"123", CONTENT_LENGTH=""), LIMITS).raw == b""


def test_a_body_shorter_than_announced_is_an_error() -> None:
    """Fewer bytes than Content-Length announced raise ClientDisconnected, and never a prediction for half a table."""
    with pytest.raises(ClientDisconnected):
        read_body(environ(b"123", CONTENT_LENGTH="4"), LIMITS)


@pytest.mark.parametrize(
    ("header", "encoding"), [("", ""), ("identity", ""), (" Identity ", ""), ("GZIP", "gzip"), ("br", "br")]
)
def test_the_content_encoding_is_normalized(header: str, encoding: str) -> None:
    """Content-Encoding is read without regard to case and space; `identity` counts as none."""
    assert read_body(environ(b"x", HTTP_CONTENT_ENCODING=header), LIMITS).encoding == encoding


def test_a_compressed_body_counts_as_its_limit() -> None:
    """Until it is inflated, a compressed body may have any size up to the limit; beyond it raises TooLarge."""
    small, large = (Body(gzip.compress(bytes(size)), "gzip", LIMITS) for size in (1000, 1001))
    assert small.max_content_bytes == large.max_content_bytes == 1000
    assert small.content() == bytes(1000)
    with pytest.raises(TooLarge, match="server.max_inflated_bytes"):
        large.content()
    with pytest.raises(UnsupportedBody, match="gzip, deflate, zstd"):
        Body(b"x", "br", LIMITS).content()
    with pytest.raises(RequestRejected):
        Body(b"x", "gzip", LIMITS).content()


class Point(msgspec.Struct):
    """A body with one number, and one list of numbers."""

    x: int
    path: list[int] = []


class WidePoint(msgspec.Struct):
    x: object


class NarrowPoint(WidePoint):
    x: int


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b"[]", "the request is malformed: body: Expected `object`, got `array`"),
        (b'{"x": "1"}', "the request is malformed: x: Expected `int`, got `str`"),
        (b'{"x": 1, "path": [1, null]}', "the request is malformed: path[1]: Expected `int`, got `null`"),
        (b'{"x": 1', "the body is not valid JSON: unexpected end of data at line 1, column 8, in x"),
        (b'{"x": NaN}', "JSON has no NaN and no Infinity; send null for a missing cell"),
        (b'{"x": 1}}', "the body is not valid JSON: unexpected content after document at line 1, column 9"),
    ],
)
def test_json_that_does_not_fit_is_explained(text: bytes, error: str) -> None:
    """RequestRejected names the place of a wrong member, or what is wrong with the JSON."""
    with pytest.raises(RequestRejected) as rejected:
        parse_json(text, Point)
    assert error in str(rejected.value)


def test_text_that_is_not_utf_8_is_refused() -> None:
    """A string that is not UTF-8 raises RequestRejected with the place of the byte."""
    with pytest.raises(RequestRejected, match=r"the body is not valid JSON: not UTF-8 at line 2, column 4, in \[1\]"):
        parse_json(b'["b",\n "a\xff"]', object)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'{"instances": [[1, 2],\n [3, 4 5]]}', "line 2, column 8, in instances[1][1]"),
        (b'{"inputs": {"a, b": [1, 2], "c": [1,, 2]}}', "line 1, column 37, in inputs.c[1]"),
        (b"[1, 2", "line 1, column 6, in [1]"),
        (b'{"a": "x\\"]", "b": tru}', "line 1, column 20, in b"),
        (b'{"a": NaN, "b": [1, nul]}', "line 1, column 21, in b[1]"),
        (b'[NaN, Infinity, "NaN]', "line 1, column 22, in [2]"),
        (b"[" + b"0," * 20_000 + b"x]", "line 1, column 40002"),
    ],
)
def test_the_place_of_what_is_wrong_is_named(text: bytes, place: str) -> None:
    """Line, column, and the member up to which the text could be read; words that are read do not shift it."""
    with pytest.raises(RequestRejected) as refused:
        parse_json(text, object, is_strict=False)
    assert str(refused.value).endswith(f" at {place}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[NaN]", [None]),
        (b'{"a": [1, NaN, "NaN", "\\"NaN", "x\\\\", NaN], "NaN": "Infinity"}',
         {"a": [1, None, "NaN", '"NaN', "x\\", None], "NaN": "Infinity"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"\xef\xbb\xbf[NaN]", [None]),
    ],
)  # fmt: skip
def test_json_as_python_writes_it(text: bytes, value: object) -> None:
    """NaN outside of strings is null, and a byte order mark is skipped."""
    assert parse_json(text, object, is_strict=False) == value


@pytest.mark.parametrize("text", [b"[1, Infinity]", b'[1, -Infinity, "Infinity"]', b"[NaN, -Infinity]"])
def test_infinity_is_larger_than_any_cell(text: bytes) -> None:
    """So a column refuses it and names the cell. A body of infinities does not grow without end."""
    got = parse_json(text, list[Any], is_strict=False)
    assert abs(got[1]) == 10**309
    with pytest.raises(RequestRejected, match="JSON has no NaN and no Infinity"):
        parse_json(text, object)
    many = json_words.as_json(b"[" + b"-Infinity," * 100_000 + b"Infinity]")
    assert len(many) < 700_000
    assert parse_json(many, list[Any])[0] == -(10**309)


def test_deep_nesting_is_refused() -> None:
    """JSON that is nested too deeply raises RequestRejected, not RecursionError."""
    with pytest.raises(RequestRejected, match="nested too deeply"):
        parse_json(b"[" * 100_000 + b"]" * 100_000, object)


def test_the_narrow_type_is_preferred() -> None:
    """A body that fits the narrow type is decoded as that; any other body is decoded as the wide type."""
    assert type(parse_json(b'{"x": 1}', WidePoint, narrow=NarrowPoint)) is NarrowPoint
    assert type(parse_json(b'{"x": "1"}', WidePoint, narrow=NarrowPoint)) is WidePoint
    with pytest.raises(RequestRejected, match="not valid JSON"):
        parse_json(b'{"x": ', WidePoint, narrow=NarrowPoint)


def test_cells_have_a_memory_limit() -> None:
    """A body whose decoded cells would take more than the limit raises TooLarge before it is decoded."""
    text = b"[" + b"0," * 100_000 + b"0]"
    assert len(parse_json(text, list[int])) == 100_001
    with pytest.raises(TooLarge):
        parse_json(text, list[int], limit_bytes=1000)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (numbers("a", "b"), schemas.NumbersRequest),
        (numbers("a", "b", nullable=True), schemas.NullableNumbersRequest),
        (Input("frame", (Column("a", "BYTES", "object"),)), None),
        (Input("frame", (Column("a", "INT64", "int64"),)), None),
    ],
)
def test_only_tables_of_float64_have_a_narrow_type(schema: Input, expected: Any) -> None:
    """msgspec checks the cells of a float64 table; other tables need Tableside's own checks."""
    assert schemas.narrow(schema) is expected


VALID_IDS = st.text("abcXYZ019_.:-", min_size=1, max_size=128)


@given(header=VALID_IDS)
def test_a_valid_request_id_is_kept(header: str) -> None:
    """An id of up to 128 letters, digits and `_.:-` is used as it is."""
    assert RequestIds().of({"HTTP_X_REQUEST_ID": header}) == header


@pytest.mark.parametrize("header", ["", "a b", "a\n", "ü", "x" * 129, "a/b", '"'])
def test_an_invalid_request_id_is_replaced(header: str) -> None:
    """An id that is not valid is replaced by a new one, which is valid and unique."""
    ids = RequestIds()
    made = {ids.of({"HTTP_X_REQUEST_ID": header}) for _ in range(50)} | {ids.of({})}
    assert len(made) == 51
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in made)


def test_two_workers_share_no_request_id() -> None:
    """Each application has its own random prefix, so that ids of different workers differ."""
    assert RequestIds().of({})[:20] != RequestIds().of({})[:20]


def test_json_has_no_nan() -> None:
    """NaN and infinity are written as null; float32 keeps its short form; keys may be numbers."""
    content = {"a": np.array([1.5, np.nan, -np.inf]), "b": np.array([0.1], dtype=np.float32), 3: None}
    assert to_json(content) == b'{"a":[1.5,null,null],"b":[0.1],"3":null}'


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, "200 OK"), (404, "404 Not Found"), (429, "429 Too Many Requests"), (499, "499 Client Closed Request")],
)
def test_a_reply_has_its_status_line(status: int, line: str) -> None:
    """The status line has the reason phrase, also for 499, which is not in RFC 9110."""
    reply = Reply(b"{}", status=status, headers=(("Retry-After", "1"),))
    assert reply.line == line
    response = as_response(reply)
    assert (response.status, response.data, response.headers["Retry-After"]) == (line, b"{}", "1")
    assert response.content_type == "application/json"


def test_the_size_of_an_answer_counts_all_outputs() -> None:
    """The approximate size of an answer is the number of its cells, in all outputs, times the size of one."""
    predict, transform = SUM_OUTPUTS
    assert (predict.width, transform.width) == (1, 2)
    assert answer_bytes([predict, transform], 5) == 5 * 3 * CELL_BYTES
