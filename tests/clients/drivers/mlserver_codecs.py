"""MLServer's codecs write V2 requests; they are sent with the library's own types."""

import json
import urllib.request

from common import frame, job, run
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec, StringRequestCodec
from mlserver.types import InferenceRequest, InferenceResponse

given = job()


def infer(model, request):
    body = request.model_dump_json(exclude_none=True).encode()
    url = "{}/v2/models/{}/infer".format(given["url"], model)
    sent = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(sent, timeout=60) as answer:
        response = InferenceResponse.model_validate(json.load(answer))
    return NumpyCodec.decode_output(response.outputs[0]).ravel().tolist()


def pandas(model, **options):
    def send(table):
        columns = frame(table)
        for name in columns.select_dtypes("datetime"):  # the codec has no datatype for dates
            columns[name] = columns[name].dt.strftime("%Y-%m-%dT%H:%M:%S").astype(object)
        for name in columns.select_dtypes("object"):  # a NaN in text makes the codec fail
            columns[name] = columns[name].where(columns[name].notna(), None)
        return infer(model, PandasCodec.encode_request(columns, **options))

    return send


def as_it_is(table):
    return infer("kinds", PandasCodec.encode_request(frame(table)))


def numpy(table):
    return infer("numbers", NumpyRequestCodec.encode_request(frame(table).to_numpy()))


def by_input(table):
    inputs = []
    for name, dtype, cells in table:
        if dtype in ("object", "str"):
            inputs.append(StringCodec.encode_input(name, cells, use_bytes=False))
        elif dtype.startswith("datetime"):
            from mlserver.codecs import DatetimeCodec

            column = frame([(name, dtype, cells)])[name]
            inputs.append(DatetimeCodec.encode_input(name, [each.to_pydatetime() for each in column], use_bytes=False))
        else:
            inputs.append(NumpyCodec.encode_input(name, frame([(name, dtype, cells)])[name].to_numpy()))
    return infer("kinds", InferenceRequest(inputs=inputs))


run(
    given,
    {
        "PandasCodec": ("kinds", pandas("kinds", use_bytes=False)),
        "PandasCodec of dates and NaN": ("kinds", as_it_is),
        "PandasCodec, base64": ("notes", pandas("notes", use_bytes=True)),
        "PandasCodec, one column of text": ("notes", pandas("notes", use_bytes=False)),
        "NumpyCodec, StringCodec, DatetimeCodec": ("kinds", by_input),
        "NumpyRequestCodec": ("numbers", numpy),
        "StringRequestCodec": (
            "notes",
            lambda table: infer("notes", StringRequestCodec.encode_request(table[0][2], use_bytes=False)),
        ),
    },
)
