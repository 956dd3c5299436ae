"""tritonclient.http: binary tensors, JSON tensors, and one matrix."""

import sys

import numpy as np
import tritonclient.http as triton
from common import frame, job, run

KINDS = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL"}
given = job()
client = triton.InferenceServerClient(given["url"].removeprefix("http://"))


def by_column(model, binary, compression=None):
    def send(table):
        columns = frame(table)
        tensors = []
        for name in columns.columns:
            kind = KINDS.get(str(columns[name].dtype), "BYTES")
            cells = columns[name]
            if kind == "BYTES":
                texts = cells.dt.strftime("%Y-%m-%dT%H:%M:%S") if str(cells.dtype).startswith("datetime") else cells
                cells = np.array([str(each) for each in texts], dtype=object)  # the library refuses other objects
            else:
                cells = cells.to_numpy()
            tensors.append(triton.InferInput(name, [len(columns)], kind))
            tensors[-1].set_data_from_numpy(cells, binary_data=binary)
        wanted = [triton.InferRequestedOutput("predict", binary_data=binary)]
        answer = client.infer(model, tensors, outputs=wanted, request_compression_algorithm=compression)
        return answer.as_numpy("predict").ravel().tolist()

    return send


def matrix(kind, binary):
    def send(table):
        cells = np.ascontiguousarray(frame(table).to_numpy().astype(kind))
        tensor = triton.InferInput("input-0", list(cells.shape), {"f8": "FP64", "f4": "FP32"}[kind])
        tensor.set_data_from_numpy(cells, binary_data=binary)
        return client.infer("numbers", [tensor]).as_numpy("predict").ravel().tolist()

    return send


run(
    given,
    {
        "V2 binary tensors": ("kinds", by_column("kinds", True)),
        "V2 JSON tensors": ("kinds", by_column("kinds", False)),
        "V2 binary tensors, gzip": ("kinds", by_column("kinds", True, "gzip")),
        "V2 binary text": ("notes", by_column("notes", True)),
        "V2 binary matrix": ("numbers", matrix("f8", True)),
        "V2 JSON matrix": ("numbers", matrix("f8", False)),
    },
)
sys.stdout.flush()
