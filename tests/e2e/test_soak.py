"""A short soak: what happens to a stack fails no request of a constant stream, and makes none wait.

`make soak` begins with it, then measures the same events with 200 models and a large forest, and draws the latency
around each of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import measured
from benchmarks.soak.measured import BASELINE
from benchmarks.soak.models import Target
from benchmarks.soak.run import Plan, soak
from benchmarks.soak.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(900)]
SILENCE_S = 1.0
"""The longest time in which the stack may answer nothing at all."""
EVENTS = ("restart", "recycle", "kill-master")
"""Upgrades and a killed keeper are in test_restarts.py, killed holders and a killed nginx in test_front.py, a killed
supervisord in test_end_of_stack.py."""


def targets(trained: dict[str, Any]) -> list[Target]:
    """Return a request for each example model whose cells are all there, with the estimator's answer."""
    found = []
    for name, (estimator, sample) in trained.items():
        rows = sample.dropna().iloc[:3]
        body = json.dumps({"instances": rows.to_dict("records")})
        found.append(Target(name, body, estimator.predict(rows).tolist()))
    return found


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for the stack. pytest's own can be too long for the path of a unix socket."""
    with tempfile.TemporaryDirectory(prefix="ts-soak-") as folder:
        yield Path(folder)


@pytest.mark.processes
def test_no_event_fails_a_request_or_makes_the_stack_silent(
    published: Path, trained: dict[str, Any], short_path: Path
) -> None:
    """Restart, recycling, and SIGKILL of the master."""
    shutil.copytree(published, short_path / "models")
    stack = Stack(
        short_path / "stack", short_path / "models", TABLESIDE__REPOSITORY__CONSENT_FILE=str(short_path / "consent")
    )
    plan = Plan(rounds=1, rate=40.0, settle_s=1.0, events=EVENTS)
    result = soak(stack, targets(trained), plan, short_path / "client.jsonl", lambda text: None)
    found = measured.rows(result.sent, result.windows)
    silences = {each.event: measured.longest_silence_s(result.sent, each) for each in result.windows}
    print(measured.table(found), silences, result.troubles, sep="\n")  # noqa: T201 - pytest -s shows the table
    assert result.troubles == []
    assert result.switches >= 5, "changes of the models, once a second beside the events"
    assert [row.event for row in found] == [BASELINE, *EVENTS]
    assert measured.failures(result.sent, result.windows) == {}
    assert all(row.requests >= 40 for row in found), "the client was not running"
    assert {event: silence_s for event, silence_s in silences.items() if silence_s >= SILENCE_S} == {}
