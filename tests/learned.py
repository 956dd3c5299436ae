"""Learns the contract of an estimator whose classes or functions no artifact can hold."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tableside.contracts.schema import Contract
from tableside.publishing import sample
from tableside.publishing.contract_learning import learn_contract
from tableside.runtimes.sklearn import SklearnRuntime


def learned(estimator: Any, frame: pd.DataFrame, **options: Any) -> Contract:
    return learn_contract("m", SklearnRuntime(estimator), sample.as_frame(frame, None), **options)
