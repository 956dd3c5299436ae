"""A real Prometheus scrapes the stack: alerts fire for what happens, none fires otherwise, and every panel has data.

The alerts have the expressions of deploy/. Those that are caused here have shorter windows and no waiting time
(tests/e2e/prometheus_server.py); for the restart the rules are as they are shipped. The alerts of a whole outage have a
stack of their own, in test_outage_alerts.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

from benchmarks.free_ports import free_port
from tableside.publishing.publish import publish
from tests.certificates import Authority
from tests.e2e import moody_model
from tests.e2e.clients import Clients
from tests.e2e.conftest import PROJECT, Stack, until
from tests.e2e.moody_model import CRASHES, NOT_FINITE, RAISES, RAISES_IN_2, SLEEPS, rows
from tests.e2e.prometheus_server import Prometheus, shorter
from tests.e2e.test_restarts import workers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
CERTIFICATE = {"TablesideCertificateExpires", "TablesideCertificateExpiresSoon"}
"""The certificate of the tests is good for two days."""
GOOD = [
    ("iris", {"instances": [[5.1, 3.5, 1.4, 0.2]]}),
    ("wine", None),
    ("breast-cancer", None),
    ("moody", rows(7.0, 20)),
]
DRIFTED = rows(80.0, 20, shop="east")
"""A shop that training has not seen, and numbers above its range."""
TRACED = f"00-{'a' * 32}-{'b' * 16}-01"
"""The header `traceparent` of a request that is to be traced."""


def golden(stack: Stack, model: str) -> dict[str, Any]:
    """A body of some golden rows of a model."""
    contract = json.loads((stack.folder / "models" / model / "1" / "contract.json").read_text())
    names = [column["name"] for column in contract["input"]["columns"]]
    return {"instances": [dict(zip(names, row, strict=True)) for row in contract["golden"]["rows"][:2]]}


def cause_bad_answers(stack: Stack, bad: Clients) -> None:
    """Errors, infinity, input that has drifted, a canary whose requests fail, and traces that nobody takes.

    Their spans are dropped after 30 s, while the next things happen.
    """
    done = stack.cli("traffic", "moody", "--canary", "2", "--percent", "50")
    assert done.returncode == 0, done.stderr
    bad.keep([("moody", DRIFTED), ("moody", rows(RAISES)), ("moody", rows(NOT_FINITE))])
    bad.keep([("moody", rows(RAISES_IN_2))], clients=2)
    bad.keep(GOOD[:1], traceparent=TRACED)


def cause_bad_versions(stack: Stack, bad: Clients) -> None:
    """A version whose folder was copied by hand, so that its contract has another number; model processes that stop."""
    version = stack.folder / "models" / "diabetes" / "2"
    shutil.copytree(version.parent / "1", version)
    stack.cli("reload")
    stack.ctl("stop", "model_own:*")


def cause_overload(stack: Stack, bad: Clients) -> None:
    """More slow requests than one client may have open, with too little time to wait; clients that give up."""
    bad.keep([("moody", rows(SLEEPS))], clients=14, X_Request_Timeout_Ms="3000")
    bad.keep([("moody", rows(SLEEPS + 1))], clients=6, timeout_s=0.3)


def cause_deaths(stack: Stack, bad: Clients) -> None:
    """Workers that are killed, and requests that end their workers until their model is stopped."""
    stack.ctl("start", "model_own:*")  # a new worker is ready when it has loaded every model
    for pid in workers(stack):
        os.kill(pid, signal.SIGKILL)
    for number in range(3):
        assert until(lambda: len(workers(stack)) == 2, 60), stack.logs()
        assert bad.send("moody", rows(CRASHES + number)) in (502, 503)
    assert until(lambda: len(workers(stack)) == 2, 60), stack.logs()
    bad.keep([("moody", rows(CRASHES))])  # refused, without a worker


CAUSED: dict[Callable[[Stack, Clients], None], set[str]] = {
    cause_bad_answers: CERTIFICATE | {
        "TablesideCanaryRolledBack", "TablesideErrorBudgetBurnsFast", "TablesideInputDrifts",
        "TablesidePredictionsNotFinite", "TablesideReleaseFails",
    },
    cause_bad_versions: {"TablesideLoadsRefused", "TablesideModelProcessesDown", "TablesideVersionNotServed"},
    cause_overload: {
        "TablesideClientsGiveUp", "TablesideLatencyBudgetBurnsFast", "TablesideModelOverloaded",
        "TablesideRequestsRefused", "TablesideSpansDropped",
    },
    cause_deaths: {
        "TablesideRequestsQuarantined", "TablesideWorkerDied", "TablesideWorkersKeepDying",
    },
}  # fmt: skip
"""What is done, in this order, and the alerts that fire for it."""
ALL: set[str] = set().union(*CAUSED.values())
MAYBE = {"TablesideModelQuarantined", "TablesideNoWorkerAnswered"}
"""The first may be over before it is scraped, because the next generation starts the model again. The second fires only
when killed workers are slow to be replaced, as on a busy machine."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stack(
    make_stack: Callable[..., Stack], authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack with TLS and keys, a model process, a cache, a shadow, and a model that does what it is told."""
    from ssl import create_default_context

    pair = authority.pair("monitored")
    made = make_stack(
        start=False,
        TABLESIDE__SERVER__TLS_CERTIFICATE=str(pair.certificate), TABLESIDE__SERVER__TLS_KEY=str(pair.key),
        TABLESIDE__SERVER__REQUIRE_KEYS="true", TABLESIDE__SERVER__REQUEST_TIMEOUT_S="4",
        TABLESIDE__SERVER__MAX_CONNECTIONS_PER_CLIENT="16", TABLESIDE__SERVER__QUARANTINE_S="120",
        TABLESIDE__PREDICT__VERIFY_ONE_IN="1", TABLESIDE__ENVIRONMENTS__OWN__PYTHON=sys.executable,
        TABLESIDE__TRACING__ENDPOINT=f"http://127.0.0.1:{free_port()}", TABLESIDE__TRACING__SAMPLE_RATIO="0",
    )  # fmt: skip
    made.environ["TABLESIDE__SERVER__KEYS_FILE"] = str(made.folder / "keys.json")
    made.environ["TABLESIDE_CONFIG"] = str(made.folder / "tableside.toml")
    (made.folder / "tableside.toml").touch()
    models = made.folder / "models"
    (models / "wine" / "model.toml").write_text('environment = "own"\n')
    (models / "breast-cancer" / "model.toml").write_text("[cache]\nmax_bytes = 1_000_000\n")
    trial = "[aliases]\ndefault = 1\n[shadow]\nversion = 2\npercent = 100\ncpu_share = 1.0\n"
    (models / "iris" / "model.toml").write_text(trial.partition("[shadow]")[0])
    sample = load_iris(as_frame=True).data
    publish("iris", DummyClassifier().fit(sample, ["virginica"] * len(sample)), sample, repository=models, quick=True)
    (models / "iris" / "model.toml").write_text(trial)
    moody_model.publish(made, tmp_path_factory.mktemp("moody"))
    made.tls = create_default_context(cafile=str(authority.root))
    made.start()
    made.wait_loaded()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@pytest.fixture(scope="module")
def prometheus(stack: Stack, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    done = stack.cli("keys", "add", "prometheus", "--scope", "metrics")
    assert done.returncode == 0, done.stderr
    folder = tmp_path_factory.mktemp("prometheus") / "server"
    made = Prometheus(folder, f"127.0.0.1:{stack.admin}", done.stdout.strip(), authority.root)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def clients(stack: Stack) -> Iterator[Clients]:
    """Clients whose requests are all good, beside everything that follows."""
    made = Clients(stack)
    made.keep([(model, body or golden(stack, model)) for model, body in GOOD])
    yield made
    made.stop()


def test_a_restart_fires_no_alert(stack: Stack, prometheus: Prometheus, clients: Clients) -> None:
    """With the shipped rules nothing fires while all workers are replaced, and nothing is about to fire afterwards."""
    before = set(workers(stack))
    stack.ctl("restart", "web:*")
    assert until(lambda: len(now := set(workers(stack))) == 2 and not now & before, 90), stack.logs()
    # The iris model has a shadow that is bad on purpose: its alert may be about to fire.
    ours = CERTIFICATE | {"TablesideReleaseFails"}
    assert until(lambda: prometheus.alerts("pending") <= ours, 30), prometheus.alerts("pending")
    assert prometheus.alerts("firing", "5m") <= {"TablesideReleaseFails"}
    assert set(clients.answers) == {200}


@pytest.fixture(scope="module")
def answers(stack: Stack, prometheus: Prometheus, clients: Clients) -> list[Counter[int]]:
    """All that is caused, in order, each until its alerts have fired. The answers of the clients that caused it."""
    prometheus.use_rules(lambda text: shorter(text, ALL))
    prometheus.reload()
    # Drift is a change: the rules compare with the rows of more than 15 s ago.
    earlier = 'rate(tableside_rows_total{model="moody"}[10s] offset 20s) > 0'
    assert until(lambda: prometheus.query(earlier), 60)
    caused: set[str] = set()
    found = []
    for cause, alerts in CAUSED.items():
        bad = Clients(stack)
        cause(stack, bad)
        caused |= alerts
        assert until(lambda: caused <= prometheus.alerts("firing", "10m"), 120), (  # noqa: B023 - asked at once
            caused - prometheus.alerts("firing", "10m"), bad.answers, stack.logs(),
        )  # fmt: skip
        bad.stop()
        found.append(bad.answers)
    return found


def test_alerts_fire_for_what_happens(
    prometheus: Prometheus, answers: list[Counter[int]], record_property: Callable[[str, object], None]
) -> None:
    """Each alert that can be caused fires, with the labels that say where; no other one does."""
    assert prometheus.alerts("firing", "10m") - MAYBE == ALL
    record_property("said", f"{len(ALL)} alerts fired: {', '.join(sorted(ALL))}; answers: {answers}")
    assert {"model": "moody", "column": "shop", "kind": "unknown_category"}.items() <= merged(
        each for each in prometheus.labels("TablesideInputDrifts") if each["column"] == "shop"
    ).items()
    assert {each["reason"] for each in prometheus.labels("TablesideVersionNotServed")} == {"contract"}
    assert {"killed", "crashed"} <= {each["cause"] for each in prometheus.labels("TablesideWorkerDied")}
    assert merged(prometheus.labels("TablesideCanaryRolledBack"))["version"] == "2"


def merged(found: Any) -> dict[str, str]:
    return {name: value for each in found for name, value in each.items()}


def panels() -> list[tuple[str, str]]:
    """The title and the query of each target of the dashboard, with the variables replaced."""
    dashboard = json.loads((PROJECT / "deploy/grafana/dashboard.json").read_text())
    values = {"$__rate_interval": "15s", "$instance": ".*", "$model": ".*"}
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"]
            for name, value in values.items():
                expr = expr.replace(name, value)
            assert "$" not in expr, expr
            found.append((panel["title"], expr))
    return found


@pytest.mark.usefixtures("answers")
def test_every_panel_has_data(prometheus: Prometheus) -> None:
    """Each query of the dashboard has found numbers in what has happened so far."""
    span = {"start": str(time.time() - 300), "end": str(time.time()), "step": "2"}

    def has_numbers(expr: str) -> bool:
        return any(value != "NaN" for each in prometheus.query(expr, **span) for _, value in each["values"])

    assert [(title, expr) for title, expr in panels() if not has_numbers(expr)] == []
