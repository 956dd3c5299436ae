"""Mistakes at `tableside publish`, each with the sentence that says what to do: one line, and nothing is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.cluster import DBSCAN
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tableside.cli import main
from tableside.publishing.publish import publish

FRAME = pd.DataFrame({"a": np.linspace(0, 1, 40), "b": np.linspace(5, 2, 40)})
LABELS = (FRAME["a"] > 0.5).astype(int)
FITTED = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LABELS)
MODULE = "module_that_was_removed"


class Folder:
    """A folder with a model that can be published, and the arguments that would do so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        joblib.dump(FITTED, path / "model.joblib")
        FRAME.assign(label=LABELS).to_csv(path / "rows.csv", index=False)
        self.estimator: object = path / "model.joblib"
        self.options: dict[str, object] = {
            "--sample": path / "rows.csv", "--target": "label", "--repository": path / "models",
        }  # fmt: skip

    def dump(self, content: object) -> None:
        joblib.dump(content, self.path / "model.joblib")

    def publish(self) -> Result:
        words = [part for option, value in self.options.items() if value is not None for part in (option, value)]
        return CliRunner().invoke(main, ["publish", "m", str(self.estimator), *map(str, words)])


def python_file(folder: Folder) -> None:
    folder.estimator = folder.path / "train.py"
    (folder.path / "train.py").write_text("print('hello')\n")


def notebook(folder: Folder) -> None:
    folder.estimator = folder.path / "train.ipynb"
    (folder.path / "train.ipynb").write_text("{}")


def table_as_estimator(folder: Folder) -> None:
    folder.estimator = folder.path / "rows.csv"


