"""What callers send in cells is in no log line, no metric and no error, whichever road a request takes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tests.conftest import BEARER, CONTROL, QUICK, MakeApp, serve
from tests.hostile import mutations
from tests.spellings import INVOKE, V1, V2, Request, spellings

TEXT, NUMBER, DATE = "Xmarkx", 73917391.5, "2173-09-17"
MARKS = (TEXT, "73917391", DATE, DATE[:7])
TABLE = Input(
    "frame",
    (
        Column("real", "FP64", "float64", nullable=True),
        Column("count", "INT64", "int64", nullable=True),
        Column("word", "BYTES", "object", nullable=True),
        Column("day", "BYTES", "datetime64[ns]", nullable=True),
        Column("shade", "BYTES", "object", categories=("red", "pale"), closed=True, nullable=True),
    ),
)
GOOD: list[list[Any]] = [[NUMBER, 73917391, TEXT, DATE, "red"]] * 2
BAD: dict[str, list[list[Any]]] = {
    "text for a number": [[TEXT, 1, "a", DATE, "red"]],
    "a fraction for an integer": [[NUMBER, NUMBER, "a", DATE, "red"]],
    "a number for text": [[NUMBER, 1, NUMBER, DATE, "red"]],
    "text for a date": [[NUMBER, 1, "a", TEXT, "red"]],
    "an unknown category": [[NUMBER, 1, "a", DATE, TEXT]],
    "a list for a cell": [[[TEXT], 1, "a", DATE, "red"]],
    "rows of two lengths": [[NUMBER, 1], [TEXT]],
}


class QuotingRuntime:
    """A runtime that behaves as `how` says, and quotes its input wherever an estimator could."""

    platform = "fake_quoting"

    def __init__(self, how: Callable[[str], object]) -> None:
        self._how = how

    def prepare(self, table: Table) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        self._how(data.to_string())
        return np.zeros(len(data))


def warn(text: str) -> None:
    """What Python does with `warnings.warn`; pytest would keep the warning from being written."""
    sys.stderr.write(warnings.formatwarning(text, RuntimeWarning, "model.py", 7))


def raise_value(text: str) -> None:
    raise ValueError(f"could not convert {text}")


def raise_from(text: str) -> None:
    try:
        raise KeyError(text)
    except KeyError as cause:
        raise RuntimeError(text) from cause


def raise_named(text: str) -> None:
    class Problem(Exception):
        def __str__(self) -> str:
            return text

    raise Problem(text)


MODELS: dict[str, Callable[[str], object]] = {
    "fine": len, "warns": warn, "refuses": raise_value, "fails": raise_from, "names": raise_named,
}  # fmt: skip


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True, **{**QUICK, "log__level": "debug"})
    serve(app, {name: (TABLE, QuotingRuntime(how)) for name, how in MODELS.items()})
    return app.test_client()


def requests(rows: list[list[Any]]) -> list[Request]:
    """The rows in every format that can hold them."""
    if rows is GOOD:
        return [request for _, request in spellings(TABLE, rows, random.Random(1))]
    cells = [json.dumps(cell) if isinstance(cell, list) else str(cell) for row in rows for cell in row]
    tensor = {"name": "word", "shape": [1], "datatype": "BYTES", "data": cells}
    kind = {"Content-Type": "application/json"}
    return [
        Request(V1, json.dumps({"instances": rows}).encode(), kind),
        Request(V2, json.dumps({"inputs": [tensor]}).encode(), kind),
        Request(INVOKE, json.dumps({"dataframe_split": {"data": rows}}).encode(), kind),
        Request(INVOKE, json.dumps(rows).encode(), kind),
        Request(INVOKE, (",".join(cells) + "\n").encode(), {"Content-Type": "text/csv; header=absent"}),
    ]


def test_cells_are_in_no_line_no_metric_and_no_error(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    """Every format; every kind of wrong cell; damaged bodies; estimators that warn, refuse and raise."""
    chance, statuses = random.Random(5), Counter[int]()
    for model in MODELS:
        sent = [request for rows in (GOOD, *BAD.values()) for request in requests(rows)]
        sent += [Request(r.path, mutations.in_bytes(r.body, chance), r.headers) for r in sent for _ in range(3)]
        for request in sent:
            answer = client.post(request.path.replace("MODEL", model), data=request.body, headers=request.headers)
            statuses[answer.status_code] += 1
            shown = answer.get_data(as_text=True)
            assert answer.status_code == 200 or not any(mark in shown for mark in MARKS), shown
    assert set(statuses) <= {200, 400, 413, 415, 500}
    assert min(statuses[200], statuses[400], statuses[500]) > 50, statuses
    metrics = client.get("/metrics", environ_overrides=CONTROL, headers=BEARER)
    assert metrics.status_code == 200
    assert "tableside_requests_total" in metrics.get_data(as_text=True)
    written = capfd.readouterr()
    assert written.out.count("request") > statuses.total() / 2, "the logs were read"
    assert written.err.count("model.py:7: RuntimeWarning (text hidden") > 20
    for text in (metrics.get_data(as_text=True), written.out, written.err):
        lines = [line for line in text.splitlines() if any(mark in line for mark in MARKS)]
        assert not lines, lines[:3]


WARNS = """
import sys, warnings
from tableside import settings
from tableside.factory import create_app
environ = {"TABLESIDE__SERVER__RUN_DIR": sys.argv[1], "TABLESIDE__PREDICT__SHOW_VALUES": sys.argv[2]}
create_app(settings.load(environ))
warnings.warn("could not read Xmarkx", stacklevel=1)
"""


@pytest.mark.processes
@pytest.mark.parametrize("shown", ["true", "false"])
def test_a_warning_of_an_estimator_has_no_text(tmp_path: Path, shown: str) -> None:
    """Python writes warnings to stderr, which is the log of the workers: the place and the class, not the text."""
    command = [sys.executable, "-c", WARNS, str(tmp_path), shown]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (TEXT in done.stderr, "UserWarning (text hidden" in done.stderr) == (shown == "true", shown == "false")


def test_a_warning_in_a_model_process_has_no_text() -> None:
    """Model processes write to logs of their own, by the same rule."""
    code = "import warnings; from tableside.model_process.child import main; main.hide_texts_of_warnings(); "
    command = [sys.executable, "-c", f"{code}warnings.warn('Xmarkx', stacklevel=1)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert TEXT not in done.stderr
    assert "UserWarning (text hidden" in done.stderr
