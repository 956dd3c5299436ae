"""KServe's InferenceRESTClient: V2 with InferInput, binary and JSON, and V1."""

import asyncio

import httpx
import numpy as np
from common import frame, job, plain_rows, run
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

KINDS = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL"}
given = job()


def call(protocol, model, data):
    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, transport=httpx.AsyncHTTPTransport()))
        try:
            return await client.infer(given["url"], data, model_name=model)
        finally:
            await client.close()

    return asyncio.run(ask())


def tensors(model, binary):
    def send(table):
        columns, inputs = frame(table), []
        for name in columns.columns:
            kind = KINDS.get(str(columns[name].dtype), "BYTES")
            cells = columns[name]
            if kind == "BYTES":
                texts = cells.dt.strftime("%Y-%m-%dT%H:%M:%S") if str(cells.dtype).startswith("datetime") else cells
                cells = np.array([str(each) for each in texts], dtype=object)
            else:
                cells = cells.to_numpy()
            inputs.append(InferInput(name, [len(columns)], kind))
            inputs[-1].set_data_from_numpy(cells, binary_data=binary)
        answer = call("v2", model, InferRequest(model_name=model, infer_inputs=inputs))
        return answer.outputs[0].as_numpy().ravel().tolist()

    return send


def from_frame(model):
    def send(table):
        columns, inputs = frame(table), []
        for name in columns.columns:
            cells = columns[name]
            is_date = str(cells.dtype).startswith("datetime")
            values = (cells.dt.strftime("%Y-%m-%dT%H:%M:%S") if is_date else cells.to_numpy()).tolist()
            inputs.append(InferInput(name, [len(columns)], KINDS.get(str(columns[name].dtype), "BYTES"), values))
        return (
            call("v2", model, InferRequest(model_name=model, infer_inputs=inputs))
            .outputs[0]
            .as_numpy()
            .ravel()
            .tolist()
        )

    return send


def v1(model):
    return lambda table: call("v1", model, {"instances": plain_rows(table)})["predictions"]


run(
    given,
    {
        "V2 InferInput, binary": ("kinds", tensors("kinds", True)),
        "V2 InferInput, JSON": ("kinds", tensors("kinds", False)),
        "V2 InferInput from lists": ("kinds", from_frame("kinds")),
        "V1 instances": ("kinds", v1("kinds")),
        "V1 instances of numbers": ("numbers", v1("numbers")),
        "V1 instances of text": ("notes", v1("notes")),
    },
)
