"""The table library x wrapping x spelling: an answer equals the estimator in memory to the bit, or publish refuses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flask import Flask

from tableside.contracts.schema import Contract
from tableside.errors import PublishFailed
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.publishing.publish import publish
from tableside.publishing.sample_rows import rows_as_cells
from tableside.serving.registry import Registry
from tableside.setting_texts import LIBRARIES
from tableside.telemetry import metrics
from tests.conftest import QUICK, registry_of
from tests.libraries import zoo
from tests.libraries.comparing import answers_of, bits, expected_bits, in_memory
from tests.libraries.zoo import Case
from tests.spellings import V1, spellings

pytestmark = pytest.mark.filterwarnings("ignore")

MAKERS: dict[str, Callable[[], Iterator[Case]]] = {
    "xgboost": zoo.xgboost_cases,
    "lightgbm": zoo.lightgbm_cases,
    "catboost": zoo.catboost_cases,
    "imbalanced-learn": zoo.imblearn_cases,
    "feature-engine": zoo.feature_engine_cases,
    "category-encoders": zoo.category_encoders_cases,
    "skrub": zoo.skrub_cases,
}
CASES = [case for maker in MAKERS.values() for case in zoo.cases(maker)]
FEW = 5


def trusted(case: Case) -> tuple[str, ...]:
    return (case.library,) if case.library in LIBRARIES else ()


@pytest.fixture
def serving(make_settings: Any, tmp_path: Path) -> Callable[[Case], tuple[Flask, Contract]]:
    """Publish a case and return an application that serves it, with its contract."""

    def serve(case: Case) -> tuple[Flask, Contract]:
        libraries = trusted(case)
        root = tmp_path / "models"
        contract = publish(
            "m", case.estimator, case.rows, repository=root, runtime="sklearn", trusted_libraries=libraries
        )
        settings = make_settings(root, tmp_path / "run", repository__trusted_libraries=",".join(libraries), **QUICK)
        app = create_app(settings, Registry(settings, metrics.make(), make_offload(1)))
        registry_of(app).reload(1)
        return app, contract

    return serve


def first(rows: Any, count: int) -> Any:
    return rows.iloc[:count].copy() if isinstance(rows, pd.DataFrame) else rows[:count].copy()


@pytest.mark.parametrize("case", [case for case in CASES if not case.refusal], ids=lambda case: case.name)
def test_each_answer_equals_memory_in_every_spelling(case: Case, serving: Any) -> None:
    """Each output for all rows, and the default output for some rows in each spelling, has the bits of memory."""
    app, contract = serving(case)
    client = app.test_client()
    wanted = in_memory(case, case.rows, contract)
    frame = (
        case.rows
        if isinstance(case.rows, pd.DataFrame)
        else pd.DataFrame(case.rows, columns=[c.name for c in contract.input.columns])
    )
    rows = rows_as_cells(frame, contract.input)
    for output in contract.outputs:
        reply = client.post(V1.replace("MODEL", "m"), json={"instances": rows, "signature_name": output.name})
        assert reply.status_code == 200, reply.get_data(as_text=True)
        assert bits(answers_of(reply), wanted[output.name]) == expected_bits(wanted[output.name]), output.name
    few = in_memory(case, first(case.rows, FEW), contract)[contract.default_output.name]
    for spelling, request in spellings(contract.input, rows[:FEW], random.Random(0)):
        reply = client.post(request.path.replace("MODEL", "m"), data=request.body, headers=request.headers)
        assert reply.status_code == 200, (spelling, reply.get_data(as_text=True))
        assert bits(answers_of(reply), few) == expected_bits(few), spelling


@pytest.mark.parametrize("case", [case for case in CASES if case.refusal], ids=lambda case: case.name)
def test_what_cannot_be_served_is_refused_with_a_sentence(case: Case, tmp_path: Path) -> None:
    """Publish names the step and the class, says what to do, and leaves nothing."""
    with pytest.raises(PublishFailed) as failed:
        publish("m", case.estimator, case.rows, repository=tmp_path, runtime="sklearn", trusted_libraries=trusted(case))
    assert case.refusal in str(failed.value)
    assert list(tmp_path.rglob("contract.json")) == []
