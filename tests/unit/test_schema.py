"""The contract file: one text for one contract."""

from __future__ import annotations

import datetime

import msgspec
import numpy as np
import pytest

from tableside.contract.schema import decode, encode, plain
from tests.fakes import sum_contract


def test_a_contract_survives_its_file() -> None:
    """A contract that is written and read is the same, and so are its bytes."""
    contract = sum_contract()
    assert decode(encode(contract)) == contract
    assert encode(decode(encode(contract))) == encode(contract)


def test_another_format_is_refused() -> None:
    """A contract of a format this server does not know is not guessed at."""
    with pytest.raises(msgspec.ValidationError, match="format 2"):
        decode(encode(msgspec.structs.replace(sum_contract(), format=2)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1), (np.float32(0.1), float(np.float32(0.1))), (np.int8(-3), -3), (np.bool_(True), True),
        (np.str_("x"), "x"), (None, None), (float("nan"), None), (np.inf, None),
        (datetime.date(2026, 1, 2), "2026-01-02"),
    ],
)  # fmt: skip
def test_numpy_values_become_json(value: object, expected: object) -> None:
    """A numpy scalar becomes the JSON value it stands for; what is missing or not finite becomes null."""
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_a_contract_without_outputs_is_no_contract() -> None:
    """Outputs and golden answers name the same things, and there are some."""
    whole = sum_contract()
    for broken in (
        msgspec.structs.replace(whole, outputs=()),
        msgspec.structs.replace(whole, outputs=whole.outputs[:1]),
    ):
        with pytest.raises(msgspec.ValidationError, match="at least one output, and golden answers for exactly"):
            decode(encode(broken))
    assert decode(encode(whole)) == whole
