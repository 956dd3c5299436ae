"""Answers to requests that have ended workers, from an application that records what it has in hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from flask import Flask

from tableside.errors import FailureKind
from tableside.process import suspects
from tableside.process.hand_file import Entry, HandFile, State
from tableside.process.suspects import Ledger
from tests.conftest import MakeApp, error_of, registry_of

PATH = "/v1/models/iris:predict"
OTHER = {"instances": [[5.0, 3.5, 1.4, 0.2]]}


@pytest.fixture
def recorded(make_app: MakeApp, tmp_path: Path) -> Flask:
    app = make_app(load=False)
    registry_of(app).hand.attach(tmp_path / "run", 0, 600.0)
    registry_of(app).reload(1)
    app.test_client().post(PATH, json=OTHER)  # Flask dispatches the first request
    return app


class Deaths:
    """Lets other workers die while they compute a request, as if the master had told of it."""

    def __init__(self, app: Flask, run_dir: Path) -> None:
        self._client, self._file = app.test_client(), HandFile(run_dir)

    def of(self, body: bytes, states: Sequence[bool], request_id: str = "first") -> None:
        """states: for each death, whether the request ran alone."""
        digest = self._file.digest(PATH, body).hex()
        for alone in states:
            entry = Entry(State.COMPUTING, alone, 0.0, digest, request_id, "iris/1")
            self.change(lambda ledger, entry=entry: suspects.blame(ledger, [entry], time.time(), 600.0)[0])

    def change(self, change: object) -> None:
        assert callable(change)
        self._file.update_ledger(lambda text: suspects.encode(change(suspects.parse(text))))

    def ledger(self) -> Ledger:
        return suspects.parse(self._file.read_ledger()[1])

    def entries(self) -> list[Entry]:
        return self._file.entries(0)


@pytest.fixture
def deaths(recorded: Flask, tmp_path: Path) -> Deaths:
    return Deaths(recorded, tmp_path / "run")


def body(number: float = 5.1) -> bytes:
    return f'{{"instances": [[{number}, 3.5, 1.4, 0.2]]}}'.encode()


def test_an_answered_request_leaves_nothing(recorded: Flask, deaths: Deaths) -> None:
    """Good, refused and unknown requests are forgotten when they are answered."""
    client = recorded.test_client()
    for sent in (body(), b"{", b'{"instances": [["x", 1, 2, 3]]}'):
        client.post(PATH, data=sent)
    assert client.post("/v1/models/none:predict", data=body()).status_code == 404
    assert deaths.entries() == []
    assert deaths.ledger() == Ledger(generation=1)


def test_a_suspect_is_answered_and_cleared(recorded: Flask, deaths: Deaths) -> None:
    """A neighbour of the killer gets its answer; afterwards it is an ordinary request again."""
    deaths.of(body(), [False, False])
    assert len(deaths.ledger().suspects) == 1
    answer = recorded.test_client().post(PATH, data=body())
    assert (answer.status_code, answer.get_json()) == (200, {"predictions": ["setosa"]})
    assert deaths.ledger().suspects == ()


def test_a_request_that_ended_two_workers_is_refused(recorded: Flask, deaths: Deaths) -> None:
    """502 for the request itself, 500 with a code for the next like it; one changed byte is another request."""
    client = recorded.test_client()
    deaths.of(body(), [False, True])
    first = client.post(PATH, data=body(), headers={"X-Request-ID": "first"})
    assert (first.status_code, error_of(first)["instance"]) == (502, "first")
    assert "first) has ended two workers" in error_of(first)["error"]
    again = client.post(PATH, data=body(), headers={"X-Request-ID": "second"})
    assert (again.status_code, error_of(again)["code"]) == (500, "quarantined")
    assert 590 < int(again.headers["Retry-After"]) <= 600
    assert client.post(PATH, data=body(5.2)).status_code == 200
    metrics = registry_of(recorded).metrics
    assert metrics.quarantined.labels("iris", "1")._value.get() == 2


def test_three_requests_stop_the_model_until_a_reload(recorded: Flask, deaths: Deaths) -> None:
    """The model answers 503 and says so in its state; a newer generation starts it again, the same one does not."""
    client, registry = recorded.test_client(), registry_of(recorded)
    for number in (1, 2, 3):
        deaths.of(body(number), [False, True])
    refused = client.post(PATH, data=body(7))
    assert (refused.status_code, error_of(refused)["code"]) == (503, "model_quarantined")
    assert int(refused.headers["Retry-After"]) > 500
    assert registry._quarantine.update(registry.catalog)
    assert not registry._quarantine.update(registry.catalog)
    (servable,) = registry.catalog
    assert servable.failure_kind is FailureKind.QUARANTINED
    assert client.get("/v2/models/iris/ready").status_code == 503
    registry.reload(1)
    assert client.post(PATH, data=body(7)).status_code == 503
    registry.reload(2)
    assert servable.failure_kind is FailureKind.NONE, "`tableside reload` reads it when the generation is served"
    assert not registry._quarantine.update(registry.catalog)
    assert client.post(PATH, data=body(7)).status_code == 200
    assert client.get("/v2/models/iris/ready").status_code == 200
    assert client.post(PATH, data=body(1)).status_code == 500  # the request itself stays out


def test_a_large_body_has_a_digest_too(make_app: MakeApp, tmp_path: Path) -> None:
    """Above `predict.in_thread_above_bytes` the digest is made in a native thread, and is the same."""
    app = make_app(predict__in_thread_above_bytes="10")
    registry_of(app).hand.attach(tmp_path / "run", 0, 600.0)
    Deaths(app, tmp_path / "run").of(body(), [False, True])
    assert app.test_client().post(PATH, data=body()).status_code == 500
    assert app.test_client().post(PATH, data=body(5.2)).status_code == 200
