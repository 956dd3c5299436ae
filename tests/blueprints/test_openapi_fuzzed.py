"""Schemathesis with the document of the example models: the server does what the document describes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from tests.conftest import MakeApp
from tests.fuzzing import run

# Values near the largest float64 overflow inside scikit-learn. In a worker such a warning is no error either.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.fuzz,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
    pytest.mark.timeout(240),
]


def test_the_server_follows_its_document(app: Flask, record_property: Callable[[str, object], None]) -> None:
    """Every operation accepts what its schema allows, refuses what it forbids, and responds as described."""
    seen = run(app, examples=25)
    record_property("answers", str(seen))
    assert seen.findings == [], "\n\n".join(seen.findings)
    models = ("breast-cancer", "diabetes", "iris", "wine")
    assert {f"POST /v1/models/{name}:predict" for name in models} <= seen.operations
    assert {f"POST /v2/models/{name}/infer" for name in models} <= seen.operations
    assert seen.answers[200] > 1000
    assert seen.answers[400] > 1000


def test_the_server_follows_its_document_with_lenient_rules(
    repository: Path,
    small_repository: Path,
    make_app: MakeApp,
    record_property: Callable[[str, object], None],
) -> None:
    """The same is true for a model whose rules accept missing, unknown and repeated columns."""
    shutil.copytree(repository / "wine", small_repository / "wine")
    shutil.rmtree(small_repository / "iris")
    rules = '[columns]\nmissing = "fill"\nextra = "ignore"\nduplicate = "ignore"\n'
    (small_repository / "wine" / "model.toml").write_text(rules)
    seen = run(make_app(), examples=15)
    record_property("answers", str(seen))
    assert seen.findings == [], "\n\n".join(seen.findings)
    assert seen.answers[200] > 100
