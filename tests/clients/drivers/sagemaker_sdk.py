"""SageMaker SDK: its serializers write the bodies, its deserializers read the answers, as in `Predictor.predict`."""

import io
import urllib.request

from common import frame, job, plain_rows, run
from sagemaker import deserializers, serializers

given = job()


def predict(model, data, serializer, deserializer):
    """What Predictor.predict does around InvokeEndpoint, which hands body and headers to the container."""
    body = serializer.serialize(data)
    body = body.encode() if isinstance(body, str) else body
    accept = ", ".join(deserializer.ACCEPT)
    headers = {"Content-Type": serializer.CONTENT_TYPE, "Accept": accept}
    url = "{}/models/{}/invocations".format(given["url"], model)
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return deserializer.deserialize(io.BytesIO(answer.read()), answer.headers["Content-Type"])


def flat(found):
    if isinstance(found, dict):
        found = found["predictions"]
    if hasattr(found, "to_numpy"):
        found = found.to_numpy()
    if hasattr(found, "ravel"):
        return found.ravel().tolist()
    return [float(each[0] if isinstance(each, list) else each) for each in found]


def csv(model, deserializer=None):
    def send(table):
        back = deserializer or deserializers.CSVDeserializer()
        return flat(predict(model, frame(table).to_numpy().tolist(), serializers.CSVSerializer(), back))

    return send


def json(model, wrap=None):
    def send(table):
        rows = plain_rows(table)
        data = {wrap: rows} if wrap else rows
        return flat(predict(model, data, serializers.JSONSerializer(), deserializers.JSONDeserializer()))

    return send


def lines(model):
    def send(table):
        back = deserializers.JSONLinesDeserializer()
        return flat(predict(model, plain_rows(table), serializers.JSONLinesSerializer(), back))

    return send


def npy(kind, deserializer):
    def send(table):
        cells = frame(table).to_numpy().astype(kind)
        return flat(predict("numbers", cells, serializers.NumpySerializer(), deserializer))

    return send


class Text(deserializers.NumpyDeserializer):
    """NumpyDeserializer as SageMaker's examples use it for CSV."""

    def __init__(self):
        super().__init__(accept="text/csv")


run(
    given,
    {
        "CSVSerializer": ("kinds", csv("kinds")),
        "CSVSerializer, numbers": ("numbers", csv("numbers")),
        "CSVSerializer, text": ("notes", csv("notes")),
        "CSVSerializer, PandasDeserializer": (
            "numbers",
            csv("numbers", deserializers.PandasDeserializer(accept="text/csv")),
        ),
        "CSVSerializer, NumpyDeserializer of CSV": ("numbers", csv("numbers", Text())),
        "JSONSerializer, bare rows": ("kinds", json("kinds")),
        "JSONSerializer, instances": ("kinds", json("kinds", "instances")),
        "JSONLinesSerializer": ("kinds", lines("kinds")),
        "NumpySerializer (SKLearnPredictor)": ("numbers", npy("f8", deserializers.NumpyDeserializer())),
        "NumpySerializer of float32": ("numbers", npy("f4", deserializers.NumpyDeserializer())),
    },
)
