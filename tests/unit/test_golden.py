"""Golden rows: a version whose answers differ from those at publish is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from tableside.contract.schema import Contract, Output
from tableside.errors import ContractBroken
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
