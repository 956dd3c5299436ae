"""The bytes of MLServer 1.7.1's codecs and of the serializers of SageMaker's SDK 2.257 give the estimator their values.

They were written by those packages, which need other versions of libraries than Tableside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contracts.schema import Column, Input
from tests.conftest import QUICK, MakeApp, serve
from tests.fakes import RecordingRuntime, numbers

PEOPLE = Input(
    "frame",
    (
        Column("city", "BYTES", "object", nullable=True),
        Column("born", "BYTES", "datetime64[ns]"),
        Column("n", "FP64", "float64", nullable=True),
    ),
)
NOTES = Input("texts", (Column("note", "BYTES", "object"),))
CITIES = ["Graz", "Wien", "Graz"]
DAYS = ["2020-01-01T00:00:00", "2021-05-06T12:30:00", "2022-01-01T00:00:00"]
_NUMBERS = b'{"name":"n","shape":[3,1],"datatype":"FP64","parameters":{"content_type":"np"},"data":[1.5,2.0,3.0]}'
_DATES = (
    b'{"name":"born","shape":[3,1],"datatype":"BYTES","parameters":{"content_type":"datetime"},'
    b'"data":["2020-01-01T00:00:00","2021-05-06T12:30:00","2022-01-01T00:00:00"]}'
)
_CITY = b'{"name":"city","shape":[3,1],"datatype":"BYTES","parameters":{"content_type":"%s"},"data":%s}'
_TABLE = b'{"parameters":{"content_type":"pd"},"inputs":[%s,%s,%s]}'
PANDAS = (
    b'{"parameters":{"content_type":"pd"},"inputs":[{"name":"city","shape":[3,1],"datatype":"BYTES","parameters":'
    b'{"content_type":"str"},"data":["Graz","Wien","Graz"]},{"name":"born","shape":[3,1],"datatype":"BYTES",'
    b'"parameters":{"content_type":"str"},"data":["2020-01-01","2021-05-06","2022-01-01"]},{"name":"n","shape":[3,1],'
    b'"datatype":"FP64","data":[1.5,2.0,null]}]}'
)
"""PandasCodec.encode_request."""
BY_CODEC = {
    "Base64Codec": _TABLE % (_CITY % (b"base64", b'["R3Jheg==","V2llbg==","R3Jheg=="]'), _DATES, _NUMBERS),
    "StringCodec": _TABLE % (_CITY % (b"str", b'["Graz","Wien","Graz"]'), _DATES, _NUMBERS),
    "NumpyCodec": _TABLE % (_CITY % (b"np", b'["Graz","Wien","Graz"]'), _DATES, _NUMBERS),
}
"""What encode_input of each codec makes of the cities, beside DatetimeCodec and NumpyCodec."""
TEXTS = (
    b'{"parameters":{"content_type":"str"},"inputs":[{"name":"input-1","shape":[2,1],"datatype":"BYTES","parameters":'
    b'{"content_type":"str"},"data":["hello","w\\u00f6rld"]}]}'
)
"""StringRequestCodec.encode_request."""
ARRAY = (
    b'{"parameters":{"content_type":"np"},"inputs":[{"name":"input-1","shape":[2,2],"datatype":"FP64","parameters":'
    b'{"content_type":"np"},"data":[1.0,2.0,3.0,4.0]}]}'
)
"""NumpyRequestCodec.encode_request."""
SERIALIZED = {
    "application/jsonlines": b"[1.0, 2.0]\n[3.0, 4.0]",
    "text/csv": b"1.0,2.0\n3.0,4.0",
    "application/json": b"[[1.0, 2.0], [3.0, 4.0]]",
    "application/x-npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }"
    + b" " * 58
    + b"\n\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\x08\x40\0\0\0\0\0\0\x10\x40",
}
"""JSONLinesSerializer, CSVSerializer, JSONSerializer and NumpySerializer."""


class Asked:
    """Sends bodies to an application, and returns what the estimator received."""

    def __init__(self, make_app: MakeApp, schema: Input) -> None:
        app = make_app(empty=True, **QUICK)
        self._runtime = RecordingRuntime()
        serve(app, {"m": (schema, self._runtime)})
        self._client = app.test_client()

    def __call__(self, path: str, body: bytes, kind: str = "application/json") -> Any:
        answer = self._client.post(f"/{path}", data=body, content_type=kind)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return self._runtime.seen.pop()


@pytest.mark.parametrize("codec", BY_CODEC)
def test_each_codec_of_mlserver(make_app: MakeApp, codec: str) -> None:
    """Text, dates and numbers by column are those that were encoded."""
    found = Asked(make_app, PEOPLE)("v2/models/m/infer", BY_CODEC[codec])
    assert found["city"].tolist() == CITIES
    assert found["born"].tolist() == [pd.Timestamp(day) for day in DAYS]
    assert found["n"].tolist() == [1.5, 2, 3]


def test_a_dataframe_of_mlserver(make_app: MakeApp) -> None:
    """A missing number is null."""
    found = Asked(make_app, PEOPLE)("v2/models/m/infer", PANDAS)
    assert found["city"].tolist() == CITIES
    assert found["n"].isna().tolist() == [False, False, True]


def test_whole_requests_of_mlserver(make_app: MakeApp) -> None:
    """A list of texts is the only column; an array is the matrix."""
    assert Asked(make_app, NOTES)("v2/models/m/infer", TEXTS) == ["hello", "wörld"]
    np.testing.assert_array_equal(Asked(make_app, numbers("a", "b"))("v2/models/m/infer", ARRAY), [[1, 2], [3, 4]])


@pytest.mark.parametrize("kind", SERIALIZED)
def test_each_serializer_of_sagemaker(make_app: MakeApp, kind: str) -> None:
    """A table of numbers by position."""
    found = Asked(make_app, numbers("a", "b"))("models/m/invocations", SERIALIZED[kind], kind)
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])
