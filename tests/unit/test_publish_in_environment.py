"""Models of an older scikit-learn, published and answered in an environment with it, made by `tableside env`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from flask import Flask

from tableside import settings as app_settings
from tableside.cli import main
from tableside.errors import PublishFailed
from tableside.model_process.environment_pools import Environments, private
from tableside.publishing.in_environment import publish_in_environment
from tableside.publishing.sources import Request
from tableside.repository import model_toml, model_toml_edits
from tableside.settings import Environment, Settings
from tests.model_environments import RELEASE, old_python, train

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="session", name="old_python")
def old_python_fixture() -> str:
    return old_python()


@pytest.fixture(scope="session")
def trained_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a trainer has: estimators, samples, and the answers in memory."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


@pytest.fixture
def settings(old_python: str) -> Iterator[Settings]:
    with tempfile.TemporaryDirectory(prefix="pe-") as made:
        folder = Path(made)
        (folder / "run").mkdir()
        (folder / "models").mkdir()
        yield app_settings.load(
            {
                "TABLESIDE__SERVER__RUN_DIR": str(folder / "run"),
                "TABLESIDE__REPOSITORY__PATH": str(folder / "models"),
                "TABLESIDE__ENVIRONMENTS__OLD__PYTHON": old_python,
            }
        )


def publish(settings: Settings, trained: Path, name: str, **more: Any) -> Any:
    request = Request(trained / f"{name}.csv", "target", **more)
    made = publish_in_environment(
        name, trained / f"{name}.joblib", "old", settings, request, repository=settings.repository_path
    )
    return made.contract


@pytest.fixture
def pool(old_python: str) -> Iterator[Environments]:
    made = private({"old": Environment(old_python)}, 120.0)
    yield made
    made.close()


@pytest.mark.parametrize("name", ["ovr", "mixed"])
def test_a_model_of_another_release_gives_its_own_answers(
    name: str, settings: Settings, trained_before: Path, pool: Environments, make_app: Callable[..., Flask],
) -> None:  # fmt: skip
    """Every row's probabilities over HTTP are those of the trainer to the bit, beside a model of this release."""
    contract = publish(settings, trained_before, name)
    assert contract.environment["scikit-learn"] == RELEASE
    assert contract.trained_with["scikit-learn"] == RELEASE
    assert contract.golden.origin == "trainer"
    assert model_toml.read(settings.repository_path, name).environment == "old"
    app = make_app(environments=pool, load=False)
    root = app.extensions["tableside"].registry.repository
    shutil.copytree(settings.repository_path / name, root / name)
    app.extensions["tableside"].registry.reload(1)
    frame = pd.read_csv(trained_before / f"{name}.csv").drop(columns="target")
    expected = np.load(trained_before / f"{name}.npz")["proba"]
    rows = frame.to_dict("records")
    answer = app.test_client().post(f"/v1/models/{name}:predict?output=predict_proba", json={"instances": rows})
    assert answer.status_code == 200, answer.get_json()
    found = np.array(answer.get_json()["predictions"])
    assert found.tobytes() == expected.tobytes()
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    assert app.test_client().post("/v1/models/iris:predict", json=body).get_json() == {"predictions": ["setosa"]}


def test_the_commands_of_a_model_in_an_environment(
    settings: Settings, trained_before: Path, old_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`publish`, `list`, `verify` and `diff` know of the environment; without it the file is refused."""
    root = settings.repository_path
    for key, value in {
        "SERVER__RUN_DIR": str(settings.run_dir), "REPOSITORY__PATH": str(root),
        "ENVIRONMENTS__OLD__PYTHON": old_python,
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TABLESIDE__{key}", value)
    run = CliRunner().invoke
    words = [str(trained_before / "ovr.joblib"), "--sample", str(trained_before / "ovr.csv"), "--target", "target"]
    refused = run(main, ["publish", "ovr", *words])
    assert refused.exit_code == 2
    assert f"scikit-learn {RELEASE}" in refused.output
    assert "--environment NAME" in refused.output
    done = run(main, ["publish", "ovr", *words, "--environment", "old"])
    assert done.exit_code == 0, done.output
    assert "it runs in the environment old" in done.output
    assert RELEASE not in run(main, ["list", "--json"]).output.partition('"problem"')[2].partition("\n")[0]
    verified = run(main, ["verify", "ovr"])
    assert "ok    ovr/1: 37 golden rows" in verified.output, verified.output
    others = [str(trained_before / "mixed.joblib"), "--sample", str(trained_before / "mixed.csv"), "--target", "target"]
    broken = run(main, ["publish", "ovr", *others, "--environment", "old"])
    assert broken.exit_code == 2
    assert "ovr/2 would take the requests without a version, which ovr/1 answers now" in broken.output
    compared = run(main, ["diff", "ovr/1", "ovr/1", "--json"])
    assert compared.exit_code == 0, compared.output
    assert all(each["equal_rows"] == 37 for each in json.loads(compared.stdout)["answers"]["outputs"])
    model_toml_edits.set_environment(root, "ovr", "")
    listed = run(main, ["list", "--json"]).output
    assert f"scikit-learn was {RELEASE}" in listed


def test_refusals(settings: Settings, trained_before: Path) -> None:
    """Each mistake has its sentence, and no version is left."""
    root = settings.repository_path
    cases: list[tuple[dict[str, Any], str]] = [
        ({"environment": "gone"}, "names the environment 'gone', which is not defined"),
        ({"sample": None}, "add --sample FILE"),
        ({"source": trained_before / "none.joblib"}, "no such file"),
        ({"target": "nope"}, "nope"),
    ]
    given: dict[str, Any] = {
        "source": trained_before / "ovr.joblib", "environment": "old", "sample": trained_before / "ovr.csv",
        "target": "target",
    }  # fmt: skip
    for change, said in cases:
        words = {**given, **change}
        with pytest.raises(PublishFailed, match=said):
            source, environment = words.pop("source"), words.pop("environment")
            publish_in_environment("ovr", source, environment, settings, Request(**words), repository=root)
    assert not list(root.glob("*/*/contract.json"))
