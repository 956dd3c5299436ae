"""Request bodies of Triton's model repository extension (docs/protocol/extension_model_repository.md)."""

from __future__ import annotations

import msgspec


class IndexRequest(msgspec.Struct, frozen=True):
    """Body of index. ready: list only versions that are READY."""

    ready: bool = False


class ChangeRequest(msgspec.Struct, frozen=True):
    """Body of load and unload."""

    parameters: dict[str, object] | None = None
