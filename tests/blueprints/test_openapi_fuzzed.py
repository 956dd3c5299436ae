"""Schemathesis over the document of the examples: neither the document nor the server is surprised."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.conftest import MakeApp
from tests.fuzzing import run

# Values near the largest double overflow inside scikit-learn, as they may in a worker, where this is no error.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.timeout(240),
]


def test_no_input_surprises_the_document_or_the_server(
    app: Flask, record_property: Callable[[str, object], None]
) -> None:
    """Every operation answers as its document says, takes what that allows and refuses what it forbids."""
    seen = run(app, examples=25)
    record_property("said", str(seen))
    assert seen.findings == [], "\n\n".join(seen.findings)
    models = ("breast-cancer", "diabetes", "iris", "wine")
    assert {f"POST /v1/models/{name}:predict" for name in models} <= seen.operations
    assert {f"POST /v2/models/{name}/infer" for name in models} <= seen.operations
    assert seen.answers[200] > 1000
    assert seen.answers[400] > 1000


def test_nor_where_columns_may_be_missing_or_too_many(
    repository: Path,
    small_repository: Path,
    make_app: MakeApp,
    record_property: Callable[[str, object], None],
) -> None:
    """The same for models whose operator takes tables with columns missing, too many or given twice."""
    shutil.copytree(repository / "wine", small_repository / "wine")
    shutil.rmtree(small_repository / "iris")
    rules = '[columns]\nmissing = "fill"\nextra = "ignore"\nduplicate = "ignore"\n'
    (small_repository / "wine" / "model.toml").write_text(rules)
    seen = run(make_app(), examples=15)
    record_property("said", str(seen))
    assert seen.findings == [], "\n\n".join(seen.findings)
    assert seen.answers[200] > 100
