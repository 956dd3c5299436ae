"""Why a worker refuses a generation, as a file beside the statements, and in words."""

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


def still_serving(reason: str) -> str:
    """Return the problem of a version that is served as it was loaded before its files changed."""
    return f"the files changed and no longer load ({reason}); still serving what was loaded before"