def truncated(folder: Folder) -> None:
    content = (folder.path / "model.joblib").read_bytes()
    (folder.path / "model.joblib").write_bytes(content[: len(content) // 2])


def empty_file(folder: Folder) -> None:
    (folder.path / "model.joblib").write_bytes(b"")


def lfs_pointer(folder: Folder) -> None:
    (folder.path / "model.joblib").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def text_file(folder: Folder) -> None:
    (folder.path / "model.joblib").write_text("<!DOCTYPE html>")


def a_dict(folder: Folder) -> None:
    folder.dump({"columns": ["a", "b"], "clf": FITTED})


def numbers(folder: Folder) -> None:
    folder.dump([1, 2, 3])


def a_class(folder: Folder) -> None:
    folder.dump(LogisticRegression)


def unfitted(folder: Folder) -> None:
    folder.dump(LogisticRegression())


def clusters(folder: Folder) -> None:
    folder.dump(DBSCAN().fit(FRAME))


def missing_module(folder: Folder) -> None:
    source = "class Model:\n    pass\nmodel = Model()\n"
    (folder.path / f"{MODULE}.py").write_text(source)
    code = f"import sys; sys.path.insert(0, {str(folder.path)!r}); import joblib, {MODULE} as m; "
    code += f"joblib.dump(m.model, {str(folder.path / 'model.joblib')!r})"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)
    (folder.path / f"{MODULE}.py").unlink()


def missing_estimator(folder: Folder) -> None:
    folder.estimator = folder.path / "none.joblib"


def missing_sample(folder: Folder) -> None:
    folder.options["--sample"] = folder.path / "none.csv"


def no_sample(folder: Folder) -> None:
    folder.options["--sample"] = folder.options["--target"] = None


def no_rows(folder: Folder) -> None:
    (folder.path / "rows.csv").write_text("a,b,label\n")


def empty_sample(folder: Folder) -> None:
    (folder.path / "rows.csv").write_text("")


def excel_sample(folder: Folder) -> None:
    folder.options["--sample"] = folder.path / "rows.xlsx"


def target_in_the_sample(folder: Folder) -> None:
    folder.options["--target"] = None


def wrong_target(folder: Folder) -> None:
    folder.options["--target"] = "price"


def other_columns(folder: Folder) -> None:
    FRAME.rename(columns={"b": "c"}).assign(label=LABELS).to_csv(folder.path / "rows.csv", index=False)


def missing_cells(folder: Folder) -> None:
    FRAME.assign(label=LABELS, b=FRAME["b"].where(FRAME["b"] > 3)).to_csv(folder.path / "rows.csv", index=False)


def no_mlmodel(folder: Folder) -> None:
    (folder.path / "dir").mkdir()
    folder.estimator = folder.path / "dir"


def repository_is_a_file(folder: Folder) -> None:
    folder.options["--repository"] = folder.path / "rows.csv"


def repository_is_missing(folder: Folder) -> None:
    folder.options["--repository"] = folder.path / "nowhere" / "models"


def read_only_repository(folder: Folder) -> None:
    """/proc takes no new folders from anyone, root included, as a read-only file system."""
    if os.geteuid() == 0:
        folder.options["--repository"] = "/proc/models"
    else:
        (folder.path / "models").mkdir(mode=0o555)


def model_is_a_file(folder: Folder) -> None:
    (folder.path / "models").mkdir()
    (folder.path / "models" / "m").write_text("")


MISTAKES: list[tuple[Callable[[Folder], None], str]] = [
    (
        python_file,
        "train.py is a Python source file, not a saved estimator. Save the fitted estimator with joblib.dump(",
    ),
    (notebook, "train.ipynb is a notebook, not a saved estimator. Save the fitted estimator with joblib.dump("),
    (table_as_estimator, "rows.csv holds rows, not an estimator. Name the estimator's file first, and this one with"),
    (truncated, "model.joblib is incomplete: it ends after "),
    (empty_file, "model.joblib is empty. Save the fitted estimator with joblib.dump("),
    (lfs_pointer, "model.joblib is a pointer of Git LFS, not the file itself. Get it with `git lfs pull`"),
    (text_file, "model.joblib cannot be read as a joblib or pickle file: "),
    (
        a_dict,
        "holds a dict, not an estimator. Its entry 'clf' is one (Pipeline): save only that, joblib.dump(content[",
    ),
    (numbers, "holds an object of type list, not an estimator with predict or transform. Save the fitted estimator"),
    (
        a_class,
        "holds the class LogisticRegression, not a fitted estimator. Save the fitted estimator with joblib.dump(",
    ),
    (unfitted, "the LogisticRegression is not fitted. Call fit before saving it"),
    (clusters, "holds a DBSCAN, which has no predict: it labels only the rows that it was fitted on"),
    (missing_module, f"uses the module '{MODULE}', which this environment cannot import"),
    (missing_estimator, "none.joblib: no such file"),
    (missing_sample, "none.csv: no such file"),
    (no_sample, "a joblib file needs a sample; add --sample FILE with rows like the training data"),
    (no_rows, "the sample has no rows. Give some rows like the training data"),
    (empty_sample, "rows.csv: "),
    (excel_sample, "rows.xlsx: a sample must be a .csv or .parquet file"),
    (
        target_in_the_sample,
        "columns that the estimator does not take: label. If that is the target, add --target label",
    ),
    (wrong_target, "the sample has no target column 'price'. Its columns are: a, b, label"),
    (other_columns, "the sample lacks columns that the estimator was fitted on: b"),
    (
        missing_cells,
        "cannot predict its own sample: ValueError in step 'logisticregression', column 'b': it takes no missing value",
    ),
    (no_mlmodel, "dir has no MLmodel file. Give a joblib file or an MLflow model directory"),
    (repository_is_a_file, "rows.csv is a file, not a folder. Pass the model repository with --repository"),
    (repository_is_missing, "does not exist, and neither does "),
    (read_only_repository, "cannot be written"),
    (model_is_a_file, "models/m is a file, not a folder"),
]


@pytest.mark.parametrize(("make", "sentence"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Folder], None], sentence: str
) -> None:
    """Each mistake is one line on stderr with exit code 2, names what to do, and leaves nothing in the repository."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    folder = Folder(tmp_path)
    make(folder)
    before = sorted(tmp_path.rglob("*"))
    done = folder.publish()
    assert done.exit_code == 2, done.output
    errors = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("tableside: ")
    assert sentence in errors[0]
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_publish_that_works(tmp_path: Path) -> None:
    """The arguments that the mistakes start from publish a version, and make the repository."""
    done = Folder(tmp_path).publish()
    assert done.exit_code == 0, done.output
    assert (tmp_path / "models" / "m" / "1" / "contract.json").is_file()


def test_a_refused_version_of_a_published_model_leaves_the_others(tmp_path: Path) -> None:
    """A refused publish removes only folders that it has made itself."""
    folder = Folder(tmp_path)
    assert folder.publish().exit_code == 0
    before = sorted((tmp_path / "models").rglob("*"))
    folder.options["--version"] = 1
    assert "m/1 is already published" in folder.publish().stderr
    assert sorted((tmp_path / "models").rglob("*")) == before


class Talkative(LogisticRegression):  # type: ignore[misc, unused-ignore]
    """Warns at every prediction."""

    def predict(self, X: Any) -> Any:
        """Predict with a warning."""
        import warnings

        warnings.warn("the columns have no units", UserWarning, stacklevel=2)
        return super().predict(X)


def test_equal_warnings_are_one_line(tmp_path: Path) -> None:
    """An estimator that warns at each call is reported once, with the number of warnings."""
    fitted = Talkative().fit(FRAME, LABELS)
    types = (f"{Talkative.__module__}.Talkative",)
    with pytest.warns(UserWarning) as caught:
        publish("m", fitted, FRAME, repository=tmp_path, trusted_types=types)
    (text,) = [str(each.message) for each in caught]
    assert text.startswith("the columns have no units (")
    assert int(text.split("(")[1].split(" ")[0]) > 10


def test_the_command_prints_equal_warnings_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints a warning of the estimator as one note, and nothing else of it."""
    monkeypatch.setenv("TABLESIDE__REPOSITORY__TRUSTED_TYPES", f"{Talkative.__module__}.Talkative")
    folder = Folder(tmp_path)
    folder.dump(Talkative().fit(FRAME, LABELS))
    done = folder.publish()
    assert done.exit_code == 0, done.output
    assert done.output.count("the columns have no units") == 1
    assert "note: UserWarning: the columns have no units (" in done.stdout
