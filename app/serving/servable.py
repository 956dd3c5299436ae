"""One version in one worker: contract, runtime and state; answers tables."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.concurrency.offload import Offload
from app.contract import answers
from app.contract.cells import Array
from app.contract.schema import Contract, Output
from app.contract.table import Table
from app.errors import InferenceFailed, ModelNotReady, RequestRejected, TablesideError, Trouble
from app.repository.modelfile import ColumnRules
from app.runtimes.base import Runtime
from app.serving.lifecycle import State, check
from app.serving.verdicts import Print

_SMOOTHING = 0.2


@dataclass(frozen=True)
class Prediction:
    """arrays: output name to [rows] or [rows, width]. queue_s, predict_s: seconds waited for a thread, and computed."""

    arrays: Mapping[str, Array]
    queue_s: float
    predict_s: float


class Servable:
    """Built in LOADING; `ready` or `fail` decides. `predict` may be called from many greenlets at once."""

    def __init__(self, name: str, version: int, contract: Contract | None = None) -> None:
        self.name = name
        self.version = version
        self.contract = contract
        self.runtime: Runtime | None = None
        self.state = State.LOADING
        self.reason = ""
        self.trouble = Trouble.NONE
        self.warning = ""
        self.load_s = 0.0
        self.fingerprint: Print = None
        self.columns = ColumnRules()
        self.answered = 0
        self._per_row_s = 0.0
        self._fastest_s: float | None = None

    def ready(self, runtime: Runtime, load_s: float, warning: str = "") -> None:
        """The artifact is loaded and its golden rows hold. warning: what differs here from publish all the same."""
        self.runtime, self.load_s, self.warning = runtime, load_s, warning
        self.state = check(self.state, State.READY)
        self.complain(warning, Trouble.ENVIRONMENT if warning else Trouble.NONE)

    def fail(self, reason: str, trouble: Trouble = Trouble.NONE) -> None:
        """It will not be served, because of `reason`."""
        self.state = check(self.state, State.UNAVAILABLE)
        self.complain(reason, trouble)

    def complain(self, reason: str, trouble: Trouble) -> None:
        """Say what is wrong with it, whether it answers or not."""
        self.reason, self.trouble = reason, trouble

    def unload(self) -> None:
        """Let go of the estimator; requests that hold it finish with it."""
        self.state = check(self.state, State.UNLOADING)
        self.runtime = None
        self.state, self.reason = check(self.state, State.UNAVAILABLE), "unloaded"

    def outputs(self, wanted: Sequence[str]) -> tuple[Output, ...]:
        """The outputs of those names, the default one for none. Raises RequestRejected naming what there is."""
        assert self.contract is not None
        if not wanted:
            return (self.contract.default_output,)
        found = []
        for name in wanted:
            output = self.contract.output(name)
            if output is None:
                known = ", ".join(output.name for output in self.contract.outputs)
                raise RequestRejected(f"model {self.name} has no output {name!r}; it has {known}")
            found.append(output)
        return tuple(found)

    def predict(
        self, table: Table, outputs: Sequence[Output], offload: Offload, deadline_at_s: float, inline_below_s: float
    ) -> Prediction:
        """Answer a table: on this thread when it is known to be cheap, else in a native one.

        Raises RequestRejected when the estimator refuses the values, InferenceFailed when it fails otherwise,
        DeadlineExceeded past `deadline_at_s` (monotonic seconds), ModelNotReady when it was unloaded meanwhile.
        """
        runtime = self.runtime
        if runtime is None:
            raise ModelNotReady(f"model {self.name}/{self.version} is {self.state}: {self.reason}")
        queued_at_s = time.monotonic()

        def work() -> Prediction:
            started_s = time.monotonic()
            data = runtime.prepare(table)
            arrays = answers.collect(outputs, runtime.run, data)
            return Prediction(arrays, started_s - queued_at_s, time.monotonic() - started_s)

        cheap = self._expected_s(table.rows) < inline_below_s
        try:
            prediction = work() if cheap else offload.call(work, deadline_at_s)
        except TablesideError:
            raise
        except ValueError as refusal:
            raise RequestRejected("the model refuses these values") from refusal
        except Exception as fault:
            raise InferenceFailed from fault
        self._learn(prediction.predict_s, table.rows)
        return prediction

    def _expected_s(self, rows: int) -> float:
        """What a call should cost: never less than the fastest one seen, which is what a call costs before its rows."""
        return math.inf if self._fastest_s is None else max(self._fastest_s, self._per_row_s * rows)

    def _learn(self, predict_s: float, rows: int) -> None:
        per_row_s = predict_s / max(1, rows)
        first = self._fastest_s is None
        self._fastest_s = predict_s if self._fastest_s is None else min(self._fastest_s, predict_s)
        self._per_row_s = per_row_s if first else self._per_row_s + _SMOOTHING * (per_row_s - self._per_row_s)
