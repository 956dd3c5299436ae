"""Real clients in environments of their own ask the running stack; each answer equals the estimator's in memory.

`make test-clients` runs this. It keeps what each client sent in tests/data/clients/, which `make test` replays, and
writes the table of docs/reference/clients.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import outcomes, recorder
from tests.clients.outcomes import DEFECT, EQUAL, MISREAD, NOT_SENT, Outcome, Seen
from tests.clients.programs import CLIENTS, Client, Said
from tests.clients.recorder import Recorder
from tests.clients.tables import as_json, asked, publish_all
from tests.e2e.conftest import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish_all(root)
    return root


@pytest.fixture(scope="session")
def served(make_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = make_stack()
    stack.wait_loaded()
    yield stack


def outcome(said: Said, sent: Recorder) -> Outcome:
    """Compare what the client read with the estimator in memory; otherwise find out who refused, and why."""
    expected, exchange = asked()[said.model].answers(said.kind), sent.last(said.spelling, said.kind)
    kept: dict[str, Any] = {"model": said.model}
    if exchange is not None:
        body = base64.b64encode(exchange.body).decode()
        kept |= {"path": exchange.path, "headers": exchange.headers, "body": body}
    if said.answer is not None:
        if bits(said.answer) == bits(expected):
            return Outcome(said.spelling, said.kind, EQUAL, **kept)
        if exchange is not None and bits(_answered(exchange)) == bits(expected):
            reason = f"the answer was right; the client read {len(said.answer)} of {len(expected)} rows from it"
            return Outcome(said.spelling, said.kind, MISREAD, reason, **kept)
        return Outcome(said.spelling, said.kind, DEFECT, f"{said.answer} is not {expected}", **kept)
    if exchange is None and not said.problem[:3].isdecimal():
        return Outcome(said.spelling, said.kind, NOT_SENT, said.problem, model=said.model)
    status, error = _refusal(said, exchange)
    is_refusal = 400 <= status < 500 and error
    return Outcome(said.spelling, said.kind, str(status) if is_refusal else DEFECT, error or said.problem, **kept)


def bits(numbers: list[float]) -> list[str]:
    """A form of numbers that differs if a bit does."""
    return [float(each).hex() for each in numbers]


def _answered(exchange: recorder.Exchange) -> list[float]:
    return outcomes.numbers_in(exchange.kind_of_answer, exchange.answer, exchange.json_length)


def _refusal(said: Said, exchange: recorder.Exchange | None) -> tuple[int, str]:
    """The status, and the server's error; "" if it has none, or the client could not read a good answer."""
    if exchange is None:
        return int(said.problem[:3]), said.problem[5:]
    try:
        return exchange.status, json.loads(exchange.answer).get("error", "")
    except (ValueError, AttributeError):
        return exchange.status, ""


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client(client: Client, served: Stack) -> None:
    """Each answer is equal to the bit, or a refusal with a reason; nothing else."""
    tables = {name: {kind: as_json(table) for kind, table in model.tables.items()} for name, model in asked().items()}
    direct = f"http://127.0.0.1:{served.data}"
    with recorder.recording(served.data) as sent:
        version, said = client.run(f"http://127.0.0.1:{sent.port}", direct, tables)
    found = [outcome(each, sent) for each in said]
    outcomes.write(Seen(client.name, version, found))
    outcomes.write_page(outcomes.kept())
    assert found
    assert [each for each in found if each.outcome == DEFECT] == []
