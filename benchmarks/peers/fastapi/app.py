"""The service people write by hand: load the joblib file, `model.predict` in a route, the body checked by pydantic."""

import os
from typing import Any

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

TABLE = os.environ["BENCH_KIND"] == "table"
app = FastAPI()
model = joblib.load(os.environ["BENCH_MODEL"])
to_input = pd.DataFrame if TABLE else np.asarray


class Rows(BaseModel):
    instances: list[dict[str, Any]] if TABLE else list[list[float]]


class Answers(BaseModel):
    predictions: list[int]


@app.post("/predict")
async def predict(body: Rows) -> Answers:
    return Answers(predictions=model.predict(to_input(body.instances)).tolist())
