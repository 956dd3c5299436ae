"""BentoML with its adaptive batching."""

import os
from typing import Any

import bentoml
import joblib
import numpy as np
import pandas as pd

TABLE = os.environ["BENCH_KIND"] == "table"
Rows = list[dict[str, Any]] if TABLE else np.ndarray
to_input = pd.DataFrame if TABLE else np.asarray


@bentoml.service(workers=2, traffic={"timeout": 60})
class Served:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: Rows) -> np.ndarray:
        return self.model.predict(to_input(rows))
