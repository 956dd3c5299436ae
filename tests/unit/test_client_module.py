"""`tableside client` writes a module whose types are those of the contract and that passes mypy --strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from tableside.cli import main
from tableside.cli.client import class_name, module
from tableside.contracts.schema import Column, Contract, Input, Output
from tests.fakes import numbers, sum_contract

pytestmark = pytest.mark.no_greenlets

CLIENT = Path(__file__).resolve().parents[2] / "client"


def check(folder: Path, **sources: str) -> subprocess.CompletedProcess[str]:
    """Write modules of these names and run mypy --strict over them, with the client package on its path."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", *sources_of(folder)]
    environ = {"MYPYPATH": f"{CLIENT}:{folder}", "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240)


def sources_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.py"))


def odd() -> Contract:
    """A contract with names that are not identifiers, every datatype, and categories of each form."""
    columns = (
        Column("class", "FP64", "float64"),
        Column("1st (cm)", "FP32", "float32", nullable=True),
        Column("a\"b'c\\d\ne {x}", "INT64", "int8"),
        Column("größe", "BOOL", "bool"),
        Column("", "BYTES", "object", categories=("x'y", 'p"q', "ü"), closed=True),
        Column("open", "BYTES", "object", nullable=True, categories=("a",)),
        Column("grade", "INT64", "int64", nullable=True, categories=(1, 2), closed=True),
        Column("step", "FP64", "float64", categories=(0.5, 1.5), closed=True),
    )
    outputs = (Output("predict", "BYTES", 1, True), Output("predict_proba", "FP64", 1, False, ("it's",)))
    return msgspec.structs.replace(
        sum_contract(name="row"), kind="classifier", input=Input("frame", columns), outputs=outputs
    )


def several() -> Contract:
    """A contract of a regressor with two integers per row."""
    outputs = (Output("predict", "INT64", 2, False), Output("transform", "FP64", 3, False))
    return msgspec.structs.replace(sum_contract(numbers("one"), "2-headed"), outputs=outputs)


@pytest.mark.slow
def test_modules_pass_mypy_strict(tmp_path: Path) -> None:
    """With any column names the module and a correct caller pass mypy --strict, and a caller's mistakes are found."""
    caller = """
from typing import assert_type

from odd import Label, ModelRow, Row
from several import Model2Headed
from tableside_client import Client

client = Client("http://127.0.0.1:1")
row: Row = {"class": 1, "a\\"b'c\\\\d\\ne {x}": 3, "größe": True, "": "ü", "step": 0.5, "grade": None}
assert_type(ModelRow(client).predict([row]), list[Label])
assert_type(ModelRow(client).predict_proba([row]), list[list[float]])
assert_type(Model2Headed(client).predict([{"one": 1.5}]), list[list[int]])
"""
    wrong = """
from odd import Row

a: Row = {"class": "1", "a\\"b'c\\\\d\\ne {x}": 3, "größe": True, "": "ü", "step": 0.5}
b: Row = {"class": 1.0, "a\\"b'c\\\\d\\ne {x}": 3, "größe": True, "": "other", "step": 0.5}
c: Row = {"class": 1.0}
d: Row = {"class": 1, "a\\"b'c\\\\d\\ne {x}": 3, "größe": True, "": "ü", "step": 0.5, "grade": 3}
"""
    done = check(tmp_path, odd=module(odd()), several=module(several(), "champion"), caller=caller)
    assert done.returncode == 0, done.stdout + done.stderr
    done = check(tmp_path, wrong=wrong)
    found = {line.split(":")[1] for line in done.stdout.splitlines() if line.startswith("wrong.py")}
    assert found == {"4", "5", "6", "7"}, done.stdout


def test_the_written_types() -> None:
    """Nullable columns may be left out, closed categories and labels are Literals, and a version is kept."""
    text = module(odd())
    assert '"1st (cm)": NotRequired[float | None],' in text
    assert '"": Literal["x\'y", \'p"q\', "ü"],' in text
    assert '"open": NotRequired[str | None],' in text
    assert '"grade": NotRequired[Literal[1, 2] | None],' in text
    assert '"step": float,' in text
    assert 'Label = Literal["it\'s"]' in text
    assert "VERSION: str | None = None" in text
    assert 'VERSION: str | None = "3"' in module(odd(), "3")
    names: dict[str, Any] = {}
    exec(compile(text, "odd", "exec"), names)
    assert list(names["Row"].__annotations__) == [column.name for column in odd().input.columns]
    assert names["CLASSES"] == ("it's",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("iris", "Iris"), ("breast-cancer", "BreastCancer"), ("a_b.c", "ABC"), ("1st", "Model1st"), ("row", "ModelRow"),
     ("none", "ModelNone"), ("x", "X")],
)  # fmt: skip
def test_class_names(name: str, expected: str) -> None:
    """A model's class is its name in camel case, with `Model` in front of a name that is no class name."""
    assert class_name(name) == expected


@pytest.mark.slow
def test_the_command(repository: Path) -> None:
    """The command prints only the module; an unknown model is one line and exit code 2."""
    done = CliRunner().invoke(main, ["client", "iris@champion", "--repository", str(repository)])
    assert done.exit_code == 0
    assert 'VERSION: str | None = "champion"' in done.output
    assert 'Label = Literal["setosa", "versicolor", "virginica"]' in done.output
    done = CliRunner().invoke(main, ["client", "nope", "--repository", str(repository)])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
