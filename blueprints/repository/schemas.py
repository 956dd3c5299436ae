"""Bodies of the model repository extension, as Triton has it (protocol/extension_model_repository.md)."""

from __future__ import annotations

from typing import Any

import msgspec


class IndexRequest(msgspec.Struct, frozen=True):
    """ready: only versions that answer."""

    ready: bool = False


class ChangeRequest(msgspec.Struct, frozen=True):
    """Body of load and unload."""

    parameters: dict[str, Any] | None = None
