"""`tableside_input_anomalies_total`: cells that are accepted although the model was not trained on such."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tableside.repository.model_toml import ColumnConfig
from tableside.web.input_anomalies import MOST_COLUMNS
from tests.conftest import QUICK, MakeApp, serve
from tests.fakes import RecordingRuntime

CITY = Column("city", "BYTES", "object", nullable=True, categories=("Rome", "Oslo"))
AGE = Column("age", "FP64", "float64", minimum=18.0, maximum=80.0)


def counted(client: FlaskClient) -> dict[tuple[str, str], float]:
    """The metric's values by column and kind."""
    text = client.get("/metrics", environ_overrides={"tableside.plane": "control"}).get_data(as_text=True)
    found = re.findall(r'tableside_input_anomalies_total\{column="([^"]*)",kind="([^"]*)",[^}]*\} ([0-9.]+)', text)
    return {(column, kind): float(value) for column, kind, value in found}


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True, **QUICK)
    wide = tuple(Column(f"c{at}", "FP64", "float64", minimum=0.0, maximum=1.0) for at in range(MOST_COLUMNS + 2))
    models = {
        "people": (Input("frame", (CITY, AGE)), RecordingRuntime()),
        "wide": (Input("frame", wide), RecordingRuntime()),
    }
    serve(app, models, ColumnConfig(missing_words={"other": ["-"]}))
    return app.test_client()


def test_they_are_counted_by_column_and_kind(client: FlaskClient) -> None:
    """Each format counts; what the model knows is not counted, and a refused request is not."""
    csv = b"city,age\nRome,20\nnan,30\nParis,99\n"
    assert client.post("/models/people/invocations", data=csv, content_type="text/csv").status_code == 200
    assert counted(client) == {
        ("city", "missing_word"): 1,
        ("city", "unknown_category"): 1,
        ("age", "outside_range"): 1,
    }
    rows = {"instances": [["Rome", 20], [None, 80], ["Oslo", 17.9], ["nan", 18]]}
    assert client.post("/v1/models/people:predict", json=rows).status_code == 200
    expected = {("city", "missing_word"): 1, ("city", "unknown_category"): 2, ("age", "outside_range"): 2}
    assert counted(client) == expected
    assert client.post("/v1/models/people:predict", json={"instances": [["Bern", "old"]]}).status_code == 400
    assert counted(client) == expected


def test_the_labels_are_bounded(client: FlaskClient) -> None:
    """The first columns have a label of their own, all others share one."""
    assert client.post("/v1/models/wide:predict", json={"instances": [[2.0] * (MOST_COLUMNS + 2)]}).status_code == 200
    found = counted(client)
    assert len(found) == MOST_COLUMNS + 1
    assert found["c0", "outside_range"] == 1
    assert found["(other columns)", "outside_range"] == 2
