"""The requests of the last quarter of an hour, for the plots of the status page.

Each worker counts its own requests and writes them every SAMPLE_S into files of its slot, one for each minute. The
files of the earliest minutes are written over, so that their number is bounded. Readers add up the files of all slots.
What was counted survives restarts. No file of the metrics is read for it, and nothing is locked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from tableside.process.offload import run_native
from tableside.serving.log_histogram import LogHistogram
from tableside.telemetry import logs
from tableside.telemetry.request_metrics import Activity

FOLDER = "history"
"""In the run folder: for each worker slot the files `SLOT.PLACE.json`."""
SAMPLE_S = 10
SAMPLES_IN_FILE = 6
SAMPLES = 90
"""How many samples are shown: 15 minutes."""
FILES = SAMPLES // SAMPLES_IN_FILE + 2
"""Files of one slot. The newest one is not full, and the earliest one is written over."""
log = logs.get_logger("history")


class Count(msgspec.Struct, array_like=True):
    """Answered requests. errors: those with 5xx."""

    requests: int = 0
    errors: int = 0

    def add(self, other: Count) -> None:
        """Add what another one has counted."""
        self.requests += other.requests
        self.errors += other.errors


class SlotFile(msgspec.Struct):
    """A file of one slot. number: which of all files since 1970. samples: by number since 1970, what each model did.

    seconds: how long the requests of each model took, in all samples of the file.
    """

    number: int
    samples: dict[int, dict[str, Count]] = {}
    seconds: dict[str, LogHistogram] = {}


class History:
    """The last SAMPLES samples of a host. newest: the number of the last one. Models without requests have no entry."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self._earliest = newest - SAMPLES + 1
        self._counts: dict[str | None, dict[int, Count]] = {}
        self._seconds: dict[str | None, LogHistogram] = {}

    def add(self, file: SlotFile) -> None:
        """Add what a file has of these samples."""
        if (file.number + 1) * SAMPLES_IN_FILE <= self._earliest or file.number * SAMPLES_IN_FILE > self.newest:
            return
        for number, models in file.samples.items():
            if self._earliest <= number <= self.newest:
                for model, count in models.items():
                    for name in (model, None):
                        self._counts.setdefault(name, {}).setdefault(number, Count()).add(count)
        for model, seconds in file.seconds.items():
            for name in (model, None):
                self._seconds.setdefault(name, LogHistogram()).merge(seconds)

    def rates(self, model: str | None = None) -> list[float]:
        """Return the requests per second in each sample, the earliest first; None adds up all models."""
        counts = self._counts.get(model, {})
        return [
            found.requests / SAMPLE_S if (found := counts.get(number)) else 0.0
            for number in range(self._earliest, self.newest + 1)
        ]

    def total(self, model: str | None, samples: int = SAMPLES) -> Count:
        """Return the sum of the last samples."""
        sum_ = Count()
        for number, count in self._counts.get(model, {}).items():
            if number > self.newest - samples:
                sum_.add(count)
        return sum_

    def seconds(self, model: str | None, share: float) -> float | None:
        """Return the time in which this share of the requests was answered; None without requests.

        The first minute counts as a whole.
        """
        found = self._seconds.get(model)
        return found.quantile(share) if found is not None else None


class Recorder:
    """Writes the samples of one worker."""

    def __init__(self, run_dir: Path, slot: int, take: Callable[[], Mapping[str, Activity]]) -> None:
        """take: returns what was answered since it was called last; the first call begins to count."""
        self._folder = run_dir / FOLDER
        self._slot = slot
        self._take = take
        self._file = SlotFile(-1)

    def start(self) -> None:
        """Begin to count, and write from then on, in a thread."""
        self._take()
        threading.Thread(target=self._run, name="history", daemon=True).start()

    def _run(self) -> None:
        run_native(self._remove_drafts)
        while True:
            now_s = time.time()
            time.sleep(SAMPLE_S - now_s % SAMPLE_S)  # all workers at the same moment, so that their samples add up
            try:
                self.sample(now_s)
            except Exception as problem:  # noqa: BLE001 - the next sample may succeed, and somebody has to take
                log.error("history_failed", reason=f"{type(problem).__name__}: {problem}")

    def _remove_drafts(self) -> None:
        """Remove what workers of this slot left that were killed while they wrote."""
        for draft in self._folder.glob(f"{self._slot}.*.tmp"):
            with suppress(OSError):
                draft.unlink()

    def sample(self, began_s: float) -> None:
        """Write what was answered since the last call, as the sample to which `began_s` (since 1970) belongs.

        Without requests nothing is written. On a full disk the files stay as they are.
        """
        activity = self._take()
        if activity:
            run_native(partial(self._write, int(began_s) // SAMPLE_S, activity))

    def _write(self, number: int, activity: Mapping[str, Activity]) -> None:
        in_file = number // SAMPLES_IN_FILE
        path = self._folder / f"{self._slot}.{in_file % FILES}.json"
        if self._file.number != in_file:
            found = _read(path)  # of a worker that had the slot a moment ago
            self._file = found if found is not None and found.number == in_file else SlotFile(in_file)
        sample = self._file.samples.setdefault(number, {})
        for model, each in activity.items():
            sample.setdefault(model, Count()).add(Count(each.requests, each.errors))
            self._file.seconds.setdefault(model, LogHistogram()).add_all(np.asarray(each.seconds))
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(msgspec.json.encode(self._file))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _read(path: Path) -> SlotFile | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SlotFile)
    except (OSError, msgspec.MsgspecError):
        return None


def read(run_dir: Path, now_s: float) -> History:
    """Return the last samples of all workers that are complete at this moment (since 1970).

    A file that is missing, too early or of another form counts as none.
    """
    history = History(int(now_s) // SAMPLE_S - 1)
    for path in (run_dir / FOLDER).glob("*.json"):
        if (found := _read(path)) is not None:
            history.add(found)
    return history
