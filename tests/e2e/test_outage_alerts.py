"""A real Prometheus and an outage: no worker answers for a while, and later the whole stack is gone.

The stack is one of its own, because an alert looks at the share of requests that were not answered: requests of other
tests would make that share small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.clients import Clients
from tests.e2e.conftest import Stack, until
from tests.e2e.prometheus_server import Prometheus, shorter
from tests.e2e.test_restarts import workers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
NOT_ANSWERED, SCRAPED_DOWN = "TablesideNoWorkerAnswered", "TablesideScrapeDown"
ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
COUNT = 16
"""Requests that are open at the same time. 16 unanswered ones in the window are 0.07/s; the alert fires from 0.05/s."""
WINDOW = "240s"
"""In place of 5 minutes. The outage must be shorter: a counter that is read again afterwards has increased only if the
window holds a value from before."""


def test_an_outage_is_noticed(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without gunicorn nginx answers 504 itself, which is counted when it runs again. Then the stack ends."""
    stack = make_stack(TABLESIDE__SERVER__REQUEST_TIMEOUT_S="4")
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus") / "server", f"127.0.0.1:{stack.admin}", stack.key)
    prometheus.use_rules(lambda text: shorter(text, {SCRAPED_DOWN, NOT_ANSWERED}, five_minutes=WINDOW))
    prometheus.start()
    try:
        served = Clients(stack)
        served.keep([("iris", ROW)])
        # A window must hold a value of the counter from before the outage.
        assert until(lambda: prometheus.query("instance:tableside_unanswered:rate5m"), 30)
        served.stop()
        assert set(served.answers) == {200}

        # The workers of the ended master serve for some seconds more.
        served_by = [Path(f"/proc/{pid}") for pid in workers(stack)]
        stack.ctl("stop", "web:*")
        assert until(lambda: not any(each.exists() for each in served_by), 60), stack.logs()
        refused = Clients(stack)
        refused.keep([("iris", ROW)], clients=COUNT)
        assert until(lambda: refused.answers[504] >= COUNT, 60), refused.answers
        refused.stop()
        stack.ctl("start", "web:*")
        fired = {NOT_ANSWERED, SCRAPED_DOWN}
        assert until(lambda: fired <= prometheus.alerts("firing", "10m"), 120), prometheus.alerts("firing", "10m")
        assert until(lambda: SCRAPED_DOWN not in prometheus.alerts("firing"), 60)
        assert set(refused.answers) == {504}
        stack.stop()
        assert until(lambda: SCRAPED_DOWN in prometheus.alerts("firing"), 30)
        assert prometheus.alerts("firing", "10m") == fired
    finally:
        prometheus.stop()
