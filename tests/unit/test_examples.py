"""The examples in models/ are what examples/train.py publishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.train import EXAMPLES
from tableside.preflight.checks import check_version
from tableside.repository import integrity, model_toml, paths
from tableside.runtimes import golden
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.settings import Repository

pytestmark = pytest.mark.no_greenlets

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_training_an_example_again_gives_the_published_answers(name: str) -> None:
    """A fresh fit answers every golden row of the version in models/ as its contract says."""
    number = paths.versions(MODELS, name)[-1]
    contract = integrity.read_contract(MODELS, name, number)
    estimator, sample = EXAMPLES[name]()
    assert golden.replay(contract, SklearnRuntime(estimator).run) == len(contract.golden.rows) > 10
    assert [column.name for column in contract.input.columns] == list(sample.columns)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_published_example_loads_and_keeps_its_contract(name: str) -> None:
    """Every version in models/ passes the checks of a load, and `champion` is the newest one."""
    for number in paths.versions(MODELS, name):
        check_version(MODELS, name, number, Repository())
    assert model_toml.read(MODELS, name).aliases == {"champion": paths.versions(MODELS, name)[-1]}
