"""One prediction, in one direction: find, decode, predict, encode. Every protocol's view calls this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.contract.cells import Array
from app.contract.decode import require_rows
from app.contract.schema import Input, Output
from app.contract.table import Table
from app.serving.servable import Servable
from app.web.bodies import deadline_at_s, now_s
from app.web.current import wiring
from app.web.trace import trace

Decode = Callable[[Input, int], Table]


@dataclass(frozen=True)
class Answer:
    """What the model said: outputs in the order asked for, each with its array."""

    servable: Servable
    outputs: tuple[tuple[Output, Array], ...]
    rows: int


def answer(servable: Servable, wanted: Sequence[str], decode: Decode) -> Answer:
    """Decode the request's table and predict. `decode(schema, most_errors)` makes the table.

    Raises RequestRejected, DeadlineExceeded, InferenceFailed or ModelNotReady.
    """
    parts, current = wiring(), trace()
    outputs = servable.outputs(wanted)
    assert servable.contract is not None
    in_flight = parts.metrics.in_flight.labels(servable.name)
    in_flight.inc()
    try:
        started_s = now_s()
        table = require_rows(decode(servable.contract.input, parts.settings.predict.max_cell_errors))
        current.rows = table.rows
        current.stages["decode"] = now_s() - started_s
        prediction = servable.predict(
            table, outputs, parts.predicting, deadline_at_s(current.started_s),
            parts.settings.predict.inline_below_ms / 1000,
        )  # fmt: skip
    finally:
        in_flight.dec()
    current.stages["queue"] = prediction.queue_s
    current.stages["predict"] = prediction.predict_s
    parts.metrics.batch_rows.labels(current.model, current.version).observe(table.rows)
    return Answer(servable, tuple((output, prediction.arrays[output.name]) for output in outputs), table.rows)
