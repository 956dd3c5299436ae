"""Why a worker refuses a generation, as a file beside the statements."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tableside.serving.statement import Refusal


class WorkerRefusals(msgspec.Struct, frozen=True):
    """What a worker has against a generation. refused: by `name/version`. failure: why it could prepare nothing."""

    generation: int
    pid: int
    refused: dict[str, Refusal] = {}
    failure: str = ""


def refusals_file(folder: Path, slot: int) -> Path:
    """Return the file in which the worker of a slot says why it refuses a generation."""
    return folder / f"refused.{slot}.json"
