"""Bodies of the two protocols, as they arrive. Unknown members are ignored, as every peer does."""

from __future__ import annotations

from typing import Any

import msgspec

from tableside.contract.schema import Input
from tableside.decoding.tensors import Tensor


class RequestedOutput(msgspec.Struct):
    """An output asked for by name."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """V2: Open Inference Protocol, inference_rest.md, "Inference Request JSON Object"."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


class PredictRequest(msgspec.Struct):
    """V1: TF-Serving's api_rest.md. `instances` are rows, `inputs` columns; exactly one of them."""

    instances: Any = msgspec.UNSET
    inputs: Any = msgspec.UNSET
    signature_name: str | None = None


class NumbersRequest(PredictRequest):
    """V1, where every cell is a number: what the decoder has checked itself need not be looked at again."""

    instances: list[list[float]] | msgspec.UnsetType = msgspec.UNSET


class NullableNumbersRequest(PredictRequest):
    """The same, where a cell may be missing."""

    instances: list[list[float | None]] | msgspec.UnsetType = msgspec.UNSET


def narrow(schema: Input) -> type[PredictRequest] | None:
    """The request whose rows are rows of this table of doubles; None for other tables."""
    if not schema.is_double:
        return None
    return NullableNumbersRequest if schema.takes_missing else NumbersRequest
