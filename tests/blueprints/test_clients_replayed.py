"""What real clients sent (tests/data/clients/, kept by `make test-clients`) is answered as it was then, byte for byte.

An answer equals the estimator's in memory to the bit; a refusal has its status and a reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.serving.registry import Registry
from tableside.telemetry import metrics
from tests.clients import outcomes
from tests.clients.outcomes import EQUAL, MISREAD, Outcome
from tests.clients.tables import KINDS, asked, publish_all
from tests.conftest import QUICK, MakeSettings, registry_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(make_settings: MakeSettings, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    root = tmp_path_factory.mktemp("models")
    publish_all(root)
    settings = make_settings(root, tmp_path_factory.mktemp("run"), **QUICK)
    app = create_app(settings, Registry(settings, metrics.make(), make_offload(1)))
    registry_of(app).reload(1)
    return app


def replayed(client: FlaskClient, sent: Outcome) -> str:
    """The outcome now."""
    response = client.post(sent.path, data=sent.content, headers=sent.headers)
    if response.status_code != 200:
        assert response.get_json()["error"]
        return str(response.status_code)
    expected = asked()[sent.model].answers(sent.kind)
    size = int(response.headers.get("Inference-Header-Content-Length", 0))
    found = outcomes.numbers_in(response.content_type, response.data, size)
    return EQUAL if [each.hex() for each in found] == [each.hex() for each in expected] else f"{found}, not {expected}"


@pytest.mark.parametrize("path", sorted(outcomes.DATA.glob("*.json")), ids=lambda path: path.stem)
def test_the_bytes_of_a_client(served: Flask, path: Path) -> None:
    """Each request has the outcome that the client itself had."""
    (seen,) = [each for each in outcomes.kept() if outcomes.file_of(each.client) == path]
    client = served.test_client()
    sent = [each for each in seen.outcomes if each.path]
    wrong = {
        (each.spelling, each.kind): (each.outcome, now)
        for each in sent
        if (now := replayed(client, each)) != (EQUAL if each.outcome == MISREAD else each.outcome)
    }
    assert wrong == {}


def test_the_page_shows_what_was_kept() -> None:
    """docs/reference/clients.md has the table of exactly these outcomes, with each kind of value and no defect."""
    text = outcomes.PAGE.read_text()
    assert outcomes.table(outcomes.kept()) in text
    assert outcomes.DEFECT not in {each.outcome for seen in outcomes.kept() for each in seen.outcomes}
    assert {each.kind for seen in outcomes.kept() for each in seen.outcomes} == set(KINDS)
