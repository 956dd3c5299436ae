"""Models with code of their own are published with it, and answer as in memory; what cannot work is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tableside.cli import main
from tableside.contracts.consent_digest import package_of
from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind, PublishFailed
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.repository import integrity, paths
from tableside.runtimes import sklearn as runtime_sklearn
from tableside.settings import Repository
from tests.conftest import MakeApp, cells, registry_of
from tests.own_code_models import Trained, train, write_code

pytestmark = pytest.mark.no_greenlets

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 0.0, 5.0]})


@pytest.fixture(autouse=True)
def consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The consent file of this test, in the settings."""
    path = tmp_path / "consent.jsonl"
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(path))
    return path


@pytest.fixture
def policy(consent: Path) -> Repository:
    return Repository(consent_file=str(consent))


def run(root: Path, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--repository", str(root)])


def published(root: Path, trained: Trained, name: str, *more: object, model: str = "m") -> Contract:
    done = run(root, "publish", model, trained.file(f"{name}.joblib"), "--sample", trained.file(f"{name}.csv"), *more)
    assert done.exit_code == 0, done.output
    return integrity.read_contract(root, model, paths.versions(root, model)[-1])


def refusal(root: Path, *words: object) -> str:
    """Run a publish that is refused, and return its one line; no version may be left."""
    done = run(root, "publish", "m", *words)
    assert done.exit_code == 2, done.output
    assert paths.versions(root, "m") == []
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    return line


@pytest.mark.parametrize("name", ["ratio", "logs", "shares", "tone"])
def test_models_with_own_code_answer_as_in_memory(
    name: str, with_own_code: Trained, make_app: MakeApp, small_repository: Path, consent: Path
) -> None:
    """A transformer, a function of a step and a tokenizer answer over HTTP what they answered in memory."""
    contract = published(small_repository, with_own_code, name, *with_own_code.code)
    assert {file.file for file in contract.code} >= {"code/churnlib/ratio.py", "code/helpers.py"}
    client = make_app(repository__consent_file=str(consent)).test_client()
    answers = with_own_code.answers(name)
    rows = cells(with_own_code.rows(name))
    reply = client.post("/v1/models/m:predict", json={"signature_name": "predict_proba", "instances": rows})
    assert reply.status_code == 200, reply.text
    np.testing.assert_array_equal(np.array(reply.get_json()["predictions"]), answers["predict_proba"])
    reply = client.post("/v1/models/m:predict", json={"instances": rows})
    assert reply.get_json()["predictions"] == answers["predict"].tolist()
    assert not [module for module in sys.modules if module.partition(".")[0] in ("churnlib", "helpers")]


def test_versions_with_other_code_stand_side_by_side(
    with_own_code: Trained, tmp_path: Path, make_app: MakeApp, small_repository: Path, consent: Path
) -> None:
    """Two versions whose modules have the same names and other content answer each with their own."""
    other = train(tmp_path, scale="def factor():\n    return 7.0\n")
    for trained in (with_own_code, other):
        published(small_repository, trained, "ratio", *trained.code)
    app = make_app(repository__consent_file=str(consent))
    for _ in range(2):
        for number, trained in ((1, with_own_code), (2, other)):
            rows = cells(trained.rows("ratio"))
            path, ask = (
                f"/v1/models/m/versions/{number}:predict",
                {"signature_name": "predict_proba", "instances": rows},
            )
            reply = app.test_client().post(path, json=ask)
            expected = trained.answers("ratio")["predict_proba"]
            np.testing.assert_array_equal(np.array(reply.get_json()["predictions"]), expected)
        registry_of(app).reload(2)
    assert not np.array_equal(with_own_code.answers("ratio")["predict_proba"], other.answers("ratio")["predict_proba"])


def test_the_version_holds_what_it_needs(with_own_code: Trained, tmp_path: Path, policy: Repository) -> None:
    """The code lies in the version, read-only, in the contract and the checksums; no caches and hidden files."""
    (with_own_code.folder / "churnlib" / "__pycache__").mkdir(exist_ok=True)
    (with_own_code.folder / "churnlib" / "__pycache__" / "ratio.cpython-399.pyc").write_bytes(b"x")
    (with_own_code.folder / "churnlib" / ".hidden.py").write_text("x")
    root = tmp_path / "models"
    contract = published(root, with_own_code, "ratio", *with_own_code.code)
    folder = root / "m" / "1"
    held = {str(file.relative_to(folder)) for file in (folder / "code").rglob("*") if file.is_file()}
    assert held == {file.file for file in contract.code}
    assert not any("pyc" in name or "hidden" in name for name in held)
    assert all((folder / name).stat().st_mode & 0o777 == 0o444 for name in held)
    lines = (folder / paths.CHECKSUMS).read_text()
    assert all(f"{file.sha256}  {file.file}\n" in lines for file in contract.code)
    assert all(kind.startswith(f"{package_of(contract)}.") for kind in contract.types)
    check_version(root, "m", 1, policy)


@pytest.mark.parametrize("change", ["content", "gone", "link", "pipe"])
def test_changed_code_is_caught(with_own_code: Trained, tmp_path: Path, policy: Repository, change: str) -> None:
    """Code that is not what was published, or no ordinary file, is damage: it is neither run nor waited for."""
    root = tmp_path / "models"
    published(root, with_own_code, "ratio", *with_own_code.code)
    file = root / "m" / "1" / "code" / "helpers.py"
    text = file.read_text()
    file.unlink()
    if change == "content":
        file.write_text(text + "\nraise SystemExit('must not run')\n")
    elif change == "link":
        (tmp_path / "helpers.py").write_text(text)
        file.symlink_to(tmp_path / "helpers.py")
    elif change == "pipe":
        import os

        os.mkfifo(file)
    with pytest.raises(ContractBroken, match=r"^code/helpers\.py ") as broken:
        check_version(root, "m", 1, policy)
    assert broken.value.failure_kind is FailureKind.DAMAGED
    assert json.loads(run(root, "list", "--json").stdout)[0]["failure_kind"] == "damaged"


def test_publish_from_python(with_own_code: Trained, tmp_path: Path, policy: Repository) -> None:
    """`publish(code=...)` takes an estimator of modules that this process has imported, and leaves them as they are."""
    sys.path.insert(0, str(with_own_code.folder))
    try:
        import churnlib  # type: ignore[import-not-found] # the trainer's own module

        fitted = joblib.load(with_own_code.file("ratio.joblib"))
        code = [with_own_code.folder / "churnlib", with_own_code.folder / "helpers.py"]
        contract = publish("m", fitted, with_own_code.rows("ratio"), repository=tmp_path / "models", code=code)
        assert sys.modules["churnlib"] is churnlib
        assert type(fitted[0]) is churnlib.Ratio
    finally:
        sys.path.remove(str(with_own_code.folder))
        for name in [each for each in sys.modules if each.partition(".")[0] in ("churnlib", "helpers", "train")]:
            del sys.modules[name]
    loaded = check_version(tmp_path / "models", "m", 1, policy)
    frame = with_own_code.rows("ratio")
    np.testing.assert_array_equal(loaded.run("predict_proba", frame), with_own_code.answers("ratio")["predict_proba"])
    assert all(kind.startswith("tableside_code_") for kind in contract.types)


def test_without_code_the_error_names_the_option(with_own_code: Trained, tmp_path: Path) -> None:
    """A joblib file that needs a module which is not there says how to pass it."""
    line = refusal(tmp_path / "r", with_own_code.file("ratio.joblib"), "--sample", with_own_code.file("ratio.csv"))
    assert "the model uses the module 'churnlib'" in line
    assert "pass `--code churnlib" in line


def test_importable_code_is_pointed_at(with_own_code: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that this process can import, but that is in no library, is refused with the path to give to --code."""
    monkeypatch.syspath_prepend(with_own_code.folder)
    try:
        line = refusal(tmp_path / "r", with_own_code.file("logs.joblib"), "--sample", with_own_code.file("logs.csv"))
    finally:
        sys.modules.pop("helpers", None)
    assert "not trusted: helpers.log_amount" in line
    place = "(func of step 'functiontransformer')"
    assert f"{place} is your own code: publish with `--code {with_own_code.folder}/helpers.py`" in line


def test_classes_of_the_script_are_refused(with_own_code: Trained, tmp_path: Path) -> None:
    """A class of `__main__` is refused with how to move it."""
    line = refusal(tmp_path / "r", with_own_code.file("main.joblib"), "--sample", with_own_code.file("logs.csv"))
    assert "Local is defined in the script or notebook that trained the model (module __main__)" in line
    assert "Move it into a file of its own" in line
    assert "--code" in line


def fitted(function: Callable[..., Any]) -> Any:
    return make_pipeline(FunctionTransformer(function), LinearRegression()).fit(FRAME, [1.0, 2.0, 3.0, 5.0])


def test_functions_without_a_name_are_refused(tmp_path: Path) -> None:
    """Lambdas, functions inside functions and functions of the script are refused: step, reason and ways out."""

    def inner(table: Any) -> Any:
        return table

    def of_the_script(table: Any) -> Any:
        return table

    of_the_script.__module__, of_the_script.__qualname__ = "__main__", "of_the_script"
    for function, reason in (
        (lambda table: table, "is a lambda"),
        (inner, "is the function inner, which is defined inside a function"),
        (of_the_script, "is the function of_the_script. The function of_the_script is defined in the script"),
    ):
        with pytest.raises(PublishFailed, match=reason) as failed:
            publish("m", fitted(function), FRAME, repository=tmp_path)
        assert str(failed.value).startswith("func of step 'functiontransformer' ")
        assert "--code my_transformers.py" in str(failed.value)
    assert paths.versions(tmp_path, "m") == []


MEANS = """
from sklearn.base import BaseEstimator, TransformerMixin


class Means(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.means_ = X.mean()
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X - self.means_
"""
"""A transformer that keeps a pandas Series, which no skops file can hold."""


@pytest.fixture
def means(tmp_path: Path) -> Iterator[Any]:
    """A fitted pipeline with Means, whose module this process has imported."""
    (tmp_path / "means.py").write_text(MEANS)
    sys.path.insert(0, str(tmp_path))
    try:
        step = __import__("means").Means()
        yield make_pipeline(step, LinearRegression()).fit(FRAME, [1.0, 2.0, 3.0, 5.0])
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("means", None)


def test_what_skops_cannot_hold_is_named(means: Any, tmp_path: Path) -> None:
    """The refusal names the attribute, the step, the class and what to do."""
    with pytest.raises(PublishFailed) as failed:
        publish("m", means, FRAME, repository=tmp_path / "models", code=[tmp_path / "means.py"])
    assert str(failed.value).startswith("means_ of step 'means' (pandas.")
    assert "cannot be held in a skops file" in str(failed.value)
    assert "--as-pickle" in str(failed.value)
    assert paths.versions(tmp_path / "models", "m") == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.py", "no such file or folder"),
        (lambda folder: folder / "text.txt", "give a .py file, or the folder of a package"),
        (lambda folder: folder / "my-code.py", "is no name of a module"),
        (lambda folder: folder / "json.py", "is the name of a module of Python or of a library"),
        (lambda folder: folder / "sklearn", "is the name of a module of Python or of a library"),
        (lambda folder: folder / "empty", "the folder has no .py file in it"),
        (lambda folder: folder / "compiled", "is compiled code"),
        (lambda folder: folder / "pickled", "is a pickle"),
        (lambda folder: folder / "linked", "is a link"),
        (lambda folder: folder / "strange", "rename strange/a"),
        (lambda folder: folder / "huge", "own code can have 1000 files and 10 MB at most"),
    ],
)
def test_paths_that_are_no_code_are_refused(
    with_own_code: Trained, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    """Each path that cannot be own code has its sentence, which begins with the option and the path."""
    for name in ("text.txt", "my-code.py", "json.py"):
        (tmp_path / name).write_text("")
    inside = {
        "sklearn": "a.py", "empty": "a.txt", "compiled": "fast.so", "pickled": "state.pkl", "linked": "",
        "strange": "a(1).py", "huge": "",
    }  # fmt: skip
    for folder, name in inside.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text("") if folder != "empty" else None
        if name:
            (tmp_path / folder / name).write_text("")
    (tmp_path / "linked" / "two.py").symlink_to(tmp_path / "json.py")
    (tmp_path / "huge" / "data.txt").write_bytes(bytes(10_000_001))
    path = make(tmp_path)
    line = refusal(
        tmp_path / "r", with_own_code.file("logs.joblib"), "--sample", with_own_code.file("logs.csv"), "--code", path
    )
    assert line.startswith(f"tableside: --code {path}: ")
    assert message in line


def test_a_module_is_given_once(with_own_code: Trained, tmp_path: Path) -> None:
    """Two paths with the same module name are refused, because only one could be imported."""
    write_code(tmp_path / "other")
    line = refusal(
        tmp_path / "r", with_own_code.file("logs.joblib"), "--sample", with_own_code.file("logs.csv"),
        *with_own_code.code, "--code", tmp_path / "other" / "helpers.py",
    )  # fmt: skip
    assert "another path has the module 'helpers' already" in line


def test_code_that_needs_more_code_is_refused(
    with_own_code: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that only the publisher's process can import is found out before the version is written."""
    monkeypatch.syspath_prepend(with_own_code.folder)
    try:
        line = refusal(
            tmp_path / "r", with_own_code.file("ratio.joblib"), "--sample", with_own_code.file("ratio.csv"),
            "--code", with_own_code.folder / "churnlib",
        )  # fmt: skip
    finally:
        sys.modules.pop("helpers", None)
    assert "ratio.py imports the module 'helpers'" in line
    assert f"Add `--code {with_own_code.folder}/helpers.py`" in line


def test_code_that_looks_for_itself_by_name_is_refused(tmp_path: Path) -> None:
    """`importlib.import_module` of an original name works only where the trainer's files are: publish finds it."""
    (tmp_path / "looks.py").write_text(
        "import importlib\n\n\ndef same(table):\n    importlib.import_module('looks')\n    return table\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        looks = __import__("looks")
        with pytest.raises(PublishFailed, match="the own code cannot answer where it is alone: ModuleNotFoundError"):
            publish("m", fitted(looks.same), FRAME, repository=tmp_path / "models", code=[tmp_path / "looks.py"])
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("looks", None)


def test_a_consent_file_in_the_repository_is_refused_at_publish(with_own_code: Trained, tmp_path: Path) -> None:
    """Publish does not write a version whose consent no server would believe."""
    with pytest.raises(PublishFailed, match="is inside the repository"):
        publish(
            "m", LogisticRegression().fit(FRAME, [0, 1, 0, 1]), FRAME, repository=tmp_path,
            code=[with_own_code.file("helpers.py")], consent_path=tmp_path / "consent.jsonl",
        )  # fmt: skip


def test_own_names_are_known_to_no_other_version(with_own_code: Trained, tmp_path: Path, policy: Repository) -> None:
    """A skops file that names the code of another version, which this process has loaded, is not trusted."""
    root = tmp_path / "models"
    contract = published(root, with_own_code, "logs", *with_own_code.code)
    check_version(root, "m", 1, policy)
    with pytest.raises(ContractBroken, match="not trusted: tableside_code_") as broken:
        runtime_sklearn.load(root / "m" / "1" / contract.artifact.file, policy.trusted_types)
    assert broken.value.failure_kind is FailureKind.UNTRUSTED


def revoke(*words: str) -> None:
    assert CliRunner().invoke(main, ["consent", *words, "--revoke"]).exit_code == 0


def test_a_revoked_version_is_served_no_longer(
    with_own_code: Trained, make_app: MakeApp, small_repository: Path, consent: Path
) -> None:
    """After `--revoke` and a reload, a version that was served is unavailable, until there is consent again."""
    published(small_repository, with_own_code, "ratio", *with_own_code.code)
    app: Flask = make_app(repository__consent_file=str(consent))
    ask = {"instances": cells(with_own_code.rows("ratio")[:2])}
    assert app.test_client().post("/v1/models/m:predict", json=ask).status_code == 200
    revoke("m/1")
    registry_of(app).reload(2)
    reply = app.test_client().post("/v1/models/m:predict", json=ask)
    assert reply.status_code == 503
    assert "waits for consent" in reply.get_json()["error"]
    done = run(small_repository, "consent", "m/1", "--yes")
    assert done.exit_code == 0, done.output
    registry_of(app).reload(3)
    assert app.test_client().post("/v1/models/m:predict", json=ask).status_code == 200
