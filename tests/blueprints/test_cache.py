"""The response cache as clients, operators and metrics see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tableside.publishing.publish import publish
from tests.conftest import CONTROL, MakeApp, cells, registry_of

Trained = dict[str, tuple[Any, pd.DataFrame]]
URL = "/v1/models/iris:predict"


@pytest.fixture
def cached(make_app: MakeApp, small_repository: Path) -> Flask:
    """iris with a cache."""
    write(small_repository, "[cache]\nmax_bytes = 1_000_000\n")
    return make_app()


def write(root: Path, text: str) -> None:
    (root / "iris" / "model.toml").write_text(text)


def counted(app: Flask, version: str = "1") -> tuple[float, float, float]:
    """(hits, misses, bytes) as the metrics say."""
    found = registry_of(app).metrics.registry
    labels = {"model": "iris", "version": version}
    hits, misses = (
        found.get_sample_value("tableside_cache_requests_total", {**labels, "result": result}) or 0.0
        for result in ("hit", "miss")
    )
    return hits, misses, found.get_sample_value("tableside_cache_bytes", labels) or 0.0


def calls(app: Flask, version: str = "1") -> float:
    """How many times the estimator was asked."""
    labels = {"model": "iris", "version": version}
    return registry_of(app).metrics.registry.get_sample_value("tableside_batch_rows_count", labels) or 0.0


def said(client: FlaskClient, rows: Any, url: str = URL) -> Any:
    response = client.post(url, json={"instances": rows})
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()["predictions"]


def test_without_a_word_nothing_is_kept(make_app: MakeApp, trained: Trained) -> None:
    """The same request twice is asked twice, and the metrics have no line of a cache."""
    app = make_app()
    rows = cells(trained["iris"][1][:2])
    assert said(app.test_client(), rows) == said(app.test_client(), rows)
    assert calls(app) == 2
    scraped = app.test_client().get("/metrics", environ_overrides=CONTROL)
    assert b"tableside_batch_rows_count{" in scraped.data
    assert b"tableside_cache_requests_total{" not in scraped.data


def test_another_spelling_of_the_cells_is_a_hit(cached: Flask, trained: Trained) -> None:
    """V1 rows, a V2 matrix and its bytes are one request to the model: it is asked once, all answers are equal."""
    client, sample = cached.test_client(), trained["iris"][1][:3]
    expected = trained["iris"][0].predict(sample).tolist()
    assert said(client, cells(sample)) == expected
    tensor = {"name": "input-0", "shape": list(sample.shape), "datatype": "FP64"}
    as_text = client.post("/v2/models/iris/infer", json={"inputs": [{**tensor, "data": sample.to_numpy().tolist()}]})
    assert as_text.get_json()["outputs"][0]["data"] == expected
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": sample.size * 8}}]}
    assert binary(client, head, sample).get_json()["outputs"][0]["data"] == expected
    hits, misses, held = counted(cached)
    assert (hits, misses, calls(cached)) == (2, 1, 1)
    assert held > 0


def binary(client: FlaskClient, head: Any, sample: pd.DataFrame) -> Any:
    text = json.dumps(head).encode()
    response = client.post(
        "/v2/models/iris/infer", data=text + sample.to_numpy().tobytes(),
        headers={"Inference-Header-Content-Length": str(len(text))},
    )  # fmt: skip
    assert response.status_code == 200
    return response


def test_a_hit_is_written_as_bytes_too(cached: Flask, trained: Trained) -> None:
    """An array that cannot be written to is sent like any other."""
    client, (estimator, sample) = cached.test_client(), trained["iris"]
    tensor = {"name": "i", "shape": list(sample.shape), "datatype": "FP64"}
    head = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": sample.size * 8}}],
        "outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}],
    }
    for _ in range(2):
        raw = binary(client, head, sample)
        body = raw.data[int(raw.headers["Inference-Header-Content-Length"]) :]
        assert body == estimator.predict_proba(sample).tobytes()
    assert counted(cached)[:2] == (1, 1)


def test_other_cells_and_outputs_are_misses(cached: Flask, trained: Trained) -> None:
    """Each distinct request is asked of the estimator, and answered with its own answer."""
    estimator, sample = trained["iris"]
    client = cached.test_client()
    for at in (0, 60, 120):
        assert said(client, cells(sample[at : at + 1])) == estimator.predict(sample[at : at + 1]).tolist()
    matrix = {"name": "i", "shape": [1, 4], "datatype": "FP64", "data": sample[:1].to_numpy().tolist()}
    for _ in range(2):
        got = client.post("/v2/models/iris/infer", json={"inputs": [matrix], "outputs": [{"name": "predict_proba"}]})
        np.testing.assert_array_equal([got.get_json()["outputs"][0]["data"]], estimator.predict_proba(sample[:1]))
    assert calls(cached) == 4


def test_a_refused_request_is_not_kept(cached: Flask) -> None:
    """What the estimator or the contract refuses is refused each time, and holds no memory."""
    for _ in range(2):
        assert cached.test_client().post(URL, json={"instances": [["a", 1, 1, 1]]}).status_code == 400
    assert counted(cached)[2] == 0


def test_another_version_never_hits(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """A version answers for itself, whether its number is new or its files have taken the place of others."""
    client, (estimator, sample) = cached.test_client(), trained["iris"]
    rows = cells(sample[:2])
    assert said(client, rows) == said(client, rows)
    publish("iris", estimator, sample, repository=small_repository)
    registry_of(cached).reload(2)
    said(client, rows)
    assert (calls(cached), calls(cached, "2")) == (1, 1)
    assert counted(cached, "2")[:2] == (0, 1)
    said(client, rows, "/v1/models/iris/versions/1:predict")
    assert counted(cached)[:2] == (2, 1)  # version 1 was kept as it was, and so are its answers
    (small_repository / "iris" / "1" / "contract.json").touch()
    registry_of(cached).reload(3)
    assert counted(cached)[2] == 0
    said(client, rows, "/v1/models/iris/versions/1:predict")
    assert counted(cached)[:2] == (2, 2)


def test_model_toml_takes_effect_on_reload(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """Turned off answers are asked for again and memory is free; a file that cannot be read changes nothing."""
    client, rows = cached.test_client(), cells(trained["iris"][1][:2])
    said(client, rows)
    write(small_repository, "[cache]\nmax_bytes = 12\n")
    registry_of(cached).reload(2)
    said(client, rows)
    assert calls(cached) == 1
    write(small_repository, "")
    registry_of(cached).reload(3)
    assert counted(cached)[2] == 0
    said(client, rows)
    assert calls(cached) == 2


def test_other_ways_to_answer_begin_an_empty_cache(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """An operator who wants the estimator's own answers gets none that a fast backend gave before."""
    client, rows = cached.test_client(), cells(trained["iris"][1][:2])
    said(client, rows)
    write(small_repository, 'runtime = "sklearn"\n[cache]\nmax_bytes = 1_000_000\n')
    registry_of(cached).reload(2)
    said(client, rows)
    assert calls(cached) == 2


def test_a_hit_is_not_asked_again(make_app: MakeApp, trained: Trained, small_repository: Path) -> None:
    """Sampled verifications are of what was computed: a hit does not count towards the next one."""
    write(small_repository, "[cache]\nmax_bytes = 1_000_000\n")
    app = make_app(predict__verify_one_in="1")
    for _ in range(4):
        said(app.test_client(), cells(trained["iris"][1][:2]))
    assert registry_of(app).catalog.servable("iris").answered == 1


def test_triton_statistics_tell_hits(cached: Flask, trained: Trained) -> None:
    """Its clients read the hits and misses where they look for them."""
    client = cached.test_client()
    for _ in range(3):
        said(client, cells(trained["iris"][1][:2]))
    found = client.get("/v2/models/iris/stats").get_json()["model_stats"][0]["inference_stats"]
    assert (found["cache_hit"]["count"], found["cache_miss"]["count"], found["compute_infer"]["count"]) == (2, 1, 1)
    assert found["cache_hit"]["ns"] > 0
