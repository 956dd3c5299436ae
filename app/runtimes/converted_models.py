"""Keeps models that treelite has converted, so that workers read them instead of converting each tree again.

treelite's conversion of a small forest takes 4 ms, most of it Python for each tree; reading its own format takes
0.2 ms. The file lies beside the artifact's entry (`tableside.runtimes.checked_artifacts`) and is verified in the same
way. Like every fast backend, what is read is compared with the estimator on the golden rows at each load.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tableside.runtimes import entry_file

_MAGIC = b"tableside converted model 1\n"


class ConvertedModel:
    """The converted model of one artifact: a file that may not exist."""

    def __init__(self, path: Path, artifact: str) -> None:
        """artifact: the SHA-256 of the artifact, which the file must name."""
        self.path = path
        self._artifact = bytes.fromhex(artifact)

    def __call__(self, convert: Callable[[], Any]) -> Any:
        """Return the kept model, or that which `convert` makes, and keep it. Raises what `convert` raises.

        A damaged file and one of another artifact are removed. Where the folder cannot be written nothing is kept.
        """
        found = self._read()
        if found is None:
            found = convert()
            self._write(found.serialize_bytes())
        return found

    def _read(self) -> Any:
        import treelite

        try:
            content = entry_file.verified(self.path, _MAGIC)
            if content is None:
                return None
            if bytes(content[: len(self._artifact)]) != self._artifact:
                raise ValueError("the model of another artifact")
            return treelite.Model.deserialize_bytes(bytes(content[len(self._artifact) :]))
        except Exception:  # noqa: BLE001 - a damaged file may raise anything; the estimator is converted instead
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            return None

    def _write(self, model: bytes) -> None:
        draft = self.path.with_name(f".{uuid.uuid4().hex}")
        content = self._artifact + model
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with draft.open("xb") as file:
                    os.fchmod(file.fileno(), 0o400)
                    file.write(_MAGIC + hashlib.sha256(content).digest() + content)
                draft.replace(self.path)
            finally:
                draft.unlink(missing_ok=True)
