"""Request bodies of the V1 and V2 protocols. Unknown members are ignored, as other servers of these protocols do."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tableside.contracts.schema import Input
from tableside.decoding.tensors import Tensor

Parameters = dict[str, object]
"""Parameters of a V2 request or output: JSON values by name."""


class RequestedOutput(msgspec.Struct):
    """An output that a V2 request names."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct):
    """V2: the "Inference Request JSON Object" of the Open Inference Protocol (inference_rest.md).

    misplaced: fields that belong elsewhere, and are refused.
    """

    inputs: list[Tensor]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None
    output: object = msgspec.UNSET
    predict_method: object = msgspec.UNSET
    params: object = msgspec.UNSET

    misplaced: ClassVar[tuple[str, ...]] = ("output", "predict_method", "params")


class IdOnly(msgspec.Struct):
    """V2: the id of a request whose other members do not fit, for the error."""

    id: str | None = None


class PredictRequest(msgspec.Struct):
    """V1: the predict request of TF-Serving (api_rest.md). A body has `instances` (rows) or `inputs` (columns).

    misplaced: fields that belong elsewhere, and are refused.
    """

    instances: object = msgspec.UNSET
    inputs: object = msgspec.UNSET
    signature_name: str | None = None
    output: object = msgspec.UNSET
    outputs: object = msgspec.UNSET
    predict_method: object = msgspec.UNSET
    params: object = msgspec.UNSET
    parameters: object = msgspec.UNSET

    misplaced: ClassVar[tuple[str, ...]] = ("output", "outputs", "predict_method", "params")


class NumbersRequest(PredictRequest):
    """V1, where every cell is a number. msgspec checks the cells while it decodes, so they are not checked again."""

    instances: list[list[float]] | msgspec.UnsetType = msgspec.UNSET


class NullableNumbersRequest(PredictRequest):
    """V1, where every cell is a number or null."""

    instances: list[list[float | None]] | msgspec.UnsetType = msgspec.UNSET


def narrow(schema: Input) -> type[PredictRequest] | None:
    """The request type for rows of a table that has only float64 columns; None for other tables."""
    if not schema.is_double:
        return None
    return NullableNumbersRequest if schema.takes_missing else NumbersRequest
