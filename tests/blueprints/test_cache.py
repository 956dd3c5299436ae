"""The response cache, as clients, operators and metrics see it."""

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
    """An application that serves iris with a cache."""
    write(small_repository, "[cache]\nmax_bytes = 1_000_000\n")
    return make_app()


def write(root: Path, text: str) -> None:
    (root / "iris" / "model.toml").write_text(text)


def counted(app: Flask, version: str = "1") -> tuple[float, float, float]:
    """Hits, misses and bytes, from the metrics."""
    found = registry_of(app).metrics.registry
    labels = {"model": "iris", "version": version}
    hits, misses = (
        found.get_sample_value("tableside_cache_requests_total", {**labels, "result": result}) or 0.0
        for result in ("hit", "miss")
    )
    return hits, misses, found.get_sample_value("tableside_cache_bytes", labels) or 0.0


def calls(app: Flask, version: str = "1") -> float:
    """How many times the estimator was called, from the metrics."""
    labels = {"model": "iris", "version": version}
    return registry_of(app).metrics.registry.get_sample_value("tableside_batch_rows_count", labels) or 0.0


def predictions(client: FlaskClient, rows: Any, url: str = URL) -> Any:
    response = client.post(url, json={"instances": rows})
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()["predictions"]


def test_a_model_has_no_cache_by_default(make_app: MakeApp, trained: Trained) -> None:
    """Without `[cache]` two equal requests are two calls, and the cache has no metrics."""
    app = make_app()
    rows = cells(trained["iris"][1][:2])
    assert predictions(app.test_client(), rows) == predictions(app.test_client(), rows)
    assert calls(app) == 2
    scraped = app.test_client().get("/metrics", environ_overrides=CONTROL)
    assert b"tableside_batch_rows_count{" in scraped.data
    assert b"tableside_cache_requests_total{" not in scraped.data


def test_the_same_cells_in_another_format_are_a_hit(cached: Flask, trained: Trained) -> None:
    """V1 rows, a V2 matrix and a binary matrix with equal cells cause one call of the estimator, and answer alike."""
    client, sample = cached.test_client(), trained["iris"][1][:3]
    expected = trained["iris"][0].predict(sample).tolist()
    assert predictions(client, cells(sample)) == expected
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


def test_a_hit_can_be_sent_as_a_binary_tensor(cached: Flask, trained: Trained) -> None:
    """A cached array is read-only; it is sent as a binary tensor like any other."""
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
    """Requests with other cells or outputs call the estimator and have their own answers."""
    estimator, sample = trained["iris"]
    client = cached.test_client()
    for at in (0, 60, 120):
        assert predictions(client, cells(sample[at : at + 1])) == estimator.predict(sample[at : at + 1]).tolist()
    matrix = {"name": "i", "shape": [1, 4], "datatype": "FP64", "data": sample[:1].to_numpy().tolist()}
    for _ in range(2):
        got = client.post("/v2/models/iris/infer", json={"inputs": [matrix], "outputs": [{"name": "predict_proba"}]})
        np.testing.assert_array_equal([got.get_json()["outputs"][0]["data"]], estimator.predict_proba(sample[:1]))
    assert calls(cached) == 4


def test_a_refused_request_is_not_cached(cached: Flask) -> None:
    """A request that does not fit the contract is refused each time and takes no memory in the cache."""
    for _ in range(2):
        assert cached.test_client().post(URL, json={"instances": [["a", 1, 1, 1]]}).status_code == 400
    assert counted(cached)[2] == 0


def test_another_version_never_hits(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """A new version, or a version whose files were replaced, never answers from the cache of another."""
    client, (estimator, sample) = cached.test_client(), trained["iris"]
    rows = cells(sample[:2])
    assert predictions(client, rows) == predictions(client, rows)
    publish("iris", estimator, sample, repository=small_repository)
    registry_of(cached).reload(2)
    predictions(client, rows)
    assert (calls(cached), calls(cached, "2")) == (1, 1)
    assert counted(cached, "2")[:2] == (0, 1)
    predictions(client, rows, "/v1/models/iris/versions/1:predict")
    assert counted(cached)[:2] == (2, 1)  # version 1 was not loaded again, so its cache is still there
    (small_repository / "iris" / "1" / "contract.json").touch()
    registry_of(cached).reload(3)
    assert counted(cached)[2] == 0
    predictions(client, rows, "/v1/models/iris/versions/1:predict")
    assert counted(cached)[:2] == (2, 2)


def test_model_toml_takes_effect_on_reload(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """Turning the cache off frees its memory; a model.toml that is not valid changes nothing."""
    client, rows = cached.test_client(), cells(trained["iris"][1][:2])
    predictions(client, rows)
    write(small_repository, "[cache]\nmax_bytes = 12\n")
    registry_of(cached).reload(2)
    predictions(client, rows)
    assert calls(cached) == 1
    write(small_repository, "")
    registry_of(cached).reload(3)
    assert counted(cached)[2] == 0
    predictions(client, rows)
    assert calls(cached) == 2


def test_another_backend_begins_an_empty_cache(cached: Flask, trained: Trained, small_repository: Path) -> None:
    """After a change to `runtime = "sklearn"`, no answer of a fast backend comes from the cache."""
    client, rows = cached.test_client(), cells(trained["iris"][1][:2])
    predictions(client, rows)
    write(small_repository, 'runtime = "sklearn"\n[cache]\nmax_bytes = 1_000_000\n')
    registry_of(cached).reload(2)
    predictions(client, rows)
    assert calls(cached) == 2


def test_a_hit_is_not_verified(make_app: MakeApp, trained: Trained, small_repository: Path) -> None:
    """Sampled verification counts computed answers only; a hit does not bring the next verification closer."""
    write(small_repository, "[cache]\nmax_bytes = 1_000_000\n")
    app = make_app(predict__verify_one_in="1")
    for _ in range(4):
        predictions(app.test_client(), cells(trained["iris"][1][:2]))
    assert registry_of(app).catalog.servable("iris").answered == 1


def test_triton_statistics_have_hits_and_misses(cached: Flask, trained: Trained) -> None:
    """Hits and misses are in the members where Triton's clients read them."""
    client = cached.test_client()
    for _ in range(3):
        predictions(client, cells(trained["iris"][1][:2]))
    found = client.get("/v2/models/iris/stats").get_json()["model_stats"][0]["inference_stats"]
    assert (found["cache_hit"]["count"], found["cache_miss"]["count"], found["compute_infer"]["count"]) == (2, 1, 1)
    assert found["cache_hit"]["ns"] > 0
