"""A table of thousands of columns is published at a bounded cost, with a contract that is mostly its column names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from tableside.cli import main
from tableside.contracts import schema, wide
from tableside.contracts.schema import Column, Contract, Golden, Input
from tableside.publishing import onnx_export
from tableside.publishing.publish import publish
from tableside.repository import integrity
from tableside.runtimes.fast.numerics import Unsupported
from tests.fakes import sum_contract

WIDTH = 3000


def matrix() -> Any:
    return sparse.random(300, WIDTH, density=0.01, format="csr", random_state=0)


def fitted(rows: Any) -> Any:
    return LogisticRegression().fit(rows, np.arange(rows.shape[0]) % 2)


@pytest.mark.slow
def test_a_sparse_matrix_is_published(tmp_path: Path) -> None:
    """The contract is read back as it was, and is at most five times as long as its names, with few golden rows."""
    rows = matrix()
    contract = publish("m", fitted(rows), rows, repository=tmp_path, quick=True)
    path = tmp_path / "m" / "1" / "contract.json"
    names = sum(len(json.dumps(column.name)) for column in contract.input.columns)
    assert path.stat().st_size <= 5 * names
    assert integrity.read_contract(tmp_path, "m", 1) == contract
    assert 4 <= len(contract.golden.rows) < 64
    assert len(contract.golden.rows) * WIDTH <= 1 << 17
    assert contract.input.columns[0].maximum is None


@pytest.mark.slow
def test_the_command_takes_a_sparse_file_and_advises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--sample` takes what scipy.sparse.save_npz writes, and a note says where the vectorizer belongs."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    rows = matrix()
    joblib.dump(fitted(rows), tmp_path / "m.joblib")
    sparse.save_npz(tmp_path / "rows.npz", rows)
    words = ["publish", "m", tmp_path / "m.joblib", "--sample", tmp_path / "rows.npz", "--quick"]
    done = CliRunner().invoke(main, [str(word) for word in (*words, "--repository", tmp_path / "models")])
    assert done.exit_code == 0, done.output
    assert f"note: clients have to send all {WIDTH} columns. If a vectorizer" in done.stdout
    shown = CliRunner().invoke(main, ["show", "m", "--json", "--repository", str(tmp_path / "models")])
    assert len(json.loads(shown.stdout)["input"]["columns"]) == WIDTH


def wide_contract(rows: tuple[tuple[Any, ...], ...]) -> Contract:
    kinds = [("FP64", "float64"), ("BOOL", "bool"), ("INT64", "int64")]
    columns = tuple(Column(f"c{at}", *kinds[at // 400], nullable=at % 400 == 7) for at in range(1200))  # type: ignore[arg-type]
    golden = Golden(rows, {name: ((1.0,),) * len(rows) for name in sum_contract().golden.answers})
    return msgspec.structs.replace(sum_contract(), input=Input("frame", columns), golden=golden)


def test_cells_keep_their_type_and_sign() -> None:
    """0.0, -0.0, false, 0 and null are different cells in the short form, as in the full one."""
    row = [0.0, -0.0, None, 1.5] * 100 + [False, True] * 200 + [0, 1, None, -1] * 100
    contract = wide_contract((tuple(row), tuple(reversed(row))))
    text = schema.encode(contract)
    assert wide.MARK in text
    decoded = schema.decode(text)
    assert decoded == contract
    assert [list(map(repr, each)) for each in decoded.golden.rows] == [list(map(repr, row)), list(map(repr, row[::-1]))]
    assert schema.encode(decoded) == text


@pytest.mark.parametrize("damage", [b'"column_groups":5', b'"column_groups":[{}]'])
def test_a_damaged_short_form_is_no_contract(damage: bytes) -> None:
    """A file with the mark of the short form and another content is a validation error, like any other."""
    text = schema.encode(wide_contract((tuple([1.0] * 1200),)))
    start = text.index(wide.MARK)
    broken = text[:start] + damage + b',"rest":[' + text[text.index(b"[", start) + 1 :]
    with pytest.raises(msgspec.ValidationError):
        schema.decode(broken)


def test_a_large_forest_is_not_converted_to_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forest of too many nodes is refused before skl2onnx is asked, with their number."""
    from sklearn.ensemble import RandomForestClassifier

    monkeypatch.setattr(onnx_export, "MAX_TREE_NODES", 10)
    rows = np.random.default_rng(0).normal(size=(60, 2))
    forest = RandomForestClassifier(3, random_state=0).fit(rows, np.arange(60) % 2)
    columns = (Column("a", "FP64", "float64"), Column("b", "FP64", "float64"))
    with pytest.raises(Unsupported, match=r"\d+ tree nodes, which take skl2onnx more than"):
        onnx_export.convert(forest, Input("matrix", columns), single=False)
