"""Golden rows: a version whose answers differ from those at publish is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tableside.contracts.schema import Contract, Output
from tableside.errors import ContractBroken
from tableside.publishing.publish import publish
from tableside.runtimes import golden
from tests.fakes import SumRuntime, numbers, sum_contract


def changed(answers: Any, output: str = "predict") -> Contract:
    contract = sum_contract()
    new = msgspec.structs.replace(contract.golden, answers={**contract.golden.answers, output: answers})
    return msgspec.structs.replace(contract, golden=new)


def test_the_same_answers_pass() -> None:
    """A runtime with the answers of publish is accepted; the number of compared rows is returned."""
    assert golden.replay(sum_contract(), SumRuntime().run) == 2


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (changed(((3.0,), (7.5000001,))), "golden row 1: predict[0] is 7.5, at publish 7.5000001"),
        (changed(((3.0, -3.0), (7.5, 7.5)), "transform"), "golden row 1: transform[1]"),
        (changed(((3.0,),)), "answered 2 rows for 1"),
        (changed(((3.0, 1.0), (7.5, 1.0))), "has 1 columns, at publish 2"),
        (changed(((None,), (7.5,))), "golden row 0"),
        (changed((("3.0",), ("7.5",))), "golden row 0"),
    ],
)
def test_one_changed_answer_is_refused(contract: Contract, message: str) -> None:
    """An answer that differs in value, type or shape raises ContractBroken with its row and output."""
    with pytest.raises(ContractBroken) as broken:
        golden.replay(contract, SumRuntime().run)
    assert message in str(broken.value)


def test_another_order_of_summing_passes() -> None:
    """A number may differ in its last bits, because BLAS sums in another order on another processor."""
    assert golden.replay(changed(((3.0 + 1e-12,), (7.5,))), SumRuntime().run) == 2


def test_a_label_may_not_differ() -> None:
    """Text, integers and booleans are compared exactly; true is not 1."""

    def labels(*values: Any) -> Contract:
        contract = changed(tuple((value,) for value in values))
        return msgspec.structs.replace(contract, outputs=(Output("predict", "BYTES", 1, True),))

    def run(method: str, data: Any) -> Any:
        return np.array(["x", "y"])

    assert golden.replay(labels("x", "y"), run) == 2
    with pytest.raises(ContractBroken):
        golden.replay(labels("x", "z"), run)
    with pytest.raises(ContractBroken):
        golden.replay(labels(1, 0), lambda method, data: np.array([True, False]))
    with pytest.raises(ContractBroken):
        golden.replay(labels(True, False), lambda method, data: np.array([1, 0]))
    assert golden.replay(labels(True, False), lambda method, data: np.array([True, False])) == 2


def test_recorded_answers_replay() -> None:
    """`replay` accepts what `record` returns, including numbers that are not finite."""
    contract = sum_contract(numbers("a", "b", nullable=True))
    rows = ((1.0, None), (1e308, 1e308), (2.0, 3.0))
    table = golden.golden_table(
        msgspec.structs.replace(contract, golden=msgspec.structs.replace(contract.golden, rows=rows))
    )
    with np.errstate(over="ignore"):
        recorded = golden.record(SumRuntime().run, table, rows, contract.outputs)
        assert recorded.answers["predict"] == ((None,), (None,), (5.0,))
        assert golden.replay(msgspec.structs.replace(contract, golden=recorded), SumRuntime().run) == 3


def test_the_tolerance_fits_the_dtype() -> None:
    """A float32 answer may differ by some of its last places, a float64 answer by some of its own."""
    contract = changed(((3.0 * (1 + 1e-6),), (7.5,)))
    with pytest.raises(ContractBroken):
        golden.compare(contract, SumRuntime().run)
    single = tuple(msgspec.structs.replace(output, datatype="FP32") for output in contract.outputs)
    contract = msgspec.structs.replace(contract, outputs=single)
    assert golden.compare(contract, SumRuntime().run)[0] == pytest.approx(1e-6, rel=1e-3)
    assert golden.compare(sum_contract(), SumRuntime().run)[0] == 0.0


def test_the_tolerance_fits_the_estimator() -> None:
    """An estimator whose answers moved far between batches at publish may move as far on another processor."""
    contract, output = sum_contract(), sum_contract().outputs[0]
    assert golden.tolerance_of(contract, output) == golden.RELATIVE_TOLERANCE
    moved = msgspec.structs.replace(contract, batch_invariance="ulp", batch_tolerance_ulp=1e9)
    assert golden.tolerance_of(moved, output) > golden.RELATIVE_TOLERANCE


CHECK = """
import sys
from pathlib import Path
from tableside.preflight.checks import check_version
from tableside.settings import Repository
for name in ("single", "double"):
    print(check_version(Path(sys.argv[1]), name, 1, Repository()).golden_difference)
"""


@pytest.mark.processes
@pytest.mark.slow
def test_a_version_of_another_processor_is_served(tmp_path: Path) -> None:
    """With other BLAS kernels, numbers move within the tolerance, and it is known how far. Labels stay."""
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(200, 64))
    rows[:, 0] = np.arange(200) % 2
    for name, dtype in (("single", np.float32), ("double", np.float64)):
        table = rows.astype(dtype)
        model = LogisticRegression().fit(table, rows[:, 0] > 0.5)
        publish(name, model, table, repository=tmp_path, runtime="sklearn")
    found = []
    for kernels in ("Nehalem", "Haswell"):
        environ = {**os.environ, "OPENBLAS_CORETYPE": kernels, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", CHECK, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        found.append([float(line) for line in done.stdout.split()])
    single, double = np.array(found).T
    assert (single <= golden.FLOAT32_TOLERANCE).all()
    assert (double <= golden.RELATIVE_TOLERANCE).all()
    assert single.max() > golden.RELATIVE_TOLERANCE  # one tolerance for both would refuse this version
    assert 0 < double.max() < single.max()
