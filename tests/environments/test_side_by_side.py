"""Models of several releases of scikit-learn in one stack, each in its own environment, each with its own answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contracts.environment import environment
from tests import training_environments
from tests.e2e.conftest import Stack, make_stack, published, until
from tests.training_environments import TrainingEnvironment

__all__ = ["make_stack", "published"]

pytestmark = [pytest.mark.processes, pytest.mark.timeout(1800)]

TRAIN = Path(__file__).parent / "train.py"


def name_of(trainer: TrainingEnvironment) -> str:
    """The name of the release's environment and of its model: `sk12` for 1.2.2."""
    return "sk" + "".join(trainer.release.split(".")[:2])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[TrainingEnvironment, Path]:
    """What train.py wrote in each environment: one of each release, with the oldest Python that has it."""
    folders = {}
    for trainer in training_environments.one_of_each_release():
        folders[trainer] = tmp_path_factory.mktemp(name_of(trainer))
        done = trainer.run(TRAIN, folders[trainer])
        assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture(scope="module")
def stack(make_stack: Callable[..., Stack], trained: dict[TrainingEnvironment, Path]) -> Iterator[Stack]:
    """A stack with an environment for each release, in which a model of it is published."""
    more = {}
    for trainer in trained:
        section = f"TABLESIDE__ENVIRONMENTS__{name_of(trainer).upper()}"
        more |= {f"{section}__PYTHON": str(trainer.python()), f"{section}__PROCESSES": "1"}
    made = make_stack(start=False, **more)
    for trainer, folder in trained.items():
        words = ["publish", name_of(trainer), str(folder / "one_vs_rest.joblib"), "--sample", str(folder / "wine.csv")]
        words += ["--target", "target", "--environment", name_of(trainer)]
        done = made.cli(*words)
        assert done.returncode == 0, done.stderr
    made.start()
    made.wait_loaded()
    yield made
    made.stop()


def served(stack: Stack, name: str, folder: Path, method: str = "predict_proba") -> Any:
    """The answers to all rows, as soon as the worker that takes the request has loaded the version."""
    rows = pd.read_csv(folder / "wine.csv").drop(columns="target").to_dict("records")
    found: list[Any] = []

    def is_answered() -> bool:
        found[:] = stack.call(f"/v1/models/{name}:predict?output={method}", {"instances": rows})[:2]
        return found[0] != 503

    until(is_answered, 300)
    assert found[0] == 200, found
    return np.array(found[1]["predictions"])


def test_each_release_gives_its_own_answers(stack: Stack, trained: dict[TrainingEnvironment, Path]) -> None:
    """Every row's label and probabilities are those that the trainer saw, to the bit, beside the server's release."""
    listed = {each["name"]: each for each in json.loads(stack.cli("env", "list", "--json").stdout)}
    lines = [f"server: scikit-learn {environment()['scikit-learn']}"]
    for trainer, folder in trained.items():
        name, answers = name_of(trainer), json.loads((folder / "answers.json").read_text())
        found = served(stack, name, folder)
        assert found.tobytes() == np.array(answers["predict_proba"]).tobytes(), trainer.name
        assert served(stack, name, folder, "predict").tolist() == answers["predict"]
        versions = listed[name]["versions"]
        assert (versions["scikit-learn"], versions["python"].rpartition(".")[0]) == (
            trainer.release,
            trainer.python_version,
        )
        lines.append(f"{name}: Python {versions['python']}, numpy {versions['numpy']}, row 51: {found[50].tolist()}")
    body = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    assert stack.call("/v1/models/iris:predict", body)[:2] == (200, {"predictions": ["setosa"]})
    print("\n".join(lines))  # noqa: T201 - pytest -s shows the table of docs/decisions/0010


def test_they_still_do_after_a_restart(stack: Stack, trained: dict[TrainingEnvironment, Path]) -> None:
    """Restarted workers and model processes load every release again, and `verify` replays the golden rows there."""
    stack.ctl("restart", "web:*", *(f"model_{name_of(trainer)}:*" for trainer in trained))
    stack.wait_ready()
    stack.wait_loaded()
    for trainer, folder in trained.items():
        answers = json.loads((folder / "answers.json").read_text())
        assert served(stack, name_of(trainer), folder).tolist() == answers["predict_proba"], trainer.name
        verified = stack.cli("verify", name_of(trainer))
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_an_error_in_another_release_has_its_place(stack: Stack, trained: dict[TrainingEnvironment, Path]) -> None:
    """What an estimator of an older release raises is an answer with the class of the exception and the step."""
    for trainer in trained:
        rows = [[1e300] * 13]
        status, content, _ = stack.call(f"/v1/models/{name_of(trainer)}:predict", {"instances": rows})
        assert status in (200, 400), content
        if status == 400:
            assert "raised ValueError on these values" in content["error"]
