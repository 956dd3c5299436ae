"""Bodies of the two protocols, as they arrive. Unknown members are ignored, as every peer does."""

from __future__ import annotations

from typing import Any

import msgspec

from app.contract.tensors import Tensor


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
