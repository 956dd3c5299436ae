"""Checked artifacts: the content of artifacts whose types have been audited, in files that all workers of a host map.

The first load of an artifact on a host writes its entry: records of its objects (`tableside.runtimes.skops_records`)
and its arrays, never a pickle. A later load reads the entry instead of the skops file, in a fiftieth of the time. The
folder is in the run folder, which only the server's user can enter. The name of an entry is a hash of the artifact's
checksum, of the versions of the libraries and of this release; its content is verified each time. What treelite has
converted of the artifact lies beside the entry (`tableside.runtimes.converted_models`).
"""

from __future__ import annotations

import hashlib
import io
import os
import time
import uuid
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tableside import __version__
from tableside.contracts.environment import environment
from tableside.errors import ContractBroken
from tableside.process.file_locks import try_lock
from tableside.process.plain_sockets import pause
from tableside.runtimes import entry_file, skops_audit, skops_builder, skops_records, trusted_types
from tableside.runtimes.converted_models import ConvertedModel
from tableside.runtimes.object_equality import are_equal

CHECKED_ARTIFACTS_FOLDER = "checked_artifacts"
"""Name of the folder below the run folder."""
_SUFFIX, _CONVERTED, _LOCK = ".entry", ".treelite", ".lock-"
_LOCKS = 16
_WAIT_S, _POLL_S = 120.0, 0.02
_STALE_S = 3600


@dataclass(frozen=True)
class Built:
    """What an artifact holds. is_finished: whether that is the whole estimator, single-threaded and without boosters.

    is_finished is False where it is not known.
    """

    estimator: Any
    is_finished: bool = False


class CheckedArtifacts:
    """The entries below one folder. Where it cannot be written or read, each load reads the artifact itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entry(self, artifact: str) -> Entry:
        """The entry of the artifact with this SHA-256; its file may not exist."""
        return Entry(self._folder / f"{_digest(artifact)}{_SUFFIX}", artifact)

    def converted(self, artifact: str) -> ConvertedModel:
        """The model that treelite has converted from the artifact with this SHA-256; its file may not exist."""
        return ConvertedModel(self._folder / f"{_digest(artifact)}{_CONVERTED}", artifact)

    def count(self) -> int:
        """How many entries there are. Raises OSError where the folder cannot be read."""
        return sum(1 for name in os.listdir(self._folder) if name.endswith(_SUFFIX))

    def sweep(self, kept: Iterable[str]) -> None:
        """Remove the files of all artifacts but these, and drafts that are older than an hour."""
        names = {_digest(artifact) for artifact in kept}
        with suppress(OSError):
            for file in list(self._folder.iterdir()):
                is_kept_file = file.suffix in (_SUFFIX, _CONVERTED)
                is_old_draft = not file.name.startswith(_LOCK) and time.time() - file.stat().st_mtime > _STALE_S
                if file.stem not in names if is_kept_file else is_old_draft:
                    file.unlink(missing_ok=True)


def _digest(artifact: str) -> str:
    """The name of the artifact's files, without suffix."""
    parts = (artifact, environment(), __version__)
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


class Entry:
    """The entry of one artifact: a file that may not exist."""

    def __init__(self, path: Path, artifact: str) -> None:
        self.path = path
        self._artifact = artifact

    def open(self, label: str, allowed: Collection[str]) -> Built | None:
        """Return the estimator of the artifact, built from the entry; None without one.

        label: the artifact's file name, for messages. A damaged entry, one of another artifact and one with a type that
        skops' audit does not pass now are removed and count as missing. Raises ContractBroken for a type that is
        not in `allowed` any more.
        """
        try:
            found = entry_file.read(self.path)
            if found is None:
                return None
            index, records = found
            if index.artifact != self._artifact or not skops_audit.untrusted(records.types) <= set(index.untrusted):
                raise ValueError("an entry of another artifact, or with types that were not audited")
            trusted_types.check(label, index.untrusted, allowed)
            return Built(skops_builder.build(records, index.untrusted), index.is_finished)
        except ContractBroken:
            raise
        except Exception:  # noqa: BLE001 - a damaged entry may raise anything; the artifact is loaded instead
            self.drop()
            return None

    def put(self, source: Path | io.BytesIO, untrusted: Collection[str], estimator: object, is_finished: bool) -> None:
        """Write the entry if what is built from it equals the estimator in every bit.

        source: the skops file. untrusted: at least the types in it that skops does not trust. estimator: what skops has
        built of the file. is_finished: see Built. Writes nothing for a file that has no records, and where the folder
        cannot be written.
        """
        draft = self.path.with_name(f".{uuid.uuid4().hex}")
        types = sorted(untrusted)
        try:
            with zipfile.ZipFile(source) as archive:
                records = skops_records.read(archive)
            entry_file.write(draft, self._artifact, types, records, is_finished)
            found = entry_file.read(draft)
            if found is not None and are_equal(skops_builder.build(found[1], types), estimator):
                draft.replace(self.path)
        except Exception:  # noqa: BLE001 - for example a full disk; every load then reads the artifact
            return
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Wait until no other process makes this entry, and keep others from making it meanwhile.

        After _WAIT_S, and where the folder cannot be written, both make it.
        """
        fd, give_up_at_s = None, time.monotonic() + _WAIT_S
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self.path.with_name(f"{_LOCK}{int(self.path.name[:8], 16) % _LOCKS}")
            while (fd := try_lock(lock)) is None and time.monotonic() < give_up_at_s:
                pause(_POLL_S)
        try:
            yield
        finally:
            if fd is not None:
                os.close(fd)

    def drop(self) -> None:
        """Remove the entry. Processes that have mapped it go on using it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
