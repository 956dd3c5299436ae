"""A change of the models reaches all workers at once: no request fails, none sees an older generation than before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.switches import SwitchedModel, kills, line_of, publish_two
from tableside.settings import load
from tests.e2e.conftest import Stack

pytestmark = pytest.mark.e2e


def test_switches_lose_nothing_and_never_go_back(make_stack: Callable[..., Stack]) -> None:
    """10,000 requests on kept connections, 100 switches, and workers that are killed while they prepare.

    Each answer is the one of the version that it names, for all its rows: no batch mixes two versions. No connection
    sees a generation that is older than one that was seen by any client before the request was sent.
    """
    stack = make_stack(start=False, TABLESIDE__REPOSITORY__WATCH_INTERVAL_S="0")
    body, answers = publish_two(stack.folder / "models")
    stack.start()
    model = SwitchedModel(load(stack.environ), stack.data, "m", body, answers)
    figures = model.run(100, 10_000, kills(100, 3))
    assert figures.wrong == [], line_of(figures)
    assert (len(figures.seconds), figures.killed) == (100, 3)
    assert figures.answered >= 10_000
    assert min(figures.by_version.values()) > 1000
    assert set(figures.by_version) == {"m/1", "m/2"}
    assert max(figures.seconds) < 30
    stack.stop()
